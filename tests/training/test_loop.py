"""One training run: it repeats, it is fair, keeps the best checkpoint, and sees the test slices once, at the end."""

import math
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.evaluation.metrics import confusion_by_case, mean_scores, selection_score
from litsexp.settings import LitsexpError, RunConfig
from litsexp.training import loop
from litsexp.training.batches import EvalLoader, Slices
from litsexp.training.loop import Course, Epoch, RunResult, build_learner, fit, predict, train
from litsexp.training.losses import CrossEntropyDice
from litsexp.training.models import build_unet

from .conftest import tiny_encoder

CPU = torch.device("cpu")
BASE = RunConfig(init="scratch", epochs=2, steps_per_epoch=2, batch_size=4, precision="fp32", lr=1e-2)
Train = Callable[..., RunResult]


class Ears:
    """Keeps every epoch; says stop after ``stop_after`` of them."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.epochs: list[Epoch] = []
        self.stop_after = stop_after

    def epoch(self, epoch: Epoch) -> bool:
        self.epochs.append(epoch)
        return len(self.epochs) < self.stop_after


def arm(**changes: Any) -> RunConfig:
    return RunConfig.model_validate({**BASE.model_dump(), **changes})


@pytest.fixture
def run_arm(tiny: None, phantom_store: Store, phantom_split: Split) -> Train:
    """``train`` on the phantom with the tiny encoder."""

    def run_arm(
        run: RunConfig = BASE, seed: int = 0, ears: Ears | None = None, external: Store | None = None
    ) -> RunResult:
        return train(run, phantom_store, phantom_split, seed, ears or Ears(), external)

    return run_arm


def comparable(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Without the one entry that is time, and NaN as a word, so that == compares bits."""
    return [
        {name: "nan" if math.isnan(value) else value for name, value in epoch.items() if name != "images_per_s"}
        for epoch in history
    ]


