"""Inline and processes: one outcome a job, whatever happens to the workers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from litsexp.data.splits import Split
from litsexp.spec.design import cells
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study.executors import default_workers, executor_of, processes
from litsexp.study.jobs import Job, Outcome


def job_without_store(number: int, folder: Path, **changes: Any) -> Job:
    """A job that fails as soon as it begins."""
    cell = cells(StudyConfig(question="?"))[0]
    uri = f"sqlite:///{folder}/mlruns/mlflow.db"
    places = (uri, Split((0,), (1,), (2,)), folder / f"store{number}")
    return Job(cell, f"key{number}", f"run{number}", *places, scorings=(), cache=folder / "pretrained", **changes)


def test_where_the_system_does_not_tell_which_cores_are_ours_all_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no such call."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert default_workers() == 3


def go_on(*_: object) -> bool:
    return True


def alive(pid: int) -> bool:
    """Whether the process still runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 15
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


@pytest.fixture(autouse=True)
def database(new_places: Callable[[Path], Any], tmp_path: Path) -> None:
    new_places(tmp_path)


def test_one_worker_runs_inline_and_more_run_as_processes() -> None:
    assert executor_of(None, 1, None).__qualname__.startswith("inline.")
    assert executor_of(None, 3, None).__qualname__.startswith("processes.")
    assert executor_of("processes", 1, None).__qualname__.startswith("processes.")
    assert executor_of("inline", 3, None).__qualname__.startswith("inline.")
    assert 1 <= default_workers() <= 8
    with pytest.raises(LitsexpError, match=r"found 'inlin'; expected one of inline, .*, slurm, ray; did you mean"):
        executor_of("inlin", 1, None)


def test_every_job_gets_its_outcome_and_is_taken_when_there_is_room(tmp_path: Path) -> None:
    taken: list[int] = []

    def jobs() -> Iterator[Job]:
        for number in range(3):
            taken.append(number)
            yield job_without_store(number, tmp_path)

    found: dict[str, Outcome] = {}
    with closing(executor_of("inline", 1, 1)(jobs(), go_on)) as ended:
        for job, outcome in ended:
            found[job.run_key] = outcome
            assert len(taken) == len(found)  # the next is asked for when this one is settled
    assert list(found) == ["key0", "key1", "key2"]
    for number, outcome in enumerate(found.values()):
        assert outcome.status == "failed"
        assert str(tmp_path / f"store{number}") in outcome.reason
        assert "Traceback" in outcome.detail


def test_no_jobs_start_nothing() -> None:
    for name in ("inline", "processes"):
        assert list(executor_of(name, 2, 1)(iter(()), go_on)) == []


def test_a_killed_worker_fails_its_job_and_is_replaced_and_all_are_ended_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    start = processes._start_worker

    def spy(threads: int) -> processes.Worker:
        worker = start(threads)
        started.append(worker.process.pid or 0)
        return worker

    monkeypatch.setattr(processes, "_start_worker", spy)

    def jobs() -> Iterator[Job]:
        yield job_without_store(0, tmp_path)
        os.kill(started[0], signal.SIGKILL)  # it has the job, and is still importing
        for number in range(1, 6):
            yield job_without_store(number, tmp_path)

    found: dict[str, Outcome] = {}
    with closing(processes.processes(2, 1)(jobs(), go_on)) as ended:
        for job, outcome in ended:
            found[job.run_key] = outcome
            if len(found) == 4:
                break  # one idle or working, one starting
        start_s = time.monotonic()
    assert time.monotonic() - start_s < 3
    dead = [outcome.reason for outcome in found.values() if "died" in outcome.reason]
    assert len(dead) == 1
    assert dead == [found["key0"].reason]
    assert [key for key, outcome in found.items() if outcome.died] == ["key0"]
    assert dead[0].startswith("the worker process died with exit code -9; out of memory?") and "--workers" in dead[0]
    assert len(started) == 3  # two, and one in the dead one's place
    assert not any(alive(pid) for pid in started)


def test_a_worker_that_is_silent_but_alive_is_ended_before_its_job_counts_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it might train beside the second try of its cell."""
    monkeypatch.setattr(processes, "STOP_WAIT_S", 0.2)
    context = processes.multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    hangs = context.Process(target=time.sleep, args=(60,), daemon=True)
    hangs.start()
    theirs.close()
    crew = processes.Crew(1)
    crew.workers = [processes.Worker(hangs, ours, job_without_store(0, tmp_path))]
    ((_, outcome),) = crew.hear(go_on)
    assert outcome.died and outcome.reason == "the worker process was silent, and was ended"
    assert not alive(hangs.pid or 0)


def test_what_fails_in_the_driver_is_not_taken_for_a_dead_worker(tmp_path: Path) -> None:
    """A full disk is an OSError, and so is a broken pipe."""
    ours, theirs = processes.multiprocessing.get_context("spawn").Pipe()
    crew = processes.Crew(1)
    crew.workers = [processes.Worker(None, ours, job_without_store(0, tmp_path))]  # no process

    def full_disk(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    theirs.send(("epoch", 0, {}))
    with pytest.raises(OSError, match="No space left"):
        list(crew.hear(full_disk))


def test_rows_of_a_notebook_are_refused_before_a_worker_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_without_store(0, tmp_path, modules=("__main__",))
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(LitsexpError, match=r"registered in a notebook.*or run with workers=1"):
        list(processes.processes(2, 1)(iter([job]), go_on))


DRIVER = """
import time
from litsexp.study.executors.processes import Crew
if __name__ == "__main__":
    crew = Crew(1)
    class Idle:
        modules = ()
    for _ in "ab":
        crew.give(Idle())
    print(*(worker.process.pid for worker in crew.workers), flush=True)
    time.sleep(60)
"""


def test_workers_die_with_a_killed_driver(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    driver = subprocess.Popen([sys.executable, "driver.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pids = [int(word) for word in driver.stdout.readline().split()]
    assert len(pids) == 2
    assert all(alive(pid) for pid in pids)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    assert gone(pids)
