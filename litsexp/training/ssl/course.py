"""The course of a pretraining: steps that depend on seed and number alone, checkpoints, and going on from one.

An interrupted pretraining that goes on ends with the same bits as one that was never interrupted.
"""

import logging
import math
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from litsexp.files import whole_file
from litsexp.spec.run import RunConfig
from litsexp.training.architectures import build_network
from litsexp.training.init import Corpus
from litsexp.training.inputs import CHANNELS
from litsexp.training.loaders import TrainLoader
from litsexp.training.machine import MixedPrecision, repeatable
from litsexp.training.ssl.distortions import Distortion

WEIGHT_DECAY = 0.05
WARMUP = 0.1  # part of the steps in which the learning rate rises, before it falls as a cosine to 0
FINAL_STEPS = 50  # whose mean loss is the final loss
CHECKPOINT_S = 60.0  # seconds of steps between checkpoints

logger = logging.getLogger(__name__)


@dataclass
class Course:
    """How far a pretraining has come."""

    losses: list[float] = field(default_factory=list)  # of each step: mean squared error, channels in [-1, 1]
    seconds: float = 0.0  # in steps, all attempts together

    @property
    def final_loss(self) -> float:
        """Mean of the last steps."""
        return float(np.mean(self.losses[-FINAL_STEPS:]))


def pretrain(
    run: RunConfig, seed: int, corpus: Corpus, distort: Distortion, checkpoint: Path
) -> tuple[dict[str, Tensor], Course, str]:
    """Train the arm's network to undo a distortion; the encoder's weights, the course, and the precision it ran in.

    Args:
        run: decides network, input and the pretraining's own settings.
        seed: of weights, order of slices and distortions.
        corpus: only its training rows are read.
        distort: what is to be undone.
        checkpoint: a file to go on from where it is there; it is left for whoever keeps the result to remove.

    Raises:
        FloatingPointError: a loss that is not finite.
    """
    slices, batches = corpus.slices, run.changed({"batch_size": run.ssl_batch_size})
    with repeatable():
        network, encoder = build_network(run, slices.store.size, seed, initialise=False, labels=CHANNELS)
        model = MixedPrecision(network, run, slices.device).train()
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
        course = _resumed(checkpoint, network, optimizer, slices.device) or Course()
        loader = TrainLoader(slices, corpus.rows, batches, run.ssl_steps, seed)
        order, pending, start_s = loader.order(0), [], time.perf_counter()
        for step in range(len(course.losses), run.ssl_steps):
            generator = torch.Generator().manual_seed(_seed_of(seed, step))
            torch.manual_seed(_seed_of(seed, step) + 1)  # what the network itself draws, such as dropout
            image, _ = loader.inputs(*loader.slices.read(order[step]))
            pending.append(_step(model, optimizer, rate(step, run), image, *distort(image, generator)))
            last = step + 1 == run.ssl_steps
            if last or time.perf_counter() - start_s >= CHECKPOINT_S:
                _settle(course, pending, start_s)
                if not last:
                    _save(checkpoint, course, network, optimizer)
                pending, start_s = [], time.perf_counter()
        assert encoder is not None  # RunConfig refuses this init where there is none
        state = {name: value.detach().cpu().contiguous().clone() for name, value in encoder.state_dict().items()}
    return state, course, str(model.dtype).removeprefix("torch.")


def rate(step: int, run: RunConfig) -> float:
    """The learning rate of a step: up to ``run.ssl_lr`` in a line, then down as a cosine."""
    rising = max(1, round(WARMUP * run.ssl_steps))
    if step < rising:
        return run.ssl_lr * (step + 1) / rising
    return run.ssl_lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, run.ssl_steps - rising)))


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, lr: float, image: Tensor, given: Tensor, counts: Tensor
) -> Tensor:
    """One step of the optimizer; its loss, still on the device."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    errors = (model(given) - image).square() * counts
    loss: Tensor = errors.sum() / (counts.sum() * image.shape[1])
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    optimizer.step()
    return loss.detach()


def _seed_of(seed: int, step: int) -> int:
    """The same for every method and setting, so that arms draw alike; apart from those of the supervised training."""
    return int(np.random.SeedSequence([seed, step, len("ssl")]).generate_state(1)[0])


def _settle(course: Course, pending: list[Tensor], start_s: float) -> None:
    """Read the losses from the device; FloatingPointError where one is not finite."""
    losses = torch.stack(pending).tolist()
    course.seconds += time.perf_counter() - start_s  # after the device has done them
    for loss in losses:
        if not math.isfinite(loss):
            raise FloatingPointError(f"pretraining loss is {loss} in step {len(course.losses)}; lower run.ssl_lr")
        course.losses.append(loss)


def _save(path: Path, course: Course, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    state = {"course": vars(course), "network": network.state_dict(), "optimizer": optimizer.state_dict()}
    with whole_file(path, replace=True) as temporary:
        torch.save(state, temporary)


def _resumed(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> Course | None:
    """Network and optimizer as the checkpoint has them; None without one, or where it cannot be read."""
    if not path.exists():
        return None
    try:
        state: Mapping[str, Any] = torch.load(path, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        course = Course(**state["course"])
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise DamagedCheckpoint(" ".join(str(error).split())[:200]) from None
    logger.info("pretraining goes on after %d steps", len(course.losses))
    return course


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read: the network may be half overwritten, so one starts anew."""
