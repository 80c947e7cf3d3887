"""Initialisations: where the encoder's first weights come from.

The whole network is first built at random from the seed; an initialisation then only overwrites the encoder. So arms
that differ in ``init`` start from the same decoder, bit for bit, and nothing else (normalisation, freezing) changes.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from litsexp.data.splits import Split
from litsexp.spec.catalog import INITIALISATIONS
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.spec.tables import argument_of, resolve
from litsexp.training.checkpoints import fitted, read
from litsexp.training.encoders import imagenet_state, published_names, random_encoder
from litsexp.training.loaders import Slices


@dataclass
class Corpus:
    """What an initialisation that learns may look at: the training slices of the run's own fold, and no other."""

    slices: Slices
    split: Split  # of the fold; its training cases are all that may be read
    cache: Path  # a folder for what was learned, found again by its content
    facts: dict[str, str] = field(default_factory=dict)  # what whoever learns has to say of it: tags of the run
    spent_s: float = 0.0  # by this run, on learning it or waiting for it

    @property
    def rows(self) -> NDArray[np.int64]:
        """All that may be read: the rows of every training patient, those that ``train_fraction`` leaves out too."""
        return self.slices.store.rows_of(self.split.train)


def initial_state(run: RunConfig, seed: int, corpus: Corpus | None = None) -> dict[str, Tensor] | None:
    """The encoder's first weights, in its own names; None where they stay as the seed made them.

    Raises:
        LitsexpError: weights that cannot be had.
        ValueError: an initialisation that learns, without a corpus.
    """
    row = INITIALISATIONS.of(run.init)
    if row.learns and corpus is None:
        raise ValueError(f"run.init = {run.init} learns from slices; expected a corpus")
    start_s = time.perf_counter()
    state: dict[str, Tensor] | None = resolve(row.make)(run, seed, *([corpus] if row.learns else []))
    if row.learns and corpus is not None:
        corpus.spent_s += time.perf_counter() - start_s
    return state


def scratch(run: RunConfig, seed: int) -> None:
    """Nothing: the encoder stays as the seed made it."""


def imagenet(run: RunConfig, seed: int) -> dict[str, Tensor]:
    """The encoder's ImageNet weights."""
    return imagenet_state(run.encoder)


def shuffled_imagenet(run: RunConfig, seed: int) -> dict[str, Tensor]:
    """A control: the ImageNet weights' statistics without their features."""
    return shuffled(imagenet_state(run.encoder), seed)


def imagenet_statistics(run: RunConfig, seed: int) -> dict[str, Tensor]:
    """A control: weights of the ImageNet weights' mean and variance, and nothing else of them."""
    return redrawn(imagenet_state(run.encoder), seed)


def from_file(run: RunConfig, seed: int) -> dict[str, Tensor]:
    """The encoder's weights in the file that ``run.init`` names, whatever its publisher calls them."""
    found = read(Path(argument_of(run.init)))
    try:
        return fitted(found, random_encoder(run.encoder).state_dict(), published_names(run.encoder))
    except ValueError as error:
        raise LitsexpError(
            f"run.init = {run.init}: the weights do not fit encoder {run.encoder}: {error}; expected this encoder's "
            "weights by our names or their publisher's"
        ) from None


def shuffled(state: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """A control arm: every tensor keeps its values, and so its statistics, in random places: no features are left.

    After Raghu et al. 2019, who found that part of pretraining's gain is the scale of the weights alone.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value.flatten()[torch.randperm(value.numel(), generator=generator)].view_as(value)
        for name, value in state.items()
    }


def redrawn(state: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """A control arm: every tensor drawn anew, independently, from a normal distribution of its mean and variance.

    BatchNorm's running variances, which have to stay positive, are drawn from the log-normal one of their mean and
    variance. A tensor of one value stays as it is, and so do counters (``num_batches_tracked``), which are no weights.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        name: _drawn_like(value, generator, positive=name.endswith("running_var"))
        if value.is_floating_point() and value.numel() > 1
        else value.clone()
        for name, value in state.items()
    }


def _drawn_like(value: Tensor, generator: torch.Generator, positive: bool) -> Tensor:
    """Normal draws of a tensor's shape, mean and (population) variance; log-normal ones where they are positive."""
    mean, variance = value.double().mean(), value.double().var(correction=0)
    draws = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    if positive and mean > 0:
        spread = (1 + variance / mean**2).log()
        return (mean.log() - spread / 2 + spread.sqrt() * draws).exp().to(value.dtype)
    return (mean + variance.sqrt() * draws).to(value.dtype)


def load_encoder(encoder: nn.Module, state: Mapping[str, Tensor], run: RunConfig) -> None:
    """Copy ``state`` into the encoder; LitsexpError where names or shapes differ."""
    try:
        encoder.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise LitsexpError(
            f"run.init = {run.init}: the weights do not fit encoder {run.encoder} ({first}); "
            "expected this encoder's state dict"
        ) from None


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types and values of a state dict, in the order of the names."""
    content = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        content.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        content.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def parts_sha256(network: nn.Module, encoder: nn.Module | None) -> tuple[str | None, str]:
    """SHA-256 of a network's encoder, None where it has none, and of all else: its decoder, or the whole."""
    ours = encoder.state_dict(keep_vars=True) if encoder is not None else {}
    tensors = {id(value) for value in ours.values()}
    rest = {name: value for name, value in network.state_dict(keep_vars=True).items() if id(value) not in tensors}
    return weights_sha256(ours) if encoder is not None else None, weights_sha256(rest)


def check_initialisation(run: RunConfig) -> None:
    """LitsexpError where the arm's encoder cannot have its first weights: asked before any arm trains."""
    if INITIALISATIONS.of(run.init).learns:
        return
    state = initial_state(run, seed=0)
    if state is not None:
        load_encoder(random_encoder(run.encoder), state, run)
