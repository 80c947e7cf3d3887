"""A study through a real Slurm: the same cases as inline, whatever happens to drivers and jobs on the way."""

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.design import cells
from litsexp.spec.study import StudyConfig
from litsexp.study.executors import executor_of, slurm_commands
from litsexp.study.executors.slurm import job_name
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


@pytest.fixture
def lab(cluster: str, tmp_path: Path, new_places: Callable[[Path], Places], phantom_store: Store) -> Iterator[Lab]:
    stores = phantom_store.directory.parents[1]
    (tmp_path / "toy.py").write_text(HANGS + TOY)
    (tmp_path / "toy.yaml").write_text(STUDY.format(cohort=stores / "ct"))
    one = Lab(tmp_path, new_places(tmp_path), ["--stores", str(stores)])
    yield one
    for driver in one.drivers:
        driver.kill()
        driver.wait()


def test_a_study_ends_as_inline_though_drivers_and_a_worker_are_killed(
    lab: Lab, tmp_path: Path, new_places: Callable[[Path], Places]
) -> None:
    through_slurm = ["--executor", "slurm", "--executor-option", "partition=all", "--executor-option", "time=10"]

    def jobs() -> list[str]:
        return [name for name in queue() if name.startswith("litsexp-")]

    aside = new_places(tmp_path / "aside")
    inline = lab.drive("--executor", "inline", "--mlruns", "aside/mlruns")  # while the others' jobs hang

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
    theirs = lab.cases()

    lab.places = aside
    assert inline.wait(PATIENCE_S) == 0, lab.printed()
    assert len(theirs) == 2
    assert lab.cases() == theirs


def test_a_job_that_dies_fails_in_slurms_own_words(
    cluster: str, tmp_path: Path, new_places: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(300)\n")
    places, cell = new_places(tmp_path), cells(StudyConfig(question="?"))[0]
    where = (places.tracking_uri, Split((0,), (1,), (2,)), tmp_path, (), tmp_path)
    asked = [Job(cell, f"k{n}", f"{n:032x}", *where, modules=("slow",)) for n in range(3)]

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


def test_a_time_limit_is_named(cluster: str) -> None:
    wait_until(lambda: "sleeper" not in queue(), patience_s=150)
    assert slurm_commands.last_words(cluster).startswith("TIMEOUT (Reason=TimeLimit, ExitCode=0:")
