"""A run's course over its epochs: each one's scores, the best checkpoint so far, and when to stop.

Kept here, over all phases of a run: fastai's own callbacks start anew with every fit.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelFitException
from numpy.typing import NDArray
from torch import Tensor, nn

from litsexp.evaluation.cases import masks_of
from litsexp.evaluation.metrics import SELECTING, case_scores, mean_rows, selection_score
from litsexp.spec.catalog import METRICS
from litsexp.training.machine import MixedPrecision
from litsexp.training.predict import labels_of


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave: metrics under the names they are logged by, and the validation slices' predicted labels."""

    number: int  # from 0, over all phases
    metrics: dict[str, float]
    rows: NDArray[np.int64]
    prediction: NDArray[np.uint8]
    cases: Sequence[Mapping[str, float]] = ()  # of validation: ``case``, and what ``metrics`` holds the means of


class Listener(Protocol):
    """Hears of every epoch as it ends."""

    def epoch(self, epoch: Epoch) -> bool:
        """Return False to stop the run here (a search prunes so)."""


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
    stopped: bool = False  # no epoch is to follow
    pruned: bool = False  # stopped by the listener
    failure: str = ""

    @property
    def stale_epochs(self) -> int:
        """Epochs since the best one, over all phases."""
        return len(self.history) - 1 - self.best_epoch

    def add(self, losses: dict[str, float], prediction: NDArray[np.uint8], model: MixedPrecision) -> None:
        """Score an epoch's validation predictions, keep the model where it is the best yet, tell the listener."""
        curves = [name for name, metric in METRICS.items() if metric.curve]
        names = list(dict.fromkeys([*curves, *SELECTING]))
        cases = case_scores(masks_of(self.index, self.truth, prediction), names)
        mean = mean_rows(cases, names)
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
        self.pruned = not self.listener.epoch(Epoch(number, metrics, self.rows, prediction, cases))


class Watch(Callback):  # type: ignore[misc]  # fastai has no types
    """Measures each epoch for the course, and ends the run when it is pruned, out of patience, or not finite.

    Patience counts epochs without a better validation score over the whole run, frozen ones too: a phase does not start
    it anew, and where a run stops no other phase begins.
    """

    order = 60  # after fastai's recorder

    def __init__(self, course: Course, patience: int):
        self.course, self.patience = course, patience

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
        self.course.stopped = self.course.pruned or 0 < self.patience <= self.course.stale_epochs
        if self.course.stopped:
            raise CancelFitException

    def _mean_loss(self, which: str) -> float:
        """Mean over the images so far; where it is not finite, end the fit (fastai would rewrite another exception)."""
        mean = float(self.loss_sum) / self.images
        if not math.isfinite(mean):
            self.course.failure = f"{which} loss is {mean} in epoch {len(self.course.history)}"
            self.course.stopped = True
            raise CancelFitException
        return mean


class Frozen(Callback):  # type: ignore[misc]  # fastai has no types
    """Keeps an encoder in evaluation mode: BatchNorm by the statistics that it came with, which do not move.

    That is how a frozen backbone is commonly kept, and what makes it the same function in training and in prediction.
    An encoder at random has BatchNorm's first statistics (mean 0, variance 1): it passes its features on as they are.
    """

    order = -5  # after fastai's TrainEvalCallback, which puts the whole network in training mode

    def __init__(self, encoder: nn.Module):
        self.encoder = encoder

    def before_train(self) -> None:
        """Undo what the training mode of the whole did to the encoder."""
        self.encoder.eval()
