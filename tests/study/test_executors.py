"""Inline and processes: one outcome a job, whatever happens to the workers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from litsexp.spec.design import cells

from litsexp.data.splits import Split
from litsexp.spec.study import StudyConfig
from litsexp.study.cells import Job, Outcome
from litsexp.study.executors import Inline, Processes, default_workers, make_executor

PATIENCE_S = 60.0


def job_without_store(number: int, folder: Path) -> Job:
    """A job that fails as soon as it begins."""
    cell = cells(StudyConfig(question="?"))[0]
    uri = f"sqlite:///{folder}/mlruns/mlflow.db"
    return Job(cell, f"key{number}", Split((0,), (1,), (2,)), folder / f"store{number}", uri, f"run{number}")


def outcomes(executor: Inline | Processes, count: int) -> dict[str, Outcome]:
    """The next outcomes by run key."""
    found: dict[str, Outcome] = {}
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < deadline, "no outcome"
        ended = executor.wait(0.2)
        if ended is not None:
            found[ended[0].run_key] = ended[1]
    return found


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


@pytest.fixture
def two() -> Iterator[Processes]:
    executor = Processes(workers=2, threads=1, on_epoch=lambda *_: True)
    yield executor
    executor.close()


def test_one_worker_runs_inline_and_more_run_as_processes() -> None:
    def go_on(*_: object) -> bool:
        return True

    assert isinstance(make_executor(1, None, go_on), Inline)
    several = make_executor(3, None, go_on)
    assert isinstance(several, Processes)
    assert (several.limit, several.threads) == (3, 1)
    assert 1 <= default_workers() <= 8


def test_inline_holds_one_job_and_gives_its_outcome(tmp_path: Path) -> None:
    executor = Inline(threads=1, on_epoch=lambda *_: True)
    assert executor.wait(0) is None
    executor.submit(job_without_store(0, tmp_path))
    assert (executor.room(), executor.busy()) == (False, True)
    outcome = outcomes(executor, 1)["key0"]
    assert outcome.status == "failed"
    assert str(tmp_path / "store0") in outcome.reason
    assert (executor.room(), executor.busy()) == (True, False)


def test_workers_are_reused_replaced_when_killed_and_ended_at_once(two: Processes, tmp_path: Path) -> None:
    for number in range(2):
        assert two.room()
        two.submit(job_without_store(number, tmp_path))
    assert (two.room(), two.busy()) == (False, True)
    first, second = (worker.process.pid for worker in two.workers)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    found = outcomes(two, 2)
    assert "the worker process died with exit code -9; out of memory?" in found["key0"].reason
    assert "--workers" in found["key0"].reason
    assert found["key1"].status == "failed"  # in the ordinary way
    assert "store1" in found["key1"].reason
    assert "Traceback" in found["key1"].detail
    assert [worker.process.pid for worker in two.workers] == [second]
    two.submit(job_without_store(2, tmp_path))  # by the worker that is there
    assert [worker.process.pid for worker in two.workers] == [second]
    assert "store2" in outcomes(two, 1)["key2"].reason
    two.submit(job_without_store(3, tmp_path))
    two.submit(job_without_store(4, tmp_path))  # by a new one
    assert len(two.workers) == 2
    pids = [worker.process.pid or 0 for worker in two.workers]
    start_s = time.monotonic()
    two.close()  # one idle, one starting
    assert time.monotonic() - start_s < 3
    assert not any(alive(pid) for pid in pids)


DRIVER = """
import time
from litsexp.study.executors import Processes
if __name__ == "__main__":
    executor = Processes(2, 1, lambda *_: True)
    for job in "ab":
        executor.submit(job)
    print(*(worker.process.pid for worker in executor.workers), flush=True)
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
