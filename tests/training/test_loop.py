"""One training run: what it gives back, its losses and scores, frozen epochs, patience, and how it fails."""

import math
import random

import numpy as np
import pytest
import torch
from torch import Tensor

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.evaluation.cases import masks_of
from litsexp.evaluation.metrics import mean_scores, selection_score
from litsexp.spec.catalog import METRICS
from litsexp.spec.errors import LitsexpError
from litsexp.training import loop
from litsexp.training.architectures import build_network
from litsexp.training.loaders import Slices
from litsexp.training.loop import build_learner, fit
from litsexp.training.losses import CrossEntropyDice

from .conftest import BASE, Ears, Train, arm, scripted_scores

CPU = torch.device("cpu")


def test_what_a_run_gives_back(run_arm: Train, phantom_store: Store, phantom_split: Split) -> None:
    ears = Ears()
    result = run_arm(arm(frozen_epochs=1, epochs=3), ears=ears)
    assert [epoch.metrics for epoch in ears.epochs] == result.history and len(result.history) == 3
    assert [epoch.number for epoch in ears.epochs] == [0, 1, 2]  # over both phases
    assert not result.pruned and result.fit_s > 0
    assert result.facts["steps"] == "6" and result.facts["lr_max"] == "0.01" and result.facts["device"] == "cpu"
    assert result.facts["training_slices"] == str(len(phantom_store.rows_of(phantom_split.train)))
    assert all(isinstance(fact, str) for fact in result.facts.values())
    assert all(value.is_contiguous() for value in result.weights.values())  # as safetensors wants them
    build_network(BASE, 64, 1)[0].load_state_dict(result.weights)


def test_an_epochs_scores_are_those_of_its_predictions(
    run_arm: Train, phantom_store: Store, phantom_split: Split
) -> None:
    ears = Ears()
    run_arm(ears=ears)
    for epoch in ears.epochs:
        np.testing.assert_array_equal(epoch.rows, phantom_store.rows_of(phantom_split.valid))
        index, truth = phantom_store.index.iloc[epoch.rows], phantom_store.labels[epoch.rows]
        curves = [name for name, metric in METRICS.items() if metric.curve]
        mean = mean_scores(masks_of(index, truth, epoch.prediction), curves)
        for name in curves:
            assert epoch.metrics[f"valid/{name}"] == mean[name]
            defined = [case[name] for case in epoch.cases if case[name] == case[name]]
            assert np.mean(defined) == pytest.approx(mean[name]) if defined else np.isnan(mean[name])
        assert [case["case"] for case in epoch.cases] == list(phantom_split.valid)
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
    numpys = np.random.get_state()[1].tolist()  # noqa: NPY002 (the global state is what is meant)
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
    before = build_network(run, 64, 0)[0].state_dict()
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


@pytest.mark.parametrize(("patience", "epochs"), [(0, 6), (1, 2), (3, 4), (6, 6)])
def test_patience_counts_epochs_without_a_better_score(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch, patience: int, epochs: int
) -> None:
    scripted_scores(monkeypatch, [0.5] * 6)
    result = run_arm(arm(epochs=6, steps_per_epoch=1, patience=patience))
    assert len(result.history) == epochs and result.best_epoch == 0


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
