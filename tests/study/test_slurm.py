"""A study through a real Slurm: the same cases as inline, whatever happens to drivers and jobs on the way."""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.design import cells
from litsexp.spec.study import StudyConfig
from litsexp.study.executors import executor_of, slurm_commands
from litsexp.study.executors.slurm import Crew, end_left, left_over
from litsexp.study.executors.slurm_commands import Name
from litsexp.study.executors.slurm_folder import job_name
from litsexp.study.jobs import Job, Outcome
from litsexp.study.places import Places

from ..slurm_cluster import needs_slurm, queue, said, slurm, wait_until, worker_of
from .cluster_lab import STUDY, TOY, Lab

pytestmark = needs_slurm
PATIENCE_S = 240
HANGS = """\
import os, time

if "SLURM_JOB_ID" in os.environ and "HANG" in os.environ:
    time.sleep(300)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Slurm; the number of a job in it whose time limit, a minute, is the shortest there is."""
    folder = tmp_path_factory.mktemp("slurm")
    with slurm(folder):
        script = folder / "sleep.sh"
        script.write_text("#!/bin/sh\nexec sleep 600\n")
        yield slurm_commands.send("sleeper", ["--time=1", "--nodelist=n1", f"--output={folder}/sleeper.log"], script)


@contextmanager
def lab_in(folder: Path, places: Places, store: Store) -> Iterator[Lab]:
    stores = store.directory.parents[1]
    (folder / "toy.py").write_text(HANGS + TOY)
    (folder / "toy.yaml").write_text(STUDY.format(cohort=stores / "ct"))
    one = Lab(folder, places, ["--stores", str(stores)])
    try:
        yield one
    finally:
        for driver in one.drivers:
            driver.kill()
            driver.wait()


@pytest.fixture
def lab(cluster: str, tmp_path: Path, new_places: Callable[[Path], Places], phantom_store: Store) -> Iterator[Lab]:
    with lab_in(tmp_path, new_places(tmp_path), phantom_store) as one:
        yield one


@pytest.fixture(scope="module")
def inline_cases(
    tmp_path_factory: pytest.TempPathFactory, new_places: Callable[[Path], Places], phantom_store: Store
) -> Iterator[Callable[[], dict[str, bytes]]]:
    """The cases of the same study inline, once asked for; it runs while the others' jobs hang."""
    folder = tmp_path_factory.mktemp("inline")
    with lab_in(folder, new_places(folder), phantom_store) as one:
        driver = one.drive("--executor", "inline")

        def cases() -> dict[str, bytes]:
            assert driver.wait(PATIENCE_S) == 0, one.printed()
            return one.cases()

        yield cases


@pytest.fixture
def sleepers(
    cluster: str, tmp_path: Path, new_places: Callable[[Path], Places], monkeypatch: pytest.MonkeyPatch
) -> tuple[Places, list[Job]]:
    """Three jobs whose workers would not end by themselves, and the study's places; in the folder of both."""
    monkeypatch.chdir(tmp_path)
    places = new_places(tmp_path)
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(300)\n")
    where = (places.tracking_uri, Split((0,), (1,), (2,)), tmp_path, (), tmp_path)
    cell = cells(StudyConfig(question="?"))[0]
    return places, [Job(cell, f"k{n}", f"{n:032x}", *where, modules=("slow",)) for n in range(3)]


