"""One training run: ``train(run, store, split, seed, listener) -> Trained``. fastai's Learner and schedule drive it."""

import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import TrainEvalCallback
from fastai.callback.schedule import valley  # its module also gives Learner fit_one_cycle and lr_find
from fastai.callback.training import GradientClip
from fastai.data.core import DataLoaders
from fastai.learner import Learner, Recorder
from fastai.optimizer import OptimWrapper
from torch import Tensor, nn

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.catalog import LOSSES, SCHEDULES
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.spec.tables import resolve
from litsexp.training.architectures import build_network
from litsexp.training.averaged import Averaged
from litsexp.training.course import Course, Frozen, Listener, Watch
from litsexp.training.init import Corpus, weights_sha256
from litsexp.training.loaders import Slices, loaders_of
from litsexp.training.machine import MixedPrecision, default_device, repeatable

LR_FIND_STEPS = 100


@dataclass(frozen=True)
class Trained:
    """A finished run: its weights are those of the epoch that was best on validation."""

    history: list[dict[str, float]]
    best_epoch: int
    weights: dict[str, Tensor]
    facts: dict[str, str]  # what the settings became on this machine
    fit_s: float  # without what an initialisation that learns took
    pruned: bool


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
        initial = initial_facts(learner)
        course = fit(learner, run, lr, listener)
        assert course.weights is not None
        facts = facts_of(learner, course, lr) | initial | (corpus.facts if corpus else {})
    return Trained(
        history=course.history,
        best_epoch=course.best_epoch,
        weights=dict(course.weights),
        facts=facts,
        fit_s=time.perf_counter() - start_s - (corpus.spent_s if corpus else 0.0),
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


def initial_facts(learner: Learner) -> dict[str, str]:
    """SHA-256 of the weights before the first step: of all, of the encoder (where there is one), and of the rest.

    Arms that differ in ``init`` alone have the same rest. What a network leaves out of its encoder counts in none.
    """
    whole, encoder = learner.model.net.state_dict(keep_vars=True), learner.encoder
    tensors = {id(tensor) for tensor in encoder.state_dict(keep_vars=True).values()} if encoder else set()
    parts = {
        "weights": whole,
        "encoder": {name: value for name, value in whole.items() if id(value) in tensors},
        "decoder": {name: value for name, value in whole.items() if id(value) not in tensors},
    }
    return {f"initial_{name}_sha256": weights_sha256(part) for name, part in parts.items() if part}


def build_learner(run: RunConfig, slices: Slices, split: Split, seed: int, corpus: Corpus | None = None) -> Learner:
    """A fresh learner: everything random in it comes from ``seed``."""
    loaders = DataLoaders(*loaders_of(run, slices, split, seed), device=slices.device)
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
    learner.logger, learner.encoder = _silent, encoder
    if run.encoder_frozen and encoder is not None:
        learner.add_cb(Frozen(encoder))
        learner.freeze()
    return learner


def fit(learner: Learner, run: RunConfig, lr: float, listener: Listener) -> Course:
    """Phase after phase of the arm's schedule, until one of them ends the run.

    FloatingPointError where a loss is not finite.
    """
    store, rows = learner.dls.valid.slices.store, learner.dls.valid.rows
    averaged = [Averaged(learner.model.net, run.ema)] if run.ema else []
    course = Course(rows, store.index.iloc[rows], np.asarray(store.labels[rows]), listener, history=[])
    for phase in resolve(SCHEDULES[run.schedule].make)(run, lr):
        if phase.frozen:
            learner.freeze()
        phase.fit(learner, phase.epochs, cbs=[Watch(course, run.patience), *averaged])
        if course.stopped:
            break
        if phase.frozen:
            learner.unfreeze()
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
            return float(learner.lr_find(num_it=LR_FIND_STEPS, show_plot=False, suggest_funcs=valley).valley)
        except (IndexError, RuntimeError, ValueError) as error:
            advice = "give a learning rate, for example 1e-3"
            raise LitsexpError(f"run.lr = find: no usable curve ({error}); {advice}") from None


def encoder_and_rest(encoder: nn.Module | None, model: nn.Module) -> list[list[nn.Parameter]]:
    """Parameter groups: fastai freezes all but the last. What a network leaves out of its encoder is in none.

    Without an encoder there is one group.
    """
    if encoder is None:
        return [list(model.parameters())]
    everything, encoders = list(model.parameters()), {id(parameter) for parameter in encoder.parameters()}
    first = [parameter for parameter in everything if id(parameter) in encoders]
    return [first, [parameter for parameter in everything if id(parameter) not in encoders]]


def _silent(*_: Any) -> None:
    """fastai's logger prints a table; the listener has the numbers."""
