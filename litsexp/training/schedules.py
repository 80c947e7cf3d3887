"""Schedules: the phases of a run, and the learning rate in each. A table's row makes the phases of an arm."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastai.callback.core import Callback
from fastai.callback.schedule import ParamScheduler, SchedCos, SchedNo, combine_scheds
from fastai.learner import Learner

from litsexp.spec.run import RunConfig

DIV = 25.0  # a phase starts at this part of its highest rate: fastai's default
MOMENTUM = 0.95, 0.85  # at the start of a phase and at the highest rate: fastai's defaults
ENCODER_PART = 100  # fine_tune: the decoder's rate is so many times the encoder's: fastai's default


@dataclass(frozen=True)
class Phase:
    """Some epochs of a run, with the encoder's weights frozen or not."""

    epochs: int
    frozen: bool
    fit: Callable[..., None]  # (Learner, epochs, cbs=callbacks): fits so many epochs by this phase's rates


def one_cycle(run: RunConfig, lr: float) -> list[Phase]:
    """The frozen epochs, then the rest; each phase rises to ``lr`` for ``run.warmup`` of its steps and falls to 0."""
    return _phases(run, partial(Learner.fit_one_cycle, lr_max=lr, pct_start=run.warmup))


def constant(run: RunConfig, lr: float) -> list[Phase]:
    """The same phases and the same rise (of rate, and fall of momentum) as ``one_cycle``; then both stay."""
    return _phases(run, partial(fit_constant, lr=lr, warmup=run.warmup))


def fine_tune(run: RunConfig, lr: float) -> list[Phase]:
    """fastai's ``fine_tune(epochs - frozen_epochs, lr, frozen_epochs)`` with its defaults, which the notebook took.

    Frozen, the decoder's rate rises to ``lr`` until 99 % of the steps; then all is trained up to ``lr / 2``, the
    encoder up to a hundredth of that, from a fifth of it and for 30 % of the steps.
    """
    rates = slice(lr / 2 / ENCODER_PART, lr / 2)
    return [
        Phase(run.frozen_epochs, True, partial(Learner.fit_one_cycle, lr_max=slice(lr), pct_start=0.99)),
        Phase(
            run.epochs - run.frozen_epochs, False, partial(Learner.fit_one_cycle, lr_max=rates, pct_start=0.3, div=5.0)
        ),
    ]


def fit_constant(learner: Learner, epochs: int, lr: float, warmup: float, cbs: Sequence[Callback]) -> None:
    """Fit so many epochs: rate and momentum move as in fastai's ``fit_one_cycle`` while it rises, then stay."""

    def rise(start: float, end: float) -> Any:
        return combine_scheds([warmup, 1 - warmup], [SchedCos(start, end), SchedNo(end, end)])

    learner.fit(epochs, cbs=[ParamScheduler({"lr": rise(lr / DIV, lr), "mom": rise(*MOMENTUM)}), *cbs])


def _phases(run: RunConfig, fit: Callable[..., None]) -> list[Phase]:
    both = Phase(run.frozen_epochs, True, fit), Phase(run.epochs - run.frozen_epochs, False, fit)
    return [phase for phase in both if phase.epochs]
