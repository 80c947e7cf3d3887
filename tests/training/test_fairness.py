"""Runs compare: a seed repeats, arms differ in nothing else, and held-out slices are seen once, at the end."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from litsexp.data.rows import learning_rows, scored_rows
from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.run import RunConfig
from litsexp.training import loop
from litsexp.training.course import Course
from litsexp.training.loaders import Slices
from litsexp.training.loop import Trained, build_learner, train

from .conftest import BASE, Ears, Train, arm, scripted_scores, tiny_encoder

CPU = torch.device("cpu")


def comparable(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Without the one entry that is time, and NaN as a word, so that == compares bits."""
    return [
        {name: "nan" if math.isnan(value) else value for name, value in epoch.items() if name != "images_per_s"}
        for epoch in history
    ]


def same_weights(a: Any, b: Any) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def assert_same(a: Trained, b: Trained) -> None:
    assert comparable(a.history) == comparable(b.history)
    assert same_weights(a.weights, b.weights)
    assert a.best_epoch == b.best_epoch
    assert a.facts["initial_weights_sha256"] == b.facts["initial_weights_sha256"]


def spy_on_rows(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The rows of every batch that is read, in order."""
    seen: list[list[int]] = []
    read = Slices.read

    def spy(slices: Slices, rows: Any) -> Any:
        seen.append(rows.tolist())
        return read(slices, rows)

    monkeypatch.setattr(Slices, "read", spy)
    return seen


def spy_on_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    """The store's fingerprint and the rows of every batch that is read, in order."""
    seen: list[tuple[str, list[int]]] = []
    read = Slices.read

    def spy(slices: Slices, rows: Any) -> Any:
        seen.append((slices.store.fingerprint, rows.tolist()))
        return read(slices, rows)

    monkeypatch.setattr(Slices, "read", spy)
    return seen


def spy_on_rates(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, ...]]:
    """Rate, momentum and weight decay of every optimiser step, of all parameter groups."""
    seen: list[tuple[float, ...]] = []
    step = loop.Learner._step

    def spy(learner: Any) -> None:
        seen.append(tuple(group[name] for group in learner.opt.hypers for name in ("lr", "mom", "wd")))
        step(learner)

    monkeypatch.setattr(loop.Learner, "_step", spy)
    return seen


