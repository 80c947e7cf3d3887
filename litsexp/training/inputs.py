"""The one way from stored Hounsfield units to what a network sees, in training, prediction, export and pictures.

Stages, each on a whole batch on its device: encoding, augmentation of the geometry (image and mask alike), window into
channels, augmentation of the intensity, normaliser. The last is one for every arm, whatever the encoder's weights. What
a costly encoding makes is kept beside the store (``kept``) and comes here in place of the Hounsfield units.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from litsexp.data.ct.windows import windowed
from litsexp.spec.catalog import AUGMENTATIONS, ENCODINGS, EQUALISED, WINDOWS
from litsexp.spec.run import RunConfig
from litsexp.spec.tables import argument_of, resolve

CHANNELS = 3  # of what a network sees
EQUALISE_BINS = 100  # as the notebook has it
MEAN = SD = 0.5  # of channels in [0, 1]: the normalisation that tf_efficientnet_lite0 was trained with


class Inputs:
    """An arm's stages. Only a call with a generator augments."""

    def __init__(self, run: RunConfig):
        encoding, augmentation = ENCODINGS.of(run.encoding), AUGMENTATIONS[run.augment]
        self.window = run.window
        self.encode, self.kept, self.windowed = encoder_of(run), encoding.kept, encoding.windowed or encoding.kept
        self.move: Any = resolve(augmentation.move) if augmentation.move else None
        self.jitter: Any = resolve(augmentation.jitter) if augmentation.jitter else None

    def __call__(self, stored: Tensor, labels: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Network input (B, 3, H, W) and labels (B, H, W), long, of stored slices and their uint8 labels (B, H, W).

        ``stored``: int16 HU (B, H, W), or uint8 (B, C, H, W) as an encoding that is kept has made of them.
        """
        image = stored if stored.dtype == torch.uint8 else self.encode(stored)
        if self.kept:
            image = image.float() / 255
        if generator is not None and self.move:
            image, labels = self.move(image, labels, generator)
        if not self.windowed:
            image = channels(image, self.window)
        if generator is not None and self.jitter:
            image = self.jitter(image, generator)
        return normalise(image).expand(-1, 3, -1, -1), labels.long()


def encoder_of(run: RunConfig) -> Callable[[Tensor], Tensor]:
    """The arm's encoding: int16 HU (B, H, W) -> what its row of the table says."""
    row = ENCODINGS.of(run.encoding)
    make, argument = resolve(row.make), [argument_of(run.encoding)] * bool(row.argument)

    def encode(hu: Tensor) -> Tensor:
        image: Tensor = make(hu, run.window, *argument)
        return image

    return encode


def stored_hu(hu: Tensor, window: str) -> Tensor:
    """The encoding ``hu``: stored HU (B, H, W) as one float channel, whatever the window will be."""
    return hu.float()[:, None]


def channels(hu: Tensor, window: str) -> Tensor:
    """Three channels in [0, 1] of Hounsfield units (B, 1, H, W): one view thrice, or the window's three views."""
    views = [equalised(hu) if view == EQUALISED else windowed(hu, *view) for view in WINDOWS[window].views]
    return views[0].expand(-1, 3, -1, -1) if len(views) == 1 else torch.cat(views, dim=1)


def equalised(hu: Tensor) -> Tensor:
    """Histogram-equalised slices, (B, 1, H, W) -> the same shape in (0, 1].

    Each slice by itself over ``EQUALISE_BINS`` bins between its own extremes; a pixel takes the cumulative share at its
    bin, interpolated linearly between bin centres.
    """
    flat = hu.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    position = (flat - low) * EQUALISE_BINS / (high - low).clamp(min=1)  # times first: whole HU find their bin exactly
    bins = position.long().clamp(max=EQUALISE_BINS - 1)
    counts = torch.zeros(len(flat), EQUALISE_BINS, device=hu.device).scatter_add_(1, bins, torch.ones_like(flat))
    share = counts.cumsum(1) / flat.shape[1]
    centred = (position - 0.5).clamp(0, EQUALISE_BINS - 1)
    below = centred.long()
    above = (below + 1).clamp(max=EQUALISE_BINS - 1)
    at_below, at_above = share.gather(1, below), share.gather(1, above)
    return (at_below + (at_above - at_below) * (centred - below)).view_as(hu)


def normalise(image: Tensor) -> Tensor:
    """The one normaliser of all arms: channels in [0, 1] to [-1, 1]."""
    return (image - MEAN) / SD


def denormalise(image: Tensor) -> Tensor:
    """What a network gets as channels in [0, 1] again, for people to look at."""
    return image * SD + MEAN
