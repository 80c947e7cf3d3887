"""Networks around an encoder, built at random from a seed and then initialised."""

import torch
from fastai.vision.models.unet import DynamicUnet
from torch import nn

from litsexp.evaluation.metrics import N_LABELS
from litsexp.spec.catalog import ARCHITECTURES
from litsexp.spec.run import RunConfig
from litsexp.spec.tables import resolve
from litsexp.training.encoders import random_encoder
from litsexp.training.init import Corpus, initial_state, load_encoder


def build_network(
    run: RunConfig, size: int, seed: int, initialise: bool = True, corpus: Corpus | None = None, labels: int = N_LABELS
) -> tuple[nn.Module, nn.Module | None]:
    """The arm's network, (B, 3, size, size) -> logits (B, labels, size, size), and its encoder; None: it has none.

    Args:
        run: decides architecture, encoder and initialisation.
        size: pixels a side.
        seed: of the random weights.
        initialise: whether ``run.init`` is applied; without, for weights that are loaded over it.
        corpus: what an initialisation that learns is given.
        labels: channels of its output.

    Raises:
        LitsexpError: weights that cannot be had, or that do not fit the encoder; a library that is not installed.
    """
    torch.manual_seed(seed)
    row = ARCHITECTURES[run.architecture]
    encoder = random_encoder(run.encoder) if row.encoder else None
    network: nn.Module = resolve(row.make)(encoder, labels, size, run)
    state = initial_state(run, seed, corpus) if initialise and encoder is not None else None
    if encoder is not None and state is not None:
        load_encoder(encoder, state, run)
    return network, encoder


def dynamic_unet(encoder: nn.Module, labels: int, size: int, run: RunConfig) -> nn.Module:
    """fastai's U-Net: its decoder is made to fit the encoder's stages, whatever they are."""
    unet: nn.Module = DynamicUnet(encoder, labels, (size, size))
    return unet
