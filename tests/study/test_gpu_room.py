"""``--workers auto``: the arithmetic, which arms are rehearsed, and the measuring, with numbers for a GPU."""

import multiprocessing
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.design import Arm
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.spec.study import StudyConfig
from litsexp.study import gpu_room
from litsexp.study.executors import executor_of, workers_of
from litsexp.study.gpu_memory import Reader, free_on_gpu, watched
from litsexp.study.gpu_room import GIB, Room, every_arm, few_cases, largest_arms, room_on_gpu, runs_that_fit
from litsexp.training import architectures

from .conftest import Bench, small_encoder

RUN = RunConfig(init="scratch", window="liver", augment="none", batch_size=4, epochs=2)


def readings(*gib: float) -> Reader:
    """Free memory that falls from reading to reading and stays at the last one; picklable, so that a process can."""
    return partial(next, iter([round(one * GIB) for one in gib]), round(gib[-1] * GIB))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that train in no time, in this process."""
    monkeypatch.setattr(architectures, "random_encoder", small_encoder)
    monkeypatch.setattr(gpu_room, "check_needs", lambda *_: None)


@pytest.mark.parametrize(
    ("taken", "free", "cpus", "left", "runs"),
    [
        (3, 78, 16, 100, 16),  # 23 would fit
        (3, 78, 64, 100, 23),
        (3, 78, 64, 5, 5),
        (10, 100, 16, 100, 9),  # a tenth stays free, to the byte
        (90, 100, 16, 100, 1),
        (100, 100, 16, 100, 1),  # it ran, so one run fits
        (3, 0, 16, 100, 1),
        (0, 78, 16, 100, 1),
        (-1, 78, 16, 100, 1),
        (3, 78, 16, 0, 1),
    ],
)
def test_runs_that_fit(taken: int, free: int, cpus: int, left: int, runs: int) -> None:
    assert runs_that_fit(taken, free, cpus, left) == runs


def test_the_number_is_told_with_what_limits_it() -> None:
    taken, free = round(3.1 * GIB), round(78.2 * GIB)
    start = "auto: a run takes 3.1 of 78.2 GiB free on the GPU; "
    assert Room(taken, free, 16, 100).words == f"{start}16 runs at a time (16 cores)"
    assert Room(taken, free, 64, 100).words == f"{start}22 runs at a time (memory)"
    assert Room(taken, free, 64, 3).words == f"{start}3 runs at a time (all that are left)"
    assert Room(taken, free, 1, 3).words == f"{start}1 run at a time (1 core)"


def test_of_arms_that_take_the_same_the_largest_batch_is_rehearsed() -> None:
    changes: list[dict[str, Any]] = [
        *({"batch_size": 8}, {}, {"window": "wide"}, {"lr": 0.1, "epochs": 9, "loss": "focal"}, {"init": "imagenet"}),
        *({"encoder": "resnet18"}, {"architecture": "unet"}, {"encoder": "resnet18", "batch_size": 16}),
        *({"init": "ssl:masked"}, {"precision": "fp32"}, {"ema": 0.9}, {"ema": 0.99}),
    ]
    arms = [Arm(str(number), RUN.changed(change)) for number, change in enumerate(changes)]
    assert [arm.name for arm in largest_arms(arms)] == ["0", "7", "6", "8", "9", "10"]


def test_of_a_search_all_that_it_may_draw_counts() -> None:
    asked: dict[str, Any] = {"question": "?", "design": "search", "search": {"trials": 3}}
    asked["factors"] = {"encoder": ["resnet18", "resnet34"], "batch_size": [4, 8], "window": ["wide"]}
    arms = every_arm(StudyConfig.model_validate(asked), [])
    assert [(arm.run.encoder, arm.run.batch_size) for arm in largest_arms(arms)] == [("resnet18", 8), ("resnet34", 8)]
    assert len(every_arm(StudyConfig.model_validate({**asked, "factors": {}}), [])) == 1


def test_few_cases_fill_two_batches(phantom_store: Store, phantom_split: Split) -> None:
    found = few_cases(phantom_store, phantom_split, RUN.changed({"batch_size": 2}))
    assert (found.train, found.valid) == (phantom_split.train[:1], phantom_split.valid)
    assert len(found.test) == 1 and {*found.test} < {*phantom_split.test}
    assert len(phantom_store.rows_of(phantom_split.train)) > 12
    assert few_cases(phantom_store, phantom_split, RUN.changed({"batch_size": 500})).train == phantom_split.train


def test_a_watch_keeps_the_least_it_has_read_and_ends() -> None:
    with watched(partial(next, iter([90, 70, 40, 60]), 80)) as watch:
        assert watch.free == 90
        for _ in range(3):  # each asks for a reading at least
            least = watch.least()
        assert least == 40
    assert multiprocessing.active_children() == []


def test_without_a_gpu_the_watch_says_why_it_cannot_read() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    why = r"--workers auto: the GPU's free memory is not known: .*give a number"
    with pytest.raises(LitsexpError, match=why), watched(free_on_gpu):
        raise AssertionError("it read something")
    assert multiprocessing.active_children() == []


def test_a_study_is_measured_in_processes_of_its_own_and_left_as_it_was(
    bench: Bench, study: Callable[..., StudyConfig], temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_room, "all_usable_cpus", lambda: 3)
    run = {"init": "scratch", "encoder": "resnet18", "augment": "none", "epochs": 9, "frozen_epochs": 2}
    with bench.open(study(run={**run, "batch_size": 4, "lr": "find"}, claims=[])) as session:
        seen: list[tuple[int, int]] = []
        found = room_on_gpu(session, 1, lambda *at: seen.append(at), readings(80, 79, 60, 70))
        assert found == Room(20 * GIB, 80 * GIB, cpus=3, left=4)
        assert found.workers == 3
        assert seen == [(1, 1)]  # both arms take the same
    assert bench.statuses() == []
    assert [*temporary.iterdir()] == []
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("tiny")
def test_each_rehearsed_arm_is_really_trained_and_scored_and_an_external_cohort_counts(
    bench: Bench, study: Callable[..., StudyConfig], temporary: Path, external_store: Store
) -> None:
    bench.external, factors = external_store, {"batch_size": [20], "encoder": ["resnet34"], "init": ["ssl:masked"]}
    epochs: list[Any] = []

    def alone(workers: int, threads: int) -> Any:
        assert (workers, threads) == (1, 2)
        inline = executor_of("inline", 1, threads)
        return lambda jobs, on_epoch: inline(jobs, lambda *told: epochs.append(told) or on_epoch(*told))

    asked = study(factors=factors, claims=[], external={"patients": 3, "seed": 9})
    with bench.open(asked) as session:
        found = room_on_gpu(session, 2, lambda *_: None, readings(80, 60), alone)
    assert found.taken_bytes == 20 * GIB + 4 * external_store.labels.nbytes
    assert [job.cell.arm.name for job, *_ in epochs] == ["batch_size=20", "encoder=resnet34", "init=ssl:masked"]
    assert [len(job.scorings) for job, *_ in epochs] == [1, 1, 1]


@pytest.mark.usefixtures("tiny")
def test_an_arm_that_fails_is_told_in_one_line(
    bench: Bench, study: Callable[..., StudyConfig], temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …")

    monkeypatch.setattr("litsexp.study.cells.train", full)
    with bench.open(study()) as session, pytest.raises(LitsexpError) as told:
        room_on_gpu(session, 1, lambda *_: None, readings(2), lambda *_: executor_of("inline", 1, 1))
    start = "--workers auto: baseline, alone on the GPU: out of memory (CUDA out of memory. Tried to allocate 2.00 GiB."
    assert str(told.value).startswith(start) and "\n" not in str(told.value)
    assert "smaller run.batch_size" in str(told.value)
    assert [*temporary.iterdir()] == [] and multiprocessing.active_children() == []


def test_ctrl_c_ends_both_processes(
    phantom_store: Store, phantom_split: Split, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heard when the worker is in the middle of its run."""
    names: list[str] = []

    def interrupt(*_: Any) -> None:
        names.extend(sorted(process.name for process in multiprocessing.active_children()))
        raise KeyboardInterrupt

    monkeypatch.setattr("litsexp.study.executors.processes.Crew.hear", interrupt)
    asked = ([Arm("one", RUN)], phantom_store, phantom_split, executor_of("processes", 1, 1), print, readings(9))
    with pytest.raises(KeyboardInterrupt):
        gpu_room.taken_and_free(*asked)
    assert names == ["litsexp-gpu-memory", "litsexp-worker"]
    assert multiprocessing.active_children() == []
    assert [*temporary.iterdir()] == []


def test_a_study_that_is_done_measures_nothing(bench: Bench, study: Callable[..., StudyConfig]) -> None:
    bench.run(study())
    with bench.open(study()) as session:
        assert room_on_gpu(session, 1, print, partial(pytest.fail, "read")).workers == 1


def test_what_is_asked_is_a_number_or_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers_of(None, None) == (None, False)
    assert workers_of("slurm", "7") == workers_of("slurm", 7) == (7, False)
    for wrong in ("many", "0", 0, -1, "1.5", "", "²"):
        with pytest.raises(LitsexpError) as told:
            workers_of(None, wrong)
        assert str(told.value) == f"--workers: found {wrong!r}; expected a number from 1 on, or auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert workers_of(None, "auto") == workers_of("processes", "auto") == workers_of("inline", "auto") == (None, False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert workers_of(None, "auto") == workers_of("processes", "auto") == (None, True)
    assert workers_of("inline", "auto") == (None, False)
    for engine in ("slurm", "ray"):
        with pytest.raises(LitsexpError, match=rf"--workers auto: {engine} places runs itself; .*num_gpus=0\.5"):
            workers_of(engine, "auto")