def same_weights(a: Any, b: Any) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def assert_same(a: RunResult, b: RunResult) -> None:
    assert comparable(a.history) == comparable(b.history)
    assert same_weights(a.weights, b.weights)
    assert a.best_epoch == b.best_epoch
    assert a.facts["initial_weights_sha256"] == b.facts["initial_weights_sha256"]
    np.testing.assert_array_equal(a.test_prediction, b.test_prediction)


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
    run = RunConfig(epochs=1, steps_per_epoch=2, batch_size=4, precision="bf16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = (train(run, phantom_store, phantom_split, 0, Ears()) for _ in range(2))
    assert_same(first, second)
    assert first.facts["precision_used"] == "bfloat16"


def test_what_a_run_gives_back(run_arm: Train, phantom_store: Store, phantom_split: Split) -> None:
    ears = Ears()
    result = run_arm(arm(frozen_epochs=1, epochs=3), ears=ears)
    assert [epoch.metrics for epoch in ears.epochs] == result.history and len(result.history) == 3
    assert [epoch.number for epoch in ears.epochs] == [0, 1, 2]  # over both phases
    np.testing.assert_array_equal(result.test_rows, phantom_store.rows_of(phantom_split.test))
    assert result.test_prediction.shape == (len(result.test_rows), 64, 64)
    assert result.test_prediction.dtype == np.uint8 and result.test_prediction.max() <= 2
    assert not result.pruned and result.fit_s > 0 and result.evaluation_s > 0
    assert result.facts["steps"] == "6" and result.facts["lr_max"] == "0.01" and result.facts["device"] == "cpu"
    assert result.facts["training_slices"] == str(len(phantom_store.rows_of(phantom_split.train)))
    assert all(isinstance(fact, str) for fact in result.facts.values())
    assert all(value.is_contiguous() for value in result.weights.values())  # as safetensors wants them
    build_unet(BASE, 64, 1).load_state_dict(result.weights)


def test_an_epochs_scores_are_those_of_its_predictions(
    run_arm: Train, phantom_store: Store, phantom_split: Split
) -> None:
    ears = Ears()
    run_arm(ears=ears)
    for epoch in ears.epochs:
        np.testing.assert_array_equal(epoch.rows, phantom_store.rows_of(phantom_split.valid))
        truth, case = phantom_store.labels[epoch.rows], phantom_store.index["case"].to_numpy()[epoch.rows]
        mean = mean_scores(confusion_by_case(truth, epoch.prediction, case))
        for name in loop.LOGGED:
            assert epoch.metrics[f"valid/{name}"] == mean[name]
        assert epoch.metrics["valid/score"] == selection_score(mean)
        assert epoch.metrics["train/loss"] > 0 and epoch.metrics["valid/loss"] > 0


def test_losses_are_means_over_images(run_arm: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation's last batch is smaller; a batch's loss is here its number of slices."""
    monkeypatch.setattr(CrossEntropyDice, "__call__", lambda _self, logits, labels: 0 * logits.sum() + len(labels))
    ears = Ears()
    result = run_arm(ears=ears)
    batches, rest = divmod(len(ears.epochs[0].rows), 4)
    assert batches and rest
    for epoch in result.history:
        assert epoch["train/loss"] == 4
        assert epoch["valid/loss"] == pytest.approx((batches * 4**2 + rest**2) / (batches * 4 + rest))


def test_it_learns(run_arm: Train) -> None:
    """The tiny network finds the liver within some seconds; the steps that it takes do go downhill."""
    result = run_arm(arm(epochs=4, steps_per_epoch=10, batch_size=8, augment="none"))
    assert result.history[-1]["train/loss"] < 0.6 * result.history[0]["train/loss"]
    assert result.history[result.best_epoch]["valid/dice_liver"] > 0.5


def global_states() -> list[object]:
    numpys = np.random.get_state()[1].tolist()  # noqa: NPY002
    return [torch.get_rng_state().tolist(), numpys, random.getstate()]


def test_the_callers_random_state_and_settings_are_untouched(run_arm: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    torch.use_deterministic_algorithms(False)
    states = global_states()
    monkeypatch.setattr(loop, "LR_FIND_STEPS", 20)
    run_arm(arm(lr="find"))
    with pytest.raises(FloatingPointError):
        run_arm(arm(lr=1e30))
    assert global_states() == states
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_callers_warn_only_survives(run_arm: Train) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        run_arm(arm(epochs=1))
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_found_rate_and_the_same_rate_given_train_the_same_model(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []
    monkeypatch.setattr(loop, "LR_FIND_STEPS", 40)
    monkeypatch.setattr(loop, "build_learner", lambda *args: [seeds.append(args[-1]), build_learner(*args)][1])
    found = run_arm(arm(lr="find"), seed=3)
    assert seeds == [3, 3]  # searched on the model that is trained
    rate = float(found.facts["lr_max"])  # as it is logged: no digit may be lost
    assert 1e-7 < rate < 10 and rate != BASE.lr
    assert_same(found, run_arm(arm(lr=rate), seed=3))
    assert not same_weights(found.weights, run_arm(arm(lr=rate * 2), seed=3).weights)


def test_a_rate_that_cannot_be_found_is_one_line(run_arm: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LR_FIND_STEPS", 10)
    monkeypatch.setattr(CrossEntropyDice, "__call__", lambda _self, logits, _labels: logits.sum() * math.nan)
    with pytest.raises(LitsexpError, match=r"run\.lr = find.*give a learning rate") as error:
        run_arm(arm(lr="find"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("epochs", "encoder_moves"), [(2, False), (3, True)])
def test_frozen_epochs_move_all_but_the_encoders_weights(
    tiny: None, phantom_store: Store, phantom_split: Split, epochs: int, encoder_moves: bool
) -> None:
    """BatchNorm's weights count as weights; its running statistics are not trained and follow the data."""
    run = arm(epochs=epochs, frozen_epochs=2)
    before = build_unet(run, 64, 0).state_dict()
    learner = build_learner(run, Slices(phantom_store, CPU), phantom_split, 0)
    fit(learner, run, 1e-2, Ears())
    net = learner.model.net
    weights = {name for name, _ in net.named_parameters()}
    for name, value in net.state_dict().items():
        moved = not torch.equal(value, before[name])
        if not name.startswith("layers.0."):
            assert moved or "num_batches" in name or name.endswith("bias"), name
        elif name in weights:
            assert moved == encoder_moves, name
        else:
            assert moved, name


def test_freezing_takes_the_same_batches(run_arm: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = spy_on_rows(monkeypatch)
    run_arm()
    whole = list(rows)
    rows.clear()
    run_arm(arm(frozen_epochs=1))
    assert rows == whole


def scripted_scores(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Whatever is predicted, epoch i scores ``scores[i]``."""
    left: Iterator[float] = iter(scores)
    monkeypatch.setattr(loop, "selection_score", lambda _mean: next(left))


def spy_on_weights(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The network's weights at the end of every epoch."""
    seen: list[dict[str, Tensor]] = []
    add = Course.add

    def spy(course: Course, losses: Any, prediction: Any, model: Any) -> None:
        seen.append({name: value.clone() for name, value in model.net.state_dict().items()})
        add(course, losses, prediction, model)

    monkeypatch.setattr(Course, "add", spy)
    return seen


def test_patience_stops_and_the_best_checkpoint_predicts_the_test(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_scores(monkeypatch, [0.1, 0.3, 0.2, 0.3, 0.9])
    weights = spy_on_weights(monkeypatch)
    predicting: list[dict[str, Tensor]] = []

    def spy(model: Any, loader: EvalLoader) -> Any:
        predicting.append({name: value.clone() for name, value in model.net.state_dict().items()})
        return predict(model, loader)

    monkeypatch.setattr(loop, "predict", spy)
    result = run_arm(arm(epochs=8, patience=2))
    assert len(result.history) == 4 and result.best_epoch == 1  # an equal score is not a better one
    assert same_weights(result.weights, weights[1]) and not same_weights(result.weights, weights[3])
    assert len(predicting) == 1 and same_weights(predicting[0], weights[1])


def test_predictions_are_the_likeliest_labels_in_the_loaders_order(
    tiny: None, phantom_store: Store, phantom_split: Split
) -> None:
    slices = Slices(phantom_store, CPU)
    model = build_learner(BASE, slices, phantom_split, 0).model
    rows = phantom_store.rows_of([3, 5])
    together = predict(model, EvalLoader(slices, rows, BASE))
    assert together.dtype == np.uint8 and set(np.unique(together)) <= {0, 1, 2}
    for row, labels in zip(rows, together, strict=True):
        ((image, _),) = EvalLoader(slices, np.array([row]), BASE)
        with torch.inference_mode():
            probability = model.eval()(image)[0].softmax(0)
        assert (probability.max(0).values - probability.gather(0, torch.from_numpy(labels)[None].long())).max() < 1e-5


@pytest.mark.parametrize(("patience", "epochs"), [(0, 6), (1, 2), (3, 4), (6, 6)])
def test_patience_counts_epochs_without_a_better_score(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch, patience: int, epochs: int
) -> None:
    scripted_scores(monkeypatch, [0.5] * 6)
    result = run_arm(arm(epochs=6, steps_per_epoch=1, patience=patience))
    assert len(result.history) == epochs and result.best_epoch == 0


def test_patience_counts_in_the_last_phase_only(run_arm: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three frozen epochs that get worse use up no patience of the phase that trains the encoder."""
    scripted_scores(monkeypatch, [0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0, 0.0])
    result = run_arm(arm(epochs=8, frozen_epochs=3, steps_per_epoch=1, patience=2))
    assert len(result.history) == 5 and result.best_epoch == 0


@pytest.mark.parametrize("frozen_epochs", [0, 2])
def test_a_listener_that_says_no_prunes_the_run(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch, phantom_store: Store, phantom_split: Split, frozen_epochs: int
) -> None:
    rows = spy_on_rows(monkeypatch)
    ears = Ears(stop_after=2)
    result = run_arm(arm(epochs=5, frozen_epochs=frozen_epochs), ears=ears)
    assert result.pruned and len(result.history) == len(ears.epochs) == 2
    assert result.test_rows.size == 0 and result.test_prediction.shape == (0, 64, 64)
    assert not set(phantom_store.rows_of(phantom_split.test)) & {row for batch in rows for row in batch}


def test_the_test_slices_are_read_once_and_last(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch, phantom_store: Store, phantom_split: Split
) -> None:
    rows = spy_on_rows(monkeypatch)
    run_arm()
    read = [row for batch in rows for row in batch]
    test = phantom_store.rows_of(phantom_split.test).tolist()
    assert read[-len(test) :] == test and not set(read[: -len(test)]) & set(test)
    training = set(phantom_store.rows_of(phantom_split.train))
    valid = phantom_store.rows_of(phantom_split.valid).tolist()
    assert [row for row in read[: -len(test)] if row not in training] == valid * 2


def test_an_external_cohort_is_predicted_by_the_best_checkpoint_and_changes_nothing(
    run_arm: Train, phantom_store: Store, external_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_scores(monkeypatch, [0.1, 0.3, 0.2] * 2)
    weights, read = spy_on_weights(monkeypatch), spy_on_reads(monkeypatch)
    plain, plain_read = run_arm(arm(epochs=3)), list(read)
    read.clear()
    result = run_arm(arm(epochs=3), external=external_store)
    assert_same(plain, result)
    assert read[: len(plain_read)] == plain_read  # the same slices of the same store, in the same order
    assert {store for store, _ in plain_read} == {phantom_store.fingerprint}
    after = read[len(plain_read) :]
    assert {store for store, _ in after} == {external_store.fingerprint}
    assert [row for _, rows in after for row in rows] == list(range(len(external_store.index)))  # each once, at the end

    net = build_unet(BASE, 64, 0)
    net.load_state_dict(weights[1])
    rows = np.arange(len(external_store.index))
    expected = predict(net, EvalLoader(Slices(external_store, CPU), rows, arm(epochs=3)))
    assert plain.external_prediction is None
    assert result.external_prediction is not None
    np.testing.assert_array_equal(result.external_prediction, expected)


def test_a_pruned_run_reads_no_external_slice(
    run_arm: Train, phantom_store: Store, external_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = spy_on_reads(monkeypatch)
    result = run_arm(ears=Ears(stop_after=1), external=external_store)
    assert result.pruned and result.external_prediction is None
    assert {store for store, _ in read} == {phantom_store.fingerprint}


def test_a_loss_that_explodes_is_named(run_arm: Train) -> None:
    with pytest.raises(FloatingPointError, match=r"^training loss is (nan|inf) in epoch 0$"):
        run_arm(arm(lr=1e30))
    with pytest.raises(FloatingPointError, match=r"^training loss is (nan|inf) in epoch 0$"):
        run_arm(arm(lr=1e30, frozen_epochs=1))  # the second phase does not begin


def test_a_network_that_breaks_in_the_last_step_does_not_pass(run_arm: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training losses were measured before that step; only validation's tells."""
    call = CrossEntropyDice.__call__

    def broken(self: CrossEntropyDice, logits: Tensor, labels: Tensor) -> Tensor:
        return call(self, logits, labels) * (1.0 if torch.is_grad_enabled() else math.nan)

    monkeypatch.setattr(CrossEntropyDice, "__call__", broken)
    ears = Ears()
    with pytest.raises(FloatingPointError, match=r"^validation loss is nan in epoch 0$"):
        run_arm(ears=ears)
    assert ears.epochs == []


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


def test_arms_take_the_same_steps_on_the_same_rows_at_the_same_rates(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    save_file(tiny_encoder().state_dict(), tmp_path / "init.safetensors")
    rows, rates = spy_on_rows(monkeypatch), spy_on_rates(monkeypatch)
    changes: list[dict[str, Any]] = [
        {},
        {"init": str(tmp_path / "init.safetensors")},
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