def test_a_study_ends_as_inline_though_drivers_and_a_worker_are_killed(
    lab: Lab, inline_cases: Callable[[], dict[str, bytes]]
) -> None:
    through_slurm = ["--executor", "slurm", "--executor-option", "partition=all", "--executor-option", "time=10"]

    def jobs() -> list[str]:
        return [name for name in queue() if name.startswith("litsexp-")]

    killed = lab.drive(*through_slurm, HANG="1")
    wait_until(lambda: list(queue().values()).count("RUNNING") >= 3, lab.printed, PATIENCE_S)  # two, and the sleeper
    left = jobs()
    killed.kill()
    killed.wait()
    assert sorted(jobs()) == sorted(left)  # Slurm's jobs outlive their driver

    interrupted = lab.drive(*through_slurm, HANG="1")
    wait_until(lambda: len(set(jobs()) - set(left)) == 2, lab.printed, PATIENCE_S)
    assert not set(jobs()) & set(left)  # it ended them before it sent its own
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(PATIENCE_S) == 130, lab.printed()
    assert jobs() == []
    assert not list((lab.places.root / "slurm").iterdir())
    assert [run.info.status for run in lab.runs()] == ["KILLED"] * 4

    last = lab.drive(*through_slurm, "--retries", "1")
    wait_until(lambda: jobs() and worker_of(jobs()[0].removeprefix("litsexp-")), lab.printed, PATIENCE_S)
    victim = jobs()[0].removeprefix("litsexp-")
    os.kill(worker_of(victim), signal.SIGKILL)
    assert last.wait(PATIENCE_S) == 0, lab.printed()
    assert "ended as FAILED" in lab.printed() and "ExitCode=0:9" in lab.printed()
    statuses = {run.info.run_id: run.info.status for run in lab.runs()}
    assert statuses.pop(victim) == "FAILED"
    assert sorted(statuses.values()) == ["FINISHED"] * 2 + ["KILLED"] * 4
    assert not list((lab.places.root / "slurm").iterdir())
    done = [run for run in lab.runs() if run.info.status == "FINISHED"]
    assert all(run.data.tags["slurm_job"].isdigit() and run.data.tags["host"] for run in done)
    assert {run.data.tags["attempt"] for run in done} == {"3", "4"}
    assert len(lab.cases()) == 2
    assert lab.cases() == inline_cases()


