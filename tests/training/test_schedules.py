"""Schedules: their phases and rates, when a run stops, a frozen encoder, and that arms differ in what they name."""

import math
from typing import Any

import pytest
import torch
from fastai.learner import Learner
from torch import nn

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.catalog import LOSSES, SCHEDULES
from litsexp.spec.design import arms, differing_fields
from litsexp.spec.study import StudyConfig
from litsexp.training import loop
from litsexp.training.architectures import build_network
from litsexp.training.init import weights_sha256
from litsexp.training.loaders import Slices
from litsexp.training.loop import build_learner, encoder_and_rest, find_lr, fit, initial_facts

from .conftest import BASE, Ears, Train, arm, scripted_scores

CPU = torch.device("cpu")
Rates = list[tuple[float, ...]]


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> Rates:
    """Of every optimiser step: the encoder's rate (0 where its weights are frozen), the rest's, the momentum."""
    seen: Rates = []
    step = Learner._step

    def spy(learner: Learner) -> None:
        encoder, rest = learner.opt.hypers
        trained = any(weight.grad is not None for weight in learner.opt.param_lists[0])
        seen.append((encoder["lr"] * trained, rest["lr"], rest["mom"]))
        step(learner)

    monkeypatch.setattr(Learner, "_step", spy)
    return seen


def cosine(start: float, end: float, part: float) -> float:
    return start + (end - start) * (1 - math.cos(math.pi * part)) / 2


# phases and rates


def test_one_cycle_rises_and_falls_in_each_phase(run_arm: Train, rates: Rates) -> None:
    run_arm(arm(epochs=2, frozen_epochs=1, steps_per_epoch=8, lr=0.01))
    rise = [cosine(0.01 / 25, 0.01, i / 2) for i in range(2)]
    phase = [*rise, *(cosine(0.01, 1e-7, i / 6) for i in range(6))]
    assert [rest for _, rest, _ in rates] == pytest.approx(phase * 2)
    assert [encoder for encoder, _, _ in rates] == pytest.approx([0.0] * 8 + phase)


def test_constant_is_one_cycle_until_the_warm_up_ends_and_then_stays(run_arm: Train, rates: Rates) -> None:
    settings: dict[str, Any] = {"epochs": 2, "frozen_epochs": 1, "steps_per_epoch": 8, "warmup": 0.5}
    run_arm(arm(**settings))
    cycle = list(rates)
    rates.clear()
    run_arm(arm(**settings, schedule="constant"))
    for start in (0, 8):  # of each phase
        assert rates[start : start + 4] == cycle[start : start + 4]
        assert [rest for _, rest, _ in rates[start + 4 : start + 8]] == [BASE.lr] * 4
        assert [momentum for _, _, momentum in rates[start + 4 : start + 8]] == [0.85] * 4
    assert all(encoder == 0 for encoder, _, _ in rates[:8]) and all(encoder == rest for encoder, rest, _ in rates[8:])


def test_fine_tune_by_hand(run_arm: Train, rates: Rates) -> None:
    run_arm(arm(schedule="fine_tune", epochs=3, frozen_epochs=1, steps_per_epoch=5, lr=0.01))
    frozen, rest = rates[:5], rates[5:]
    expected = [cosine(0.01 / 25, 0.01, i / 5 / 0.99) for i in range(5)]
    assert [one for _, one, _ in frozen] == pytest.approx(expected) and {one for one, _, _ in frozen} == {0.0}
    expected = [cosine(0.001, 0.005, i / 3) for i in range(3)] + [cosine(0.005, 5e-8, i / 7) for i in range(7)]
    assert [one for _, one, _ in rest] == pytest.approx(expected)
    assert [100 * encoder for encoder, _, _ in rest] == pytest.approx(expected)


def test_fine_tune_is_fastais_own_bit_for_bit(tiny: None, phantom_store: Store, phantom_split: Split) -> None:
    run = arm(schedule="fine_tune", epochs=3, frozen_epochs=1)
    ours, fastais = (build_learner(run, Slices(phantom_store, CPU), phantom_split, 0) for _ in range(2))
    course = fit(ours, run, 1e-2, Ears())
    fastais.fine_tune(2, 1e-2, freeze_epochs=1)
    assert len(course.history) == 3
    theirs = fastais.model.net.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.model.net.state_dict().items())


