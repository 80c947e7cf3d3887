"""One training run: ``train(run, store, split, seed, listener) -> Trained``. fastai's Learner and schedule drive it.

Scores, the best checkpoint and early stopping are kept here: fastai's own restart with every phase of a fit.
"""

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import fastai.callback.schedule  # noqa: F401  (adds fit_one_cycle and lr_find to Learner)
import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelFitException, TrainEvalCallback
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner, Recorder
from fastai.optimizer import OptimWrapper
from numpy.typing import NDArray
from torch import Tensor, nn

from litsexp.data.rows import learning_rows
from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.evaluation.cases import masks_of
from litsexp.evaluation.metrics import SELECTING, mean_scores, selection_score
from litsexp.spec.catalog import LOSSES, METRICS
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.spec.tables import resolve
from litsexp.training.architectures import build_network
from litsexp.training.averaged import Averaged
from litsexp.training.init import Corpus, weights_sha256
from litsexp.training.loaders import EvalLoader, Slices, TrainLoader
from litsexp.training.machine import MixedPrecision, default_device, repeatable
from litsexp.training.predict import labels_of

LR_FIND_STEPS = 100


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: metrics under the names they are logged by, and the validation slices' predicted labels."""

    number: int  # from 0, over all phases
    metrics: dict[str, float]
    rows: NDArray[np.int64]
    prediction: NDArray[np.uint8]


class Listener(Protocol):
    """Hears of every epoch as it ends."""

    def epoch(self, epoch: Epoch) -> bool:
        """Return False to stop the run here (a search prunes so)."""


@dataclass(frozen=True)
class Trained:
    """A finished run: its weights are those of the epoch that was best on validation."""

    history: list[dict[str, float]]
    best_epoch: int
    weights: dict[str, Tensor]
    facts: dict[str, str]  # what the settings became on this machine
    fit_s: float
    pruned: bool


@dataclass
class Course:
    """A run's memory across phases: every epoch's metrics, and the best checkpoint so far."""

    rows: NDArray[np.int64]  # of validation
    index: pd.DataFrame  # the store's, of these rows
    truth: NDArray[np.uint8]
    listener: Listener
    history: list[dict[str, float]]
    best_score: float = -math.inf
    best_epoch: int = -1
    weights: Mapping[str, Tensor] | None = None
    pruned: bool = False
    failure: str = ""

    def add(self, losses: dict[str, float], prediction: NDArray[np.uint8], model: MixedPrecision) -> None:
        """Score an epoch's validation predictions, keep the model where it is the best yet, tell the listener."""
        curves = [name for name, metric in METRICS.items() if metric.curve]
        mean = mean_scores(masks_of(self.index, self.truth, prediction), dict.fromkeys([*curves, *SELECTING]))
        score = selection_score(mean)
        metrics = {**losses, **{f"valid/{name}": mean[name] for name in curves}, "valid/score": score}
        self.history.append(metrics)
        number = len(self.history) - 1
        if score > self.best_score:
            self.best_score, self.best_epoch = score, number
            state = model.net.state_dict()
            self.weights = {
                name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()
            }
        self.pruned = not self.listener.epoch(Epoch(number, metrics, self.rows, prediction))


class Watch(Callback):  # type: ignore[misc]  # fastai has no types
    """Measures each epoch for the course, and ends the fit when it is pruned, out of patience, or not finite."""

    order = 60  # after fastai's recorder

    def __init__(self, course: Course, patience: int):
        self.course, self.patience = course, patience

    def before_fit(self) -> None:
        """Patience starts anew with each phase."""
        self.phase_start = len(self.course.history)

    def before_train(self) -> None:
        """Start the epoch's clock and sums."""
        self.start_s, self.images = time.perf_counter(), 0
        self.loss_sum: Tensor | float = 0.0

    def before_validate(self) -> None:
        """Close the training sums, open validation's."""
        train_loss = self._mean_loss("training")
        seconds = time.perf_counter() - self.start_s
        self.losses = {"train/loss": train_loss, "lr": float(self.learn.opt.hypers[-1]["lr"])}
        self.losses["images_per_s"] = self.images / seconds
        self.loss_sum, self.images = 0.0, 0
        self.parts: list[NDArray[np.uint8]] = []

    def after_step(self) -> None:
        """Drop the gradients before fastai zeroes them, so that the next backward pass writes instead of adding."""
        self.learn.model.zero_grad(set_to_none=True)

    def after_batch(self) -> None:
        """Sum up the loss; in validation also keep the labels."""
        count = len(self.learn.xb[0])
        self.images += count
        self.loss_sum = self.loss_sum + self.learn.loss.detach() * count
        if not self.learn.training:
            self.parts.append(labels_of(self.learn.pred))

    def after_validate(self) -> None:
        """Hand the epoch to the course; stop here if it says so."""
        losses = {**self.losses, "valid/loss": self._mean_loss("validation")}
        self.course.add(losses, np.concatenate(self.parts), self.learn.model)
        stale_epochs = len(self.course.history) - max(self.course.best_epoch + 1, self.phase_start)
        if self.course.pruned or (self.patience and stale_epochs >= self.patience):
            raise CancelFitException

    def _mean_loss(self, which: str) -> float:
        """Mean over the images so far; where it is not finite, end the fit (fastai would rewrite another exception)."""
        mean = float(self.loss_sum) / self.images
        if not math.isfinite(mean):
            self.course.failure = f"{which} loss is {mean} in epoch {len(self.course.history)}"
            raise CancelFitException
        return mean


