"""What the executor ``ray`` refuses, and what it makes of what Ray says; no cluster is started."""

import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from litsexp.data.splits import Split
from litsexp.spec.design import cells
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study.executors import executor_of, ray_clerk, ray_cluster
from litsexp.study.executors.ray_clerk import Node
from litsexp.study.executors.ray_cluster import Crew, address_of, needs_of
from litsexp.study.jobs import Job, Outcome, outcome_from_json, outcome_to_json
from litsexp.study.places import Places

from ..ray_cluster import needs_ray
from ..slurm_cluster import free_ports

GIB = 2**30
NODES = [
    Node("10.0.0.1", "head", {"CPU": 8.0, "memory": 32.0 * GIB, "node:10.0.0.1": 1.0, "object_store_memory": 9.0}),
    Node("10.0.0.2", "a02", {"CPU": 16.0, "GPU": 2.0, "accelerator_type:A100": 1.0, "memory": 64.0 * GIB}),
]


class FakeLine:
    """Stands for the process that talks to Ray."""

    def __init__(self, address: str, needs: Any):
        self.address, self.needs, self.nodes = address, needs, NODES
        self.pipe, self.theirs = ray_cluster.multiprocessing.get_context("spawn").Pipe()

    def close(self) -> str:
        self.pipe.close()
        return "GCS is gone"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "Line", FakeLine)
    monkeypatch.setattr(ray_cluster, "find_spec", lambda _: "here")


def job_of(folder: Path, **changes: Any) -> Job:
    cell = cells(StudyConfig(question="?"))[0]
    return replace(
        Job(cell, "key", "f0", f"sqlite:///{folder}/none.db", Split((0,), (1,), (2,)), folder, (), folder), **changes
    )


def test_options_are_what_a_task_needs() -> None:
    options = ["num_gpus=0.5", "memory=8GiB", "resources.slot=2", "accelerator_type=A100", "address=head:6379"]
    assert needs_of(options, 3) == {
        "CPU": 3,
        "GPU": 0.5,
        "memory": 8 * GIB,
        "slot": 2,
        "accelerator_type:A100": 0.001,
    }
    assert [needs_of([f"memory={size}"], 1)["memory"] for size in ("5", "5K", "5MB", "1.5G")] == [
        5,
        5 * 2**10,
        5 * 2**20,
        1.5 * GIB,
    ]


@pytest.mark.parametrize(
    ("option", "refusal"),
    [
        ("partition=gpu", "found 'partition'; expected num_gpus=1"),
        ("resources.CPU=2", "found 'resources.CPU'; expected num_gpus=1"),
        ("resources.=2", "found 'resources.'; expected num_gpus=1"),
        ("num_gpus", "found ''; expected a whole number, or a part of one such as 0.5"),
        ("num_gpus=1.5", "found '1.5'; expected a whole number"),
        ("num_gpus=0", "found '0'; expected a whole number"),
        ("num_gpus=-1", "found '-1'; expected a whole number"),
        ("memory=much", "found 'much'; expected bytes, such as 8GiB"),
        ("num_cpus=2", "found 'num_cpus', which litsexp sets; use --threads"),
        ("accelerator_type=", "found 'accelerator_type'; expected num_gpus=1"),
        ("max_retries=3", "found 'max_retries'; expected num_gpus=1"),
    ],
)
def test_other_options_are_refused_in_one_line(places: Places, option: str, refusal: str) -> None:
    with pytest.raises(LitsexpError, match=f"--executor-option {option}: {refusal}"):
        executor_of("ray", 1, 1, [option], places)


def test_the_address_is_the_options_or_the_environments_or_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert address_of([]) == "auto"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert address_of([]) == "head:6379"
    assert address_of(["address=other:1", "num_gpus=1"]) == "other:1"
    for wrong in ("ray://head:10001", "head", "head:", "local", "a b:1"):
        with pytest.raises(LitsexpError, match=r"--address: found '.*'; expected HOST:PORT of the cluster's head"):
            address_of([f"address={wrong}"])


def test_an_address_with_another_executor_is_refused(refused: Callable[..., str], elsewhere: None) -> None:
    asked = ("study", "none.yaml", "--address", "head:6379")
    assert refused(*asked, "--executor", "slurm").endswith(
        "--address head:6379: slurm has none; expected --executor ray"
    )
    assert "this machine has none" in refused(*asked)


def test_where_no_cluster_answers_it_is_said_at_once_how_to_start_one(places: Places) -> None:
    pytest.importorskip("ray")
    asked = f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(LitsexpError, match=rf"--address {asked}: no cluster answers \(Conn.*start one with `ray start"):
        executor_of("ray", 1, 1, [f"address={asked}"], places)
    assert not places.root.exists()


