"""Rehearsals: what two runs of a kind show, what of it a study's cells make, and that nothing is left."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.design import Arm, Cell
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.study.executors import executor_of
from litsexp.study.forecast import forecast, seconds
from litsexp.study.rehearsal import Pace, Take, kind_of, pace, rehearse
from litsexp.training import architectures
from litsexp.training.ssl import course

from .conftest import small_encoder

RUN = RunConfig(init="scratch", augment="none", window="liver", batch_size=4, epochs=3, steps_per_epoch=2)
PACE = Pace(
    begin_s=10,
    step_s=2,
    frozen_step_s=1,
    epoch_s=3,
    valid_slice_s=0.5,
    end_s=20,
    scored_slice_s=0.25,
    artifact_bytes=7,
    weights_bytes=5,
    worker_start_s=5,
)


def take(steps: int, valid: int, begin: float, step: float, rest: float, after: float, epochs: int = 2) -> Take:
    """A run that took exactly so long."""
    made, now = (
        Take(steps, 4, valid, 2 * valid, start_s=100.0, artifact_bytes=valid, weights_bytes=valid // 2),
        100.0 + begin,
    )
    for _ in range(epochs):
        now += steps * step + rest
        made.epochs.append((now, 4 / step))
    made.end_s = now + after
    return made


def test_two_runs_of_unlike_length_tell_fixed_time_from_time_a_slice() -> None:
    short = take(1, 4, begin=9, step=3, rest=3 + 4 * 0.5, after=20 + 8 * 0.25)
    longer = [take(5, 20, begin=10, step=2, rest=3 + 20 * 0.5, after=20 + 40 * 0.25) for _ in range(2)]
    found = pace([short, short], longer)
    assert found == dataclasses.replace(PACE, frozen_step_s=2, artifact_bytes=20, weights_bytes=10, worker_start_s=0)


def test_a_line_never_has_a_negative_part() -> None:
    found = pace([take(1, 4, 1, 1, rest=5, after=1)], [take(1, 20, 1, 1, rest=4, after=10)])
    assert (found.epoch_s, found.valid_slice_s) == (4, 0)
    assert (found.end_s, found.scored_slice_s) == (0, 0.25)


@pytest.fixture
def cell() -> Callable[..., Cell]:
    return lambda **changes: Cell(Arm("one", RUN.changed(changes)), 0, 0)


def test_seconds_of_a_cell_by_hand(cell: Callable[..., Cell], phantom_store: Store, phantom_split: Split) -> None:
    train, valid, test = (len(phantom_store.rows_of(s)) for s in vars(phantom_split).values())
    rest = 10 + 3 * (3 + valid * 0.5) + 20 + (test + 9) * 0.25

    def of(**changes: Any) -> float:
        return seconds(cell(**changes), PACE, phantom_store, phantom_split, external_slices=9)

    assert of() == pytest.approx(rest + 3 * 2 * 2)
    assert of(frozen_epochs=1) == pytest.approx(rest + 2 * 2 * 2 + 2 * 1)
    assert of(lr="find") == pytest.approx(rest + 3 * 2 * 2 + 10 + 85 * 2)
    assert of(steps_per_epoch=None) == pytest.approx(rest + 3 * (train // 4) * 2)
    more = seconds(cell(train_fraction=0.5), PACE, phantom_store, phantom_split, 9, training=True)
    assert more == pytest.approx(of() + train / 2 * 0.25)


def test_workers_share_the_cells_and_stopping_early_is_said(
    cell: Callable[..., Cell], phantom_store: Store, phantom_split: Split
) -> None:
    cells = [cell(), cell(), cell(patience=1)]
    paces = {kind_of(one.arm.run): PACE for one in cells}
    one_s = seconds(cells[0], PACE, phantom_store, phantom_split, 0)

    def of(count: int, workers: int, keep: int = 3) -> Any:
        kept = [id(one) for one in cells[:keep]]
        return forecast(
            cells[:count], paces, phantom_store, [phantom_split], None, workers, lambda one: id(one) in kept
        )

    assert of(3, 1).wall_s == pytest.approx(5 + 3 * one_s)
    assert of(3, 2).wall_s == pytest.approx(5 + 2 * one_s)
    assert of(2, 8).wall_s == pytest.approx(5 + one_s)
    assert [of(3, 2, keep).disk_bytes for keep in (3, 1, 0)] == [21, 11, 6]
    assert [of(2, 2, keep).keep_weights for keep in (3, 1, 0)] == [2, 1, 0]
    assert of(3, 2).at_most
    assert not of(2, 2).at_most


def test_a_pretraining_is_paid_for_once_a_fold_and_seed_and_by_its_steps(
    phantom_store: Store, phantom_split: Split
) -> None:
    def cell_of(seed: int = 0, fold: int = 0, **changes: Any) -> Cell:
        return Cell(Arm(str(changes), RUN.changed({"init": "ssl:masked", "ssl_steps": 100, **changes})), fold, seed)

    cells = [cell_of(), cell_of(dice_weight=0), cell_of(init="scratch"), cell_of(ssl_steps=50), cell_of(seed=1)]
    cells.append(cell_of(fold=1))
    paces = {kind_of(one.arm.run): dataclasses.replace(PACE, ssl_step_s=6.0) for one in cells}
    found = forecast(cells, paces, phantom_store, [phantom_split] * 2, None, 1, lambda _: True)
    plain_s = seconds(cells[0], PACE, phantom_store, phantom_split, 0)
    assert [one - plain_s for one in found.run_s] == pytest.approx([600, 0, 0, 300, 600, 600])
    assert [(one.steps, one.seconds, one.supervised_steps) for one in found.pretrained] == [
        (100, 600, 300),
        (50, 300, 150),
        (100, 600, 300),
        (100, 600, 300),
    ]


def test_pretraining_is_taken_from_the_time_before_the_first_epoch() -> None:
    one = dataclasses.replace(take(5, 20, begin=10 + 5 * 6, step=2, rest=3, after=20), ssl_s=5 * 6.0)
    found = pace([dataclasses.replace(one, valid=4, scored=8)], [one])
    assert (found.begin_s, found.ssl_step_s) == pytest.approx((10, 6))


@pytest.mark.parametrize(
    "changes", [{"dice_weight": 0.0}, {"lr": 0.1}, {"epochs": 9}, {"init": "imagenet"}, {"ssl_lr": 1}]
)
def test_what_costs_no_time_is_no_kind_of_its_own(changes: dict[str, Any]) -> None:
    assert kind_of(RUN.changed(changes)) == kind_of(RUN)


@pytest.mark.parametrize(
    "changes",
    [
        *({"window": "wide"}, {"augment": "paper"}, {"batch_size": 8}, {"encoder": "resnet18"}),
        *({"frozen_epochs": 1}, {"encoder_frozen": True}, {"loss": "focal"}, {"init": "ssl:masked"}),
    ],
)
def test_what_costs_time_is(changes: dict[str, Any]) -> None:
    assert kind_of(RUN.changed(changes)) != kind_of(RUN)


def test_a_rehearsal_measures_every_part_and_leaves_nothing(
    phantom_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("litsexp.study.rehearsal.STEPS_S", 0.0)
    runs, seen = [RUN.changed({"frozen_epochs": 1}), RUN.changed({"frozen_epochs": 2, "lr": "find"})], []
    runs.append(RUN.changed({"frozen_epochs": 1, "schedule": "fine_tune"}))
    inline = executor_of("inline", 1, 1)
    found = rehearse(runs, phantom_store, 7, True, inline, 1, lambda *at: seen.append(at))
    (one,) = found.values()
    assert 0 < one.frozen_step_s < one.begin_s + 60
    assert min(one.step_s, one.begin_s, one.epoch_s + one.valid_slice_s, one.end_s + one.scored_slice_s) > 0
    assert 15e6 < one.weights_bytes < one.artifact_bytes < 60e6
    assert seen == [(1, 2), (2, 2)]
    assert list(tmp_path.iterdir()) == []


def test_a_rehearsal_measures_the_steps_of_pretraining(
    phantom_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("litsexp.study.rehearsal.STEPS_S", 0.0)
    monkeypatch.setattr(architectures, "random_encoder", small_encoder)
    batches: list[tuple[int, int]] = []
    step = course._step

    def seen(model: Any, optimizer: Any, lr: float, image: Any, *rest: Any) -> Any:
        batches.append((len(batches), len(image)))
        return step(model, optimizer, lr, image, *rest)

    monkeypatch.setattr(course, "_step", seen)
    run = RUN.changed({"init": "ssl:masked", "ssl_batch_size": 12})
    (found,) = rehearse([run], phantom_store, 7, False, executor_of("inline", 1, 1), 1, lambda *_: None).values()
    assert batches == [(0, 12), (1, 12), (2, 12)]  # one step, then two, each of a whole batch
    assert 0 < found.ssl_step_s < 60
    assert list(tmp_path.iterdir()) == []


def test_a_rehearsal_that_fails_is_told_and_leaves_nothing(
    phantom_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = [RUN.changed({"init": f"file:{tmp_path / 'gone.safetensors'}"})]
    with pytest.raises(LitsexpError, match=r"rehearsing .*gone\.safetensors"):
        rehearse(gone, phantom_store, 7, False, executor_of("inline", 1, 1), 1, lambda *_: None)
    assert list(tmp_path.iterdir()) == []