def train(
    run: RunConfig, store: Store, split: Split, seed: int, listener: Listener, cache: Path | None = None
) -> Trained:
    """Train one arm on one split and keep the checkpoint that is best on validation.

    Args:
        run: the arm.
        store: of the cohort.
        split: cases to train on and to validate on; of the first, ``run.train_fraction`` are used.
        seed: of weights, batch order and augmentation. Same seed, machine and number of threads: same bits.
        listener: told of every epoch; may stop the run.
        cache: a folder for what an initialisation learns from the training slices, where it does.

    Raises:
        LitsexpError: weights that cannot be had, a learning rate that cannot be found.
        FloatingPointError: a loss that is not finite.
    """
    with repeatable():
        start_s = time.perf_counter()
        slices = Slices(store, default_device())
        corpus = Corpus(slices, split, cache) if cache else None
        lr = find_lr(run, slices, split, seed, corpus) if run.lr == "find" else run.lr
        learner = build_learner(run, slices, split, seed, corpus)
        initial = weights_sha256(learner.model.net.state_dict())
        course = fit(learner, run, lr, listener)
        assert course.weights is not None
        facts = facts_of(learner, course, lr) | {"initial_weights_sha256": initial}
    return Trained(
        history=course.history,
        best_epoch=course.best_epoch,
        weights=dict(course.weights),
        facts=facts,
        fit_s=time.perf_counter() - start_s,
        pruned=course.pruned,
    )


def facts_of(learner: Learner, course: Course, lr: float) -> dict[str, str]:
    """What the settings became on this machine."""
    cuda = learner.dls.train.device.type == "cuda"
    return {
        "lr_max": repr(lr),
        "precision_used": str(learner.model.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": str(torch.get_num_threads()),
        "steps": str(len(learner.dls.train) * len(course.history)),
        "training_slices": str(len(learner.dls.train.rows)),
    }


def build_learner(run: RunConfig, slices: Slices, split: Split, seed: int, corpus: Corpus | None = None) -> Learner:
    """A fresh learner: everything random in it comes from ``seed``."""
    whole = slices.store.rows_of(split.train)
    rows, valid_rows = learning_rows(slices.store, split, run, seed)
    steps = run.steps_per_epoch or max(1, len(whole) // run.batch_size)
    loaders = DataLoaders(
        TrainLoader(slices, rows, run, steps, seed),
        EvalLoader(slices, valid_rows, run),
        device=slices.device,
    )
    network, encoder = build_network(run, slices.store.size, seed, corpus=corpus)
    learner = Learner(
        loaders,
        MixedPrecision(network, run, slices.device),
        loss_func=resolve(LOSSES[run.loss].make)(run),
        opt_func=partial(OptimWrapper, opt=torch.optim.AdamW, betas=(0.9, 0.99), eps=1e-5, fused=True),
        splitter=partial(encoder_and_rest, encoder),
        train_bn=False,  # else fastai trains a frozen encoder's BatchNorm weights
        wd=run.weight_decay,
        cbs=[TrainEvalCallback(), Recorder(add_time=False), *([GradientClip(run.clip_norm)] if run.clip_norm else [])],
        default_cbs=False,
    )
    learner.logger = _silent
    return learner


def fit(learner: Learner, run: RunConfig, lr: float, listener: Listener) -> Course:
    """Frozen epochs, then the rest, each phase one cycle up to ``lr``; patience counts in the last phase only.

    FloatingPointError where a loss is not finite.
    """
    store, rows = learner.dls.valid.slices.store, learner.dls.valid.rows
    averaged = [Averaged(learner.model.net, run.ema)] if run.ema else []
    course = Course(rows, store.index.iloc[rows], np.asarray(store.labels[rows]), listener, history=[])
    if run.frozen_epochs:
        learner.freeze()
        watch = Watch(course, patience=0)
        learner.fit_one_cycle(run.frozen_epochs, lr, pct_start=run.warmup, cbs=[watch, *averaged])
        learner.unfreeze()
    if run.epochs > run.frozen_epochs and not course.pruned and not course.failure:
        watch = Watch(course, run.patience)
        learner.fit_one_cycle(run.epochs - run.frozen_epochs, lr, pct_start=run.warmup, cbs=[watch, *averaged])
    if course.failure:
        raise FloatingPointError(course.failure)
    return course


def find_lr(run: RunConfig, slices: Slices, split: Split, seed: int, corpus: Corpus | None = None) -> float:
    """fastai's LR finder (valley) on a learner of its own, built from the same seed and thrown away.

    The real learner is built afterwards from the seed, so a found rate and the same rate given train the same model.
    """
    learner = build_learner(run, slices, split, seed, corpus)
    with tempfile.TemporaryDirectory() as directory:
        learner.path = type(learner.path)(directory)
        try:
            return float(learner.lr_find(num_it=LR_FIND_STEPS, show_plot=False).valley)
        except (IndexError, RuntimeError, ValueError) as error:
            advice = "give a learning rate, for example 1e-3"
            raise LitsexpError(f"run.lr = find: no usable curve ({error}); {advice}") from None


def encoder_and_rest(encoder: nn.Module, model: nn.Module) -> list[list[nn.Parameter]]:
    """Parameter groups: fastai freezes all but the last. What a network leaves out of its encoder is in none."""
    everything, encoders = list(model.parameters()), {id(parameter) for parameter in encoder.parameters()}
    first = [parameter for parameter in everything if id(parameter) in encoders]
    return [first, [parameter for parameter in everything if id(parameter) not in encoders]]


def _silent(*_: Any) -> None:
    """fastai's logger prints a table; the listener has the numbers."""
