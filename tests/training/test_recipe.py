"""What makes training repeat: averaged weights, clipped gradients, warm-up; each does what it says and nothing else."""

import math

import pytest
import torch
from fastai.callback.training import GradientClip

from litsexp.spec.design import Arm, Cell
from litsexp.spec.run import RunConfig
from litsexp.training import loop
from litsexp.training.averaged import Averaged

from .conftest import BASE, Train, arm, scripted_scores

STEPS = 4  # BASE: two epochs of two


def weights_by_step(run_arm: Train, monkeypatch: pytest.MonkeyPatch, run: RunConfig) -> tuple[list[dict], dict]:
    """The network's state after every optimiser step, and what was kept."""
    states: list[dict] = []
    step = loop.Learner._step

    def spy(learner: loop.Learner) -> None:
        step(learner)
        states.append({name: value.clone() for name, value in learner.model.net.state_dict().items()})

    monkeypatch.setattr(loop.Learner, "_step", spy)
    return states, run_arm(run).weights


def test_averaged_weights_are_the_exponential_mean_of_the_steps(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_scores(monkeypatch, [0.1, 0.2])  # the last epoch is kept
    states, kept = weights_by_step(run_arm, monkeypatch, arm(ema=0.75))
    assert len(states) == STEPS
    for name in ("layers.0.0.0.weight", "layers.0.0.1.running_mean"):
        expected = states[0][name].double()
        for state in states[1:]:
            expected = 0.75 * expected + 0.25 * state[name].double()
        torch.testing.assert_close(kept[name].double(), expected, rtol=1e-5, atol=1e-7)
        assert not torch.equal(kept[name], states[-1][name])


def test_averaging_changes_what_is_kept_and_not_how_it_is_trained(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = weights_by_step(run_arm, monkeypatch, BASE)
    averaged, _ = weights_by_step(run_arm, monkeypatch, arm(ema=0.9))
    assert all(torch.equal(a[name], b[name]) for a, b in zip(plain[:STEPS], averaged, strict=True) for name in a)


def test_averaging_goes_on_from_a_frozen_phase_into_the_next(run_arm: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    after = Averaged.after_step
    monkeypatch.setattr(Averaged, "after_step", lambda self: (after(self), seen.append(self.steps)))
    run_arm(arm(ema=0.9, frozen_epochs=1))
    assert seen == [1, 2, 3, 4]


def test_gradients_are_scaled_down_to_the_norm(run_arm: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    before = GradientClip.before_step

    def spy(clip: GradientClip) -> None:
        before(clip)
        squares = [float(one.grad.square().sum()) for one in clip.learn.model.parameters() if one.grad is not None]
        norms.append(math.sqrt(sum(squares)))

    monkeypatch.setattr(GradientClip, "before_step", spy)
    run_arm(arm(clip_norm=0.01))
    assert norms == pytest.approx([0.01] * STEPS, rel=1e-3)


@pytest.mark.parametrize("warmup", [0.25, 0.75])
def test_the_rate_rises_for_as_long_as_the_warm_up_says(
    run_arm: Train, monkeypatch: pytest.MonkeyPatch, warmup: float
) -> None:
    rates: list[float] = []
    step = loop.Learner._step

    def spy(learner: loop.Learner) -> None:
        rates.append(learner.opt.hypers[-1]["lr"])
        step(learner)

    monkeypatch.setattr(loop.Learner, "_step", spy)
    run_arm(arm(warmup=warmup, epochs=1, steps_per_epoch=20))
    assert rates.index(max(rates)) == 20 * warmup


def test_every_fold_of_a_seed_is_a_run_of_its_own_and_all_arms_share_it() -> None:
    arms = Arm("baseline", RunConfig()), Arm("init=scratch", RunConfig(init="scratch"))
    seeds = {arm.name: [Cell(arm, fold, seed).random_seed for seed in range(5) for fold in range(5)] for arm in arms}
    assert seeds["baseline"] == seeds["init=scratch"]
    assert len(set(seeds["baseline"])) == 25
    assert all(0 <= seed < 2**32 for seed in seeds["baseline"])
    assert Cell(arms[0], 1, 0).random_seed == 3964924996  # pinned: another generator would train other models


@pytest.mark.parametrize("change", [{"ema": 1.0}, {"ema": -0.1}, {"clip_norm": 0}, {"warmup": 0}, {"warmup": 1}])
def test_recipes_that_make_no_sense_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        arm(**change)
