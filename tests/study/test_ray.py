"""A study through a real Ray of two nodes: the same cases as inline, whatever happens to drivers, workers and nodes."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.catalog import ENCODERS
from litsexp.spec.design import cells
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study.executors import executor_of
from litsexp.study.executors import ray_cluster as driver_side
from litsexp.study.jobs import Job, Outcome
from litsexp.study.places import Places

from ..ray_cluster import HEAD, OTHER, Ray, needs_ray, ray_cluster, workers_of
from ..slurm_cluster import wait_until
from .cluster_lab import STUDY, TOY, Lab

pytestmark = needs_ray
PATIENCE_S = 240
PASSWORD = "hush-f3b1c9"  # of nothing
HANGS = """\
import os, pathlib, sys, time

if "default_worker" in sys.argv[0]:  # Ray's
    pathlib.Path("password").write_text(os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
    while pathlib.Path("hang").exists():
        time.sleep(0.1)
"""
PLAYS = """\
import pathlib, sys, time, types
from litsexp.study.executors import elsewhere
from litsexp.study.jobs import Outcome

def run_cell(job, on_epoch):
    import torch

    while pathlib.Path("hang").exists():
        time.sleep(0.1)
    went_on = [on_epoch(epoch, {"valid/score": float("nan")}) for epoch in range(2)]
    return Outcome("finished", sum(went_on), reason=str(torch.get_num_threads()))

sys.modules["litsexp.study.cells"] = types.SimpleNamespace(run_cell=run_cell)
elsewhere.introduce = lambda *_: None
elsewhere.with_stores = lambda job: job
"""


DRIVER = """\
from pathlib import Path
from litsexp.study.executors import executor_of
from litsexp.study.places import Places

if __name__ == "__main__":
    engine = executor_of("ray", 1, 1, ["address={address}"], Places.below(Path("mlruns")))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Ray]:
    with ray_cluster() as ray:
        yield ray


def working(cluster: Ray) -> list[int]:
    """Processes that have a task, on any node."""
    return [pid for node in cluster.nodes.values() for pid in workers_of(node.pid)]


def beside(condition: Callable[[], object], then: Callable[[], None]) -> threading.Thread:
    """A thread that does something as soon as the condition holds."""

    def wait() -> None:
        try:
            wait_until(condition, patience_s=PATIENCE_S)
        finally:
            then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.fixture
def lab(
    cluster: Ray,
    tmp_path: Path,
    new_places: Callable[[Path], Places],
    phantom_store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Lab]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ENCODERS, "data", dict(ENCODERS.data))  # two drivers are this very process
    monkeypatch.setattr(ENCODERS, "added", dict(ENCODERS.added))
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    stores = phantom_store.directory.parents[1]
    (tmp_path / "toy.py").write_text(HANGS + TOY)
    (tmp_path / "toy.yaml").write_text(STUDY.format(cohort=stores / "ct"))
    one = Lab(tmp_path, new_places(tmp_path), ["--stores", str(stores)])
    yield one
    for driver in one.drivers:
        driver.kill()
        driver.wait()