def test_a_job_that_dies_fails_in_slurms_own_words(sleepers: tuple[Places, list[Job]]) -> None:
    places, asked = sleepers

    def sabotage() -> None:
        wait_until(lambda: all(worker_of(job.run_id) for job in asked))
        os.kill(worker_of(asked[0].run_id), signal.SIGKILL)
        said("scancel", f"--name={job_name(asked[1].run_id)}")
        wait_until(lambda: not {job_name(job.run_id) for job in asked[:2]} & set(queue()))  # else the node took them
        node = said("squeue", "--noheader", f"--name={job_name(asked[2].run_id)}", "--format=%N").strip()
        said("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    started = threading.Thread(target=sabotage)
    started.start()
    found: dict[str, Outcome] = {}
    try:
        with closing(executor_of("slurm", 3, 1, ["nodelist=n2"], places)(asked, lambda *_: True)) as ended:
            for job, outcome in ended:
                found[job.run_key] = outcome
    finally:
        started.join()
        for node in ("n1", "n2"):
            said("scontrol", "update", f"NodeName={node}", "State=RESUME")
    assert all(outcome.status == "failed" and outcome.died for outcome in found.values())
    assert re.search(r"ended as FAILED \(Reason=\w+, ExitCode=0:9\) on node n2; killed; out of", found["k0"].reason)
    assert "ended as CANCELLED" in found["k1"].reason
    assert "ended as NODE_FAIL" in found["k2"].reason


def test_a_job_that_takes_more_memory_than_it_asked_for_is_ended_by_slurm(sleepers: tuple[Places, list[Job]]) -> None:
    places, asked = sleepers
    ((_, outcome),) = executor_of("slurm", 1, 1, ["mem=100M"], places)(asked[:1], lambda *_: True)
    assert outcome.died
    assert re.search(r"ended as FAILED \(Reason=\w+, ExitCode=0:9\) .*out of memory\? try --exec", outcome.reason)
    assert "exceeded memory limit" in outcome.detail  # the job's log, which its run keeps


def test_an_array_ends_as_inline_though_a_worker_is_killed(
    lab: Lab, inline_cases: Callable[[], dict[str, bytes]]
) -> None:
    array = ["--executor-option", "array", "--executor-option", "time=10"]
    driver = lab.drive("--executor", "slurm", *array, "--retries", "1")
    wait_until(lambda: any(worker_of(run.info.run_id) for run in lab.runs()), lab.printed, PATIENCE_S)
    victim = next(run.info.run_id for run in lab.runs() if worker_of(run.info.run_id))
    os.kill(worker_of(victim), signal.SIGKILL)
    assert driver.wait(PATIENCE_S) == 0, lab.printed()
    runs = {run.info.run_id: run for run in lab.runs()}
    assert runs.pop(victim).info.status == "FAILED"
    assert re.search(r"Slurm job \d+_[01] ended as FAILED \(Reason=\w+, ExitCode=0:9\)", lab.printed())
    assert [run.info.status for run in runs.values()] == ["FINISHED"] * 2
    numbers = [run.data.tags["slurm_job"] for run in runs.values()]
    assert sorted(bool(re.fullmatch(r"\d+_[01]", one)) for one in numbers) == [False, True]  # the retry went alone
    assert not list((lab.places.root / "slurm").iterdir())
    assert len(lab.cases()) == 2
    assert lab.cases() == inline_cases()


def test_one_task_is_cancelled_and_the_rest_of_its_array_goes_on_until_the_driver_ends(
    sleepers: tuple[Places, list[Job]],
) -> None:
    places, asked = sleepers
    folders = [places.root / "slurm" / job.run_id for job in asked]

    def states() -> dict[str, str]:
        rows = said("squeue", "--noheader", "--array", "--format=%i|%T").split()
        return dict(row.split("|") for row in rows if "_" in row)

    def sabotage() -> None:
        wait_until(lambda: all(worker_of(job.run_id) for job in asked))
        end_left([asked[1].run_id], places.root)

    started = threading.Thread(target=sabotage)
    started.start()
    with closing(executor_of("slurm", 3, 1, ["nodelist=n2", "array"], places)(asked, lambda *_: True)) as ended:
        job, outcome = next(ended)
        started.join()
        assert job == asked[1] and outcome.died
        assert re.match(r"Slurm job \d+_1 ended as CANCELLED", outcome.reason)
        assert sorted(number[-2:] for number in states()) == ["_0", "_2"]
        assert [folder.exists() for folder in folders] == [True, False, True]
    assert states() == {}
    assert not list((places.root / "slurm").iterdir())


def test_a_killed_drivers_array_is_found_by_its_name(sleepers: tuple[Places, list[Job]]) -> None:
    places, asked = sleepers
    killed = Crew(places.root / "slurm", 1, ["--nodelist=n2"])
    killed.send(asked)
    live = Crew(places.root / "slurm", 1, ["--nodelist=n2"])
    live.send([replace(job, run_id=f"{n:032x}") for n, job in enumerate(asked[:2], 10)])
    try:
        wait_until(lambda: worker_of(asked[0].run_id))
        end_left([job.run_id for job in asked], places.root)
        ours = {job.is_called() for job in slurm_commands.listed() if job.name.startswith("litsexp-")}
        assert ours == {sent.name for sent in live.sent}
        assert sorted(left_over(places.root)) == [sent.job.run_id for sent in live.sent]
    finally:
        live.end()
    assert not list((places.root / "slurm").iterdir())


def test_a_task_that_is_cancelled_while_it_waits_is_known_no_longer(cluster: str, tmp_path: Path) -> None:
    script = tmp_path / "sleep.sh"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    number = slurm_commands.send("waits", ["--array=0-1", "--hold", f"--output={tmp_path}/%a"], script)
    waiting = [job for job in slurm_commands.listed() if job.number.startswith(f"{number}_")]
    assert [job.is_called() for job in waiting] == [Name("waits", 0), Name("waits", 1)]
    slurm_commands.end(names=[Name("waits", 0)])
    assert [job.number for job in slurm_commands.listed() if job.name == "waits"] == [f"{number}_1"]
    assert slurm_commands.last_words(f"{number}_0") == f"no longer known (Job {number}_0 not found)"
    slurm_commands.end([f"{number}_1"])


def test_a_time_limit_is_named(cluster: str) -> None:
    wait_until(lambda: "sleeper" not in queue(), patience_s=150)
    assert slurm_commands.last_words(cluster).startswith("TIMEOUT (Reason=TimeLimit, ExitCode=0:")