# when a run stops


def test_patience_counts_over_the_whole_run(run_arm: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three frozen epochs get worse, and the first of the others: three in all."""
    scripted_scores(monkeypatch, [0.5, 0.4, 0.3, 0.2, 0.9])
    ears = Ears()
    result = run_arm(arm(epochs=8, frozen_epochs=3, steps_per_epoch=1, patience=3), ears=ears)
    assert [epoch.number for epoch in ears.epochs] == [0, 1, 2, 3]
    assert result.best_epoch == 0 and not result.pruned


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_that_stops_frozen_goes_on_to_no_other_phase(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    scripted_scores(monkeypatch, [0.5, 0.4, 0.3, 0.9, 0.9])
    result = run_arm(arm(schedule=schedule, epochs=8, frozen_epochs=4, steps_per_epoch=1, patience=2))
    assert len(result.history) == 3 and result.best_epoch == 0
    before = build_network(arm(), 64, 0)[0].state_dict()
    assert torch.equal(result.weights["layers.0.0.0.weight"], before["layers.0.0.0.weight"])


def test_a_better_frozen_epoch_starts_patience_anew(run_arm: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's phases: where the best frozen epoch is the last, the others have all of the patience."""
    scripted_scores(monkeypatch, [0.1, 0.5, 0.4, 0.4, 0.4, 0.4, 0.9])
    result = run_arm(arm(epochs=12, frozen_epochs=2, steps_per_epoch=1, patience=4))
    assert len(result.history) == 6 and result.best_epoch == 1


# a frozen encoder


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"architecture": "unet"}, {"schedule": "constant"}], ids=str)
def test_a_frozen_encoder_keeps_every_bit(
    tiny: None, phantom_store: Store, phantom_split: Split, changes: dict[str, Any]
) -> None:
    """Weights and BatchNorm's statistics alike, trained and kept; the decoder's move."""
    run = arm(encoder_frozen=True, **changes)
    before = build_network(run, 64, 0)[0].state_dict()
    learner = build_learner(run, Slices(phantom_store, CPU), phantom_split, 0)
    course = fit(learner, run, 1e-2, Ears())
    assert course.weights is not None
    for state in (learner.model.net.state_dict(), course.weights):
        kept = {name for name, value in state.items() if torch.equal(value, before[name])}
        encoder = {name for name in state if name.startswith(("layers.0.", "encoder."))}
        assert encoder and encoder <= kept
        assert {name for name in state if name.endswith("weight")} - encoder - kept
    assert all(weight.grad is None for weight in learner.encoder.parameters())


def test_a_frozen_encoder_is_one_function_in_training_and_prediction(
    tiny: None, phantom_store: Store, phantom_split: Split
) -> None:
    run = arm(encoder_frozen=True)
    learner = build_learner(run, Slices(phantom_store, CPU), phantom_split, 0)
    modes = []
    learner.encoder.register_forward_hook(lambda module, *_: modes.append([one.training for one in module.modules()]))
    fit(learner, run, 1e-2, Ears())
    assert len(modes) > 4 and not any(any(mode) for mode in modes)
    assert any(module.training for module in learner.model.net.train().modules())


def test_the_rate_of_a_frozen_encoder_is_found_with_it_frozen(
    tiny: None, phantom_store: Store, phantom_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Learner] = []
    monkeypatch.setattr(loop, "LR_FIND_STEPS", 20)
    monkeypatch.setattr(loop, "build_learner", lambda *args: (built.append(build_learner(*args)), built[0])[1])
    run = arm(encoder_frozen=True, lr="find")
    assert find_lr(run, Slices(phantom_store, CPU), phantom_split, 0) > 0
    assert not any(weight.requires_grad for weight in built[0].encoder.parameters())
    before = build_network(run, 64, 0)[1].state_dict()
    assert all(torch.equal(value, before[name]) for name, value in built[0].encoder.state_dict().items())


# what a run starts from