def spy_on_weights(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The network's weights at the end of every epoch."""
    seen: list[dict[str, Tensor]] = []
    add = Course.add

    def spy(course: Course, losses: Any, prediction: Any, model: Any) -> None:
        seen.append({name: value.clone() for name, value in model.net.state_dict().items()})
        add(course, losses, prediction, model)

    monkeypatch.setattr(Course, "add", spy)
    return seen


def test_a_seed_repeats_bit_for_bit_and_another_differs(run_arm: Train) -> None:
    first = run_arm()
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 (the global state is what is meant)
    assert_same(first, run_arm())
    other = run_arm(seed=1)
    assert not same_weights(first.weights, other.weights)
    assert comparable(first.history) != comparable(other.history)
    assert first.facts["initial_weights_sha256"] != other.facts["initial_weights_sha256"]


def test_the_shipped_encoder_repeats_too_and_nothing_warns(phantom_store: Store, phantom_split: Split) -> None:
    """Pretrained, in bf16 and channels-last; torch would warn of a kernel that does not repeat."""
    run = RunConfig(epochs=1, steps_per_epoch=1, batch_size=2, precision="bf16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = (train(run, phantom_store, phantom_split, 0, Ears()) for _ in range(2))
    assert_same(first, second)
    assert first.facts["precision_used"] == "bfloat16"


def test_a_found_rate_and_the_same_rate_given_train_the_same_model(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []
    monkeypatch.setattr(loop, "LR_FIND_STEPS", 40)
    monkeypatch.setattr(loop, "build_learner", lambda *args: [seeds.append(args[3]), build_learner(*args)][1])
    found = run_arm(arm(lr="find"), seed=3)
    assert seeds == [3, 3]  # searched on the model that is trained
    rate = float(found.facts["lr_max"])  # as it is logged: no digit may be lost
    assert 1e-7 < rate < 10 and rate != BASE.lr
    assert_same(found, run_arm(arm(lr=rate), seed=3))
    assert not same_weights(found.weights, run_arm(arm(lr=rate * 2), seed=3).weights)


def test_arms_take_the_same_steps_on_the_same_rows_at_the_same_rates(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    save_file(tiny_encoder().state_dict(), tmp_path / "init.safetensors")
    rows, rates = spy_on_rows(monkeypatch), spy_on_rates(monkeypatch)
    changes: list[dict[str, Any]] = [
        {},
        {"init": f"file:{tmp_path / 'init.safetensors'}"},
        {"window": "wide"},
        {"dice_weight": 0.0},
        {"augment": "none"},
        {"channels_last": False},
    ]
    results, courses = [], []
    for change in changes:
        results.append(run_arm(arm(**change)))
        courses.append((list(rows), list(rates)))
        rows.clear()
        rates.clear()
    assert all(course == courses[0] for course in courses[1:])
    assert len(courses[0][1]) == 4 and len(set(courses[0][1])) == 4  # steps; the schedule does move
    assert all(a[:3] == a[3:] for a in courses[0][1])  # the encoder learns at the decoder's rate
    assert max(a[0] for a in courses[0][1]) <= BASE.lr and {a[2] for a in courses[0][1]} == {BASE.weight_decay}
    assert [result.history[-1]["lr"] for result in results] == [results[0].history[-1]["lr"]] * len(results)
    for change, result in zip(changes[1:-1], results[1:-1], strict=True):
        assert not same_weights(result.weights, results[0].weights), change  # each arm does train another model


def test_freezing_takes_the_same_batches(run_arm: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = spy_on_rows(monkeypatch)
    run_arm()
    whole = list(rows)
    rows.clear()
    run_arm(arm(frozen_epochs=1))
    assert rows == whole


def test_fewer_training_patients_take_as_many_steps_at_the_same_rates(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch, phantom_store: Store, phantom_split: Split
) -> None:
    rates = spy_on_rates(monkeypatch)
    courses = []
    for fraction in (1.0, 0.34):
        result = run_arm(arm(train_fraction=fraction, steps_per_epoch=None))
        courses.append(list(rates))
        rates.clear()
    whole = len(phantom_store.rows_of(phantom_split.train))
    assert courses[0] == courses[1] and len(courses[0]) == 2 * (whole // BASE.batch_size)
    assert 0 < int(result.facts["training_slices"]) < whole / 2


def test_one_training_patient_of_many_is_one_with_tumor(tiny: None, phantom_store: Store, phantom_split: Split) -> None:
    assert not all(phantom_store.has_tumor[case] for case in phantom_split.train)
    chosen = set()
    for seed in range(8):
        learner = build_learner(arm(train_fraction=0.34), Slices(phantom_store, CPU), phantom_split, seed)
        (case,) = phantom_store.index["case"].iloc[learner.dls.train.rows].unique()
        assert phantom_store.has_tumor[case]
        chosen.add(case)
    assert len(chosen) > 1


def test_training_reads_no_test_slice(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch, phantom_store: Store, phantom_split: Split
) -> None:
    rows = spy_on_rows(monkeypatch)
    run_arm()
    read = [row for batch in rows for row in batch]
    assert not set(read) & set(phantom_store.rows_of(phantom_split.test))
    training = set(phantom_store.rows_of(phantom_split.train))
    valid = phantom_store.rows_of(phantom_split.valid).tolist()
    assert [row for row in read if row not in training] == valid * 2


def test_patience_stops_and_the_best_checkpoint_is_kept(run_arm: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_scores(monkeypatch, [0.1, 0.3, 0.2, 0.3, 0.9])
    weights = spy_on_weights(monkeypatch)
    result = run_arm(arm(epochs=8, patience=2))
    assert len(result.history) == 4 and result.best_epoch == 1  # an equal score is not a better one
    assert same_weights(result.weights, weights[1]) and not same_weights(result.weights, weights[3])


@pytest.mark.parametrize("frozen_epochs", [0, 2])
def test_a_listener_that_says_no_prunes_the_run(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch, phantom_store: Store, phantom_split: Split, frozen_epochs: int
) -> None:
    rows = spy_on_rows(monkeypatch)
    ears = Ears(stop_after=2)
    result = run_arm(arm(epochs=5, frozen_epochs=frozen_epochs), ears=ears)
    assert result.pruned and len(result.history) == len(ears.epochs) == 2
    assert not set(phantom_store.rows_of(phantom_split.test)) & {row for batch in rows for row in batch}


def test_a_leaking_run_differs_in_its_slices_alone(
    tiny: None, phantom_store: Store, phantom_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, ears = spy_on_rows(monkeypatch), Ears()
    honest, leaking = (arm(steps_per_epoch=None, split_unit=unit) for unit in ("patient", "slice"))
    first = train(honest, phantom_store, phantom_split, 0, Ears())
    del seen[:]
    second = train(leaking, phantom_store, phantom_split, 0, ears)
    same = ("training_slices", "steps", "initial_weights_sha256")
    assert [first.facts[name] for name in same] == [second.facts[name] for name in same]
    train_rows, valid_rows = learning_rows(phantom_store, phantom_split, leaking, seed=0)
    read = {row for rows in seen for row in rows}
    assert read == {*train_rows.tolist(), *valid_rows.tolist()}
    assert not read & {*scored_rows(phantom_store, phantom_split, held_out=True).tolist()}
    assert ears.epochs[0].rows.tolist() == valid_rows.tolist()