def test_without_ray_it_is_said_how_to_get_it(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "find_spec", lambda _: None)
    with pytest.raises(LitsexpError, match=r'ray is not installed; install it with pip install "litsexp\[ray\]"'):
        executor_of("ray", 1, 1, (), places)


def test_what_no_node_has_is_refused_with_what_was_found(fake: None, places: Places) -> None:
    shared = replace(places, tracking_uri="http://head:5000")
    assert executor_of("ray", 1, 16, ["num_gpus=2", "accelerator_type=A100", "memory=64G"], shared)
    found = (
        r"found 10\.0\.0\.1: CPU 8, memory 32 GiB; 10\.0\.0\.2: CPU 16, GPU 2, accelerator_type:A100 1, memory 64 GiB"
    )
    for threads, option, asked in ((1, "num_gpus=4", "CPU 1, GPU 4"), (1, "memory=65G", "CPU 1, memory 65 GiB")):
        with pytest.raises(LitsexpError, match=f"no node of auto has {asked} for a run; {found}; ask for less"):
            executor_of("ray", 1, threads, [option], shared)
    with pytest.raises(LitsexpError, match="has CPU 17 for a run"):
        executor_of("ray", 1, 17, [], shared)


def test_gpus_that_nobody_asks_for_are_named(fake: None, places: Places, caplog: pytest.LogCaptureFixture) -> None:
    shared = replace(places, tracking_uri="http://head:5000")
    executor_of("ray", 1, 1, ["num_gpus=1"], shared)
    assert caplog.messages == []
    executor_of("ray", 1, 1, [], shared)
    assert len(caplog.messages) == 1 and "--executor-option num_gpus=1" in caplog.messages[0]


@pytest.mark.parametrize(
    ("uri", "refusal"),
    [
        ("http://head:5000", ""),
        ("sqlite:////x/mlflow.db", "found SQLite, for one host alone, and the node a02"),
        ("http://127.0.0.1:5000", "found 127.0.0.1, which is another host on every node, and the node a02"),
        ("postgresql://me:secret@db/mlflow", "found postgresql, with --executor ray"),
    ],
)
def test_a_tracking_uri_that_nodes_cannot_share_is_refused(fake: None, places: Places, uri: str, refusal: str) -> None:
    asked = replace(places, tracking_uri=uri)
    if not refusal:
        assert executor_of("ray", 1, 1, [], asked)
        return
    with pytest.raises(LitsexpError, match=f"--tracking-uri: {refusal}.*start `mlflow server`"):
        executor_of("ray", 1, 1, [], asked)


def test_only_nodes_that_fit_count(fake: None, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "a02")
    assert executor_of("ray", 1, 1, ["num_gpus=1"], places)
    with pytest.raises(LitsexpError, match="and the node head"):
        executor_of("ray", 1, 1, [], places)


def test_rows_of_a_script_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LitsexpError, match="registered in a notebook or in the script itself"):
        Crew(1, FakeLine("auto", {})).send(job_of(tmp_path, modules=("__main__",)))


def test_what_comes_over_the_line_is_answered_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hush")
    monkeypatch.setenv("SOMETHING_ELSE", "x")
    line = FakeLine("auto", {})
    crew = Crew(2, line)
    for number in range(4):
        crew.send(job_of(tmp_path, run_id=f"f{number}"))
        kind, run_id, asked, environment = line.theirs.recv()
        assert (kind, run_id) == ("run", f"f{number}")
        assert "hush" not in asked
        assert environment["MLFLOW_TRACKING_PASSWORD"] == "hush" and "SOMETHING_ELSE" not in environment
    for words in (
        ("epoch", "f0", 3, '{"valid/score": NaN}'),
        ("short",),
        ("short",),
        ("ended", "f0", outcome_to_json(Outcome("pruned", 0.5))),
        ("died", "f1", "NodeDiedError: Task failed because the node it was running on is dead."),
        ("broke", "f2", "MemoryError: much"),
        ("ended", "f3", "{"),
    ):
        line.theirs.send(words)
    heard: list[Any] = []

    def on_epoch(job: Job, epoch: int, metrics: dict[str, float]) -> bool:
        heard.append((job.run_id, epoch, list(metrics)))
        return False

    found = [pair for _ in range(7) for pair in crew.hear(on_epoch)]
    assert heard == [("f0", 3, ["valid/score"])]
    assert line.theirs.recv() == ("answer", "f0", 3, False)
    assert [(job.run_id, outcome.status, outcome.died) for job, outcome in found] == [
        ("f0", "pruned", False),
        ("f1", "failed", True),
        ("f2", "failed", False),
        ("f3", "failed", False),
    ]
    assert found[1][1].reason == (
        "Ray task ended as NodeDiedError: Task failed because the node it was running on is dead.; "
        "--retries 1 runs it again on another node"
    )
    assert found[2][1].reason == "Ray task ended as MemoryError: much"
    assert "outcome that cannot be read" in found[3][1].reason
    assert len([message for message in caplog.messages if "they wait for one" in message]) == 1
    assert crew.sent == {}