def test_a_study_ends_as_inline_though_drivers_and_a_worker_are_killed(
    cluster: Ray,
    lab: Lab,
    tmp_path: Path,
    new_places: Callable[[Path], Places],
    litsexp: Callable[..., tuple[int, str, str]],
) -> None:
    through_ray, hang = ["--executor", "ray", "--address", cluster.address], tmp_path / "hang"
    study = ["study", "toy.yaml", "--plugin", "toy", *lab.options]

    hang.touch()
    killed = lab.drive(*through_ray)
    wait_until(lambda: len(working(cluster)) == 2, lab.printed, PATIENCE_S)
    killed.kill()
    killed.wait()
    wait_until(lambda: not working(cluster), lab.printed, patience_s=30)  # tasks do not outlive their driver

    interrupt = beside(lambda: len(working(cluster)) == 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    code, _, said = litsexp(*study, *through_ray)
    assert working(cluster) == []
    interrupt.join()
    assert code == 130 and said.endswith("interrupted; finished runs are kept, and the same command goes on\n"), said
    assert [run.info.status for run in lab.runs()] == ["KILLED"] * 4

    last = lab.drive(*through_ray, "--retries", "1", MLFLOW_TRACKING_PASSWORD=PASSWORD)
    wait_until(lambda: len(working(cluster)) == 2 and (tmp_path / "password").exists(), lab.printed, PATIENCE_S)
    os.kill(working(cluster)[0], signal.SIGKILL)
    hang.unlink()
    assert last.wait(PATIENCE_S) == 0, lab.printed()
    assert re.search(r"Ray task ended as WorkerCrashedError: The worker died .*out of memory\?", lab.printed())
    assert not re.search(r"raylet|gcs_|INFO|Lease ID", lab.printed() + said)  # what Ray says of itself
    assert sorted(run.info.status for run in lab.runs()) == ["FAILED", *["FINISHED"] * 2, *["KILLED"] * 4]
    done = [run for run in lab.runs() if run.info.status == "FINISHED"]
    assert all(run.data.tags["ray_node"] in (HEAD, OTHER) and run.data.tags["ray_task"] for run in done)
    assert {run.data.tags["attempt"] for run in done} == {"3", "4"}
    theirs = lab.cases()
    assert_nowhere(PASSWORD, cluster.folder, lab)

    lab.places = new_places(tmp_path / "aside")
    assert litsexp(*study, "--executor", "inline", "--mlruns", "aside/mlruns")[0] == 0
    assert len(theirs) == 2
    assert lab.cases() == theirs


def assert_nowhere(password: str, folder: Path, lab: Lab) -> None:
    """The workers had it; Ray's files, what was printed and the runs do not."""
    assert (lab.folder / "password").read_text() == password
    kept = [file for file in folder.rglob("*") if file.is_file()]
    assert len(kept) > 10
    assert not [file for file in kept if password.encode() in file.read_bytes()]
    assert password not in lab.printed()
    assert not any(password in repr(run.to_dictionary()) for run in lab.runs())


@pytest.fixture
def play(cluster: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Outcome]]:
    """``play(jobs, options)``: outcomes by key of jobs that train nothing; they hang while there is a file ``hang``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plays.py").write_text(PLAYS)
    places, cell = Places.below(tmp_path / "mlruns"), cells(StudyConfig(question="?"))[0]
    where = (places.tracking_uri, Split((0,), (1,), (2,)), tmp_path, (), tmp_path)

    def run(
        count: int, *options: str, threads: int = 1, on_epoch: Callable[..., bool] = lambda *_: True
    ) -> dict[str, Outcome]:
        asked = [Job(cell, f"k{n}", f"{n:032x}", *where, modules=("plays",)) for n in range(count)]
        engine = executor_of("ray", count, threads, [f"address={cluster.address}", *options], places)
        with closing(engine(asked, on_epoch)) as ended:
            return {job.run_key: outcome for job, outcome in ended}

    return run


def test_two_runs_share_what_each_takes_half_of(cluster: Ray, play: Callable[..., Any], tmp_path: Path) -> None:
    """A GPU as well: ``num_gpus=0.5``; here a resource of one node stands for it."""
    hang, seen = tmp_path / "hang", [0]
    hang.touch()

    def look() -> None:
        until_s = time.monotonic() + 2
        while time.monotonic() < until_s:
            seen.append(len(working(cluster)))
        hang.unlink()

    looking = beside(lambda: len(working(cluster)) == 2, look)
    found = play(3, "resources.other=0.5")
    looking.join()
    assert [outcome.status for outcome in found.values()] == ["finished"] * 3
    assert max(seen) == 2


def test_a_run_asks_after_each_epoch_and_keeps_its_cpus_while_it_waits(cluster: Ray, play: Callable[..., Any]) -> None:
    heard: list[tuple[str, int, bool]] = []
    running: list[int] = []

    def on_epoch(job: Job, epoch: int, metrics: dict[str, float]) -> bool:
        heard.append((job.run_key, epoch, metrics["valid/score"] != metrics["valid/score"]))
        if len(heard) == 1:
            time.sleep(2)  # long enough for others to be started, were there room
            running.append(len(working(cluster)))
        return job.run_key != "k1" or epoch == 0

    found = play(4, threads=2, on_epoch=on_epoch)
    assert running[0] <= 2  # of two CPUs each, on two nodes of two CPUs
    assert sorted(heard) == [(f"k{n}", epoch, True) for n in range(4) for epoch in range(2)]
    assert {key: outcome.value for key, outcome in found.items()} == {"k0": 2, "k1": 1, "k2": 2, "k3": 2}
    assert {outcome.reason for outcome in found.values()} == {"2"}  # threads


def test_a_driver_that_still_holds_its_engine_ends_all_the_same(cluster: Ray, tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER.format(address=cluster.address))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "driver.py"], cwd=tmp_path, env=environment, timeout=PATIENCE_S, check=True)
    assert ended.returncode == 0


def test_what_the_cluster_lacks_or_refuses_is_said_before_anything_is_written(
    cluster: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, address = Places.below(tmp_path / "mlruns"), f"address={cluster.address}"
    for option, lacks in {"num_gpus=1": "GPU 1", "resources.slot=2": "slot 2"}.items():
        with pytest.raises(LitsexpError, match=f"no node of {cluster.address} has CPU 1, {lacks} for a run; found 127"):
            executor_of("ray", 1, 1, [address, option], places)
    (tmp_path / "token").write_text("0" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "1")
    with pytest.raises(LitsexpError, match="the cluster asks for a token, and none is given here or another one"):
        executor_of("ray", 1, 1, [address], places)
    monkeypatch.setattr(driver_side, "CONNECT_S", 2.0)
    with socket.create_server((HEAD, 0)) as mute:
        asked = f"address={HEAD}:{mute.getsockname()[1]}"
        with pytest.raises(LitsexpError, match="no answer within 2 s; is it the head of a Ray cluster"):
            executor_of("ray", 1, 1, [asked], places)
    assert not places.root.exists()


def test_at_last_a_lost_node_fails_its_task_in_rays_words_and_the_others_go_on(
    cluster: Ray, play: Callable[..., Any], tmp_path: Path
) -> None:
    hang = tmp_path / "hang"
    hang.touch()

    def pull_the_plug() -> None:
        cluster.kill(OTHER)
        hang.unlink()

    plug = beside(lambda: all(len(workers_of(node.pid)) == 1 for node in cluster.nodes.values()), pull_the_plug)
    try:
        found = play(3, "resources.slot=1")
    finally:
        plug.join()
    dead = [outcome for outcome in found.values() if outcome.died]
    assert len(dead) == 1 and dead[0].status == "failed"
    assert re.match(r"Ray task ended as NodeDiedError: .*127\.0\.0\.3.*; --retries 1 runs it again", dead[0].reason)
    assert sorted(outcome.status for outcome in found.values()) == ["failed", "finished", "finished"]