def test_arms_of_an_initialisation_start_from_one_decoder(phantom_store: Store, phantom_split: Split) -> None:
    def facts(init: str, seed: int = 0) -> dict[str, str]:
        run = arm(init=init, architecture="unet", decoder_width=16)
        return initial_facts(build_learner(run, Slices(phantom_store, CPU), phantom_split, seed))

    scratch, imagenet, other = facts("scratch"), facts("imagenet"), facts("scratch", seed=1)
    assert set(scratch) == {f"initial_{part}_sha256" for part in ("weights", "encoder", "decoder")}
    assert scratch == facts("scratch")
    assert scratch["initial_decoder_sha256"] == imagenet["initial_decoder_sha256"] != other["initial_decoder_sha256"]
    assert len({each["initial_encoder_sha256"] for each in (scratch, imagenet, other)}) == 3
    assert len({each["initial_weights_sha256"] for each in (scratch, imagenet, other)}) == 3


def test_a_network_without_an_encoder_trains_too(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch, phantom_store: Store
) -> None:
    def plain(*_: Any, **__: Any) -> tuple[nn.Module, None]:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)), None

    monkeypatch.setattr(loop, "build_network", plain)
    result = run_arm(arm())
    facts = result.facts
    assert facts["initial_decoder_sha256"] == facts["initial_weights_sha256"]
    assert "initial_encoder_sha256" not in facts
    assert not torch.equal(result.weights["0.weight"], plain()[0].state_dict()["0.weight"])
    assert [len(group) for group in encoder_and_rest(None, plain()[0])] == [2]


# every level trains, alone and beside the others


RUN = BASE.model_dump()  # two epochs of two steps: in the first of a phase all schedules agree


@pytest.mark.parametrize(
    ("factor", "level", "settings"),
    [
        *(("loss", name, {}) for name in LOSSES if name != "ce_dice"),
        *(("schedule", name, {"frozen_epochs": 1}) for name in SCHEDULES if name != "one_cycle"),
        ("encoder_frozen", True, {}),
        ("tumor_weight", 5.0, {}),
        ("liver_weight", 2.0, {}),
        ("dice_smooth", 1e-5, {}),
        ("focal_gamma", 1.0, {"loss": "focal"}),
        ("tversky_beta", 0.9, {"loss": "tversky"}),
    ],
    ids=str,
)
def test_each_level_trains_another_model_than_the_baseline(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch, factor: str, level: Any, settings: dict[str, Any]
) -> None:
    scripted_scores(monkeypatch, [0.1, 0.2] * 3)  # the last epoch is kept
    design = {"question": "?", "run": RUN | settings, "factors": {factor: [level]}}
    baseline, other = arms(StudyConfig.model_validate(design))
    assert differing_fields(baseline.run, other.run) == {factor}
    ours, theirs, again = (run_arm(run) for run in (baseline.run, other.run, other.run))
    assert ours.facts["steps"] == theirs.facts["steps"] == "4"
    assert ours.facts["initial_weights_sha256"] == theirs.facts["initial_weights_sha256"]
    assert any(not torch.equal(value, theirs.weights[name]) for name, value in ours.weights.items())
    assert all(torch.equal(value, theirs.weights[name]) for name, value in again.weights.items())


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        ({"frozen_epochs": 1}, {"loss": list(LOSSES), "schedule": list(SCHEDULES)}),
        ({}, {"loss": ["ce_dice", "tversky"], "schedule": ["one_cycle", "constant"], "encoder_frozen": [False, True]}),
    ],
    ids=["schedules", "frozen"],
)
def test_levels_train_in_a_factorial(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], factors: dict[str, list[Any]]
) -> None:
    study = {"question": "?", "design": "factorial", "run": RUN | settings, "factors": factors}
    its = arms(StudyConfig.model_validate(study))
    scripted_scores(monkeypatch, [0.1, 0.2] * len(its))
    results = [run_arm(one.run) for one in its]
    assert {result.facts["steps"] for result in results} == {"4"}
    assert len({result.facts["initial_weights_sha256"] for result in results}) == 1
    assert len({weights_sha256(result.weights) for result in results}) == len(its) >= 8