def test_a_lost_line_ends_what_was_sent_and_the_next_job_opens_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = FakeLine("auto", {"CPU": 1})
    crew = Crew(1, line)
    crew.send(job_of(tmp_path))
    line.theirs.close()
    ((job, outcome),) = crew.hear(lambda *_: True)
    assert job.run_id == "f0" and outcome.died
    assert outcome.reason == "the connection to the Ray cluster was lost (GCS is gone); is its head up?"
    monkeypatch.setattr(ray_cluster, "Line", FakeLine)
    crew.send(job_of(tmp_path))
    assert crew.line is not line and crew.line.needs == {"CPU": 1}


def test_what_still_runs_is_cancelled_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_cluster, "END_S", 0.2)
    for last, warnings in ((("gone",), 0), (("short",), 1)):
        line = FakeLine("auto", {})
        crew = Crew(1, line)
        crew.send(job_of(tmp_path))
        line.theirs.send(("ended", "f0", "{}"))
        line.theirs.send(last)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            crew.end()
        assert len(caplog.messages) == warnings
        assert [line.theirs.recv()[0] for _ in range(2)] == ["run", "cancel"]
        assert line.pipe.closed


def test_why_a_cluster_does_not_let_us_in_is_one_line() -> None:
    theirs, ours = (
        f"    Ray: {ray}\n    Python: {python}\n" for ray, python in (("2.50.0", "3.12.1"), ("2.60.0", "3.11.4"))
    )
    versions = f"Version mismatch: The cluster was started with:\n{theirs}This process on x was started with:\n{ours}"
    assert ray_clerk.refusal(RuntimeError(versions)) == (
        "found Ray 2.50.0 and Python 3.12.1 on the cluster; expected Ray 2.60.0 and Python 3.11.4, as here; "
        "install the same in both"
    )
    try:
        try:
            raise RuntimeError("ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken: Authentication")
        except RuntimeError as error:
            raise ConnectionError("Failed to connect to Ray cluster at x") from error
    except ConnectionError as error:
        assert ray_clerk.refusal(error).startswith("the cluster asks for a token, and none is given here")
    assert ray_clerk.refusal(ConnectionError("Could not\nfind any")) == "ConnectionError: Could not find any"


@needs_ray
def test_how_a_task_ended_is_said_in_rays_own_first_words() -> None:
    from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

    kind, words = ray_clerk.ending(WorkerCrashedError())
    assert kind == "died" and words.startswith("WorkerCrashedError: The worker died unexpectedly")
    kind, words = ray_clerk.ending(OutOfMemoryError("Task was killed.\nThe node has 0.9GB.\nA third. And more."))
    assert (kind, words) == ("died", "OutOfMemoryError: Task was killed. The node has 0.9GB.")
    kind, words = ray_clerk.ending(RayTaskError("f", "traceback", ValueError("odd")).as_instanceof_cause())
    assert (kind, words) == ("broke", "ValueError: odd")


@needs_ray
def test_a_node_without_litsexp_says_so(tmp_path: Path) -> None:
    """The task is pickled by value: all that it needs there is Python."""
    from ray import cloudpickle

    from litsexp.study.executors.ray_job import mailbox, task

    (tmp_path / "task").write_bytes(cloudpickle.dumps((task(), mailbox())))
    assert pickle.loads((tmp_path / "task").read_bytes())[0].__name__ == "run"
    program = (
        "import sys, pathlib; sys.modules['litsexp'] = None; from ray import cloudpickle\n"
        f"run, box = cloudpickle.loads(pathlib.Path({str(tmp_path / 'task')!r}).read_bytes())\n"
        "print(run(None, 'f0', '{\"path\": []}', {}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    outcome = outcome_from_json(done.stdout.splitlines()[-1])
    assert outcome.status == "failed" and not outcome.died
    assert "cannot import litsexp" in outcome.reason and "install the driver's version there" in outcome.reason
