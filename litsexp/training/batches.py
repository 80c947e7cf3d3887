"""Loaders that read whole batches of Hounsfield units from the store and turn them into model input on the device.

There are no worker processes and no per-slice Python: a batch is one gather from the memory-mapped store, and window,
augmentation and normalisation act on the batch. The normaliser is one for every arm, whatever the encoder's weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from litsexp.data.ct.windows import EQUALISE_BINS, NOTEBOOK_WINDOWS, WINDOWS
from litsexp.data.store import Store
from litsexp.spec.run import RunConfig
from litsexp.training import augment

MEAN = SD = 0.5  # of channels in [0, 1]: the normalisation that tf_efficientnet_lite0 was trained with


class Slices:
    """The store's slices as batches of tensors: (B, H, W) int16 Hounsfield units and uint8 labels on the device.

    On a GPU with room for them, the whole store is copied there once; else batches are gathered from the mapped file.
    """

    def __init__(self, store: Store, device: torch.device):
        self.store, self.device = store, device
        self._resident: tuple[Tensor, Tensor] | None = None
        if device.type == "cuda":
            free_bytes, _ = torch.cuda.mem_get_info(device)
            if store.hu.nbytes + store.labels.nbytes < free_bytes / 4:
                hu, labels = np.array(store.hu), np.array(store.labels)
                self._resident = torch.from_numpy(hu).to(device), torch.from_numpy(labels).to(device)

    def read(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Hounsfield units and labels of these rows of the store, in this order."""
        if self._resident is not None:
            index = torch.from_numpy(rows).to(self.device)
            return self._resident[0][index], self._resident[1][index]
        hu, labels = torch.from_numpy(self.store.hu[rows]), torch.from_numpy(self.store.labels[rows])
        return hu.to(self.device), labels.to(self.device)


class EvalLoader:
    """Every row once and in order, without augmentation: ``(input, labels)`` batches."""

    n_inp = 1  # fastai asks: how many of a batch's tensors are input

    def __init__(self, slices: Slices, rows: NDArray[np.int64], run: RunConfig):
        self.slices, self.rows, self.run = slices, rows, run
        self.device = slices.device

    def __len__(self) -> int:
        return -(-len(self.rows) // self.run.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.rows), self.run.batch_size):
            hu, labels = self.slices.read(self.rows[start : start + self.run.batch_size])
            yield normalise(channels(hu.float()[:, None], self.run.window)), labels.long()

    def to(self, device: torch.device) -> EvalLoader:
        """fastai moves loaders to its device; the slices are on theirs from the start."""
        return self


class TrainLoader(EvalLoader):
    """``steps`` full batches an epoch, shuffled and augmented from the seed and the epoch's number alone.

    The order depends on nothing that an arm changes. Rows are drawn without replacement until all were seen, then
    again: with fewer training patients the epoch keeps its number of optimiser steps.
    """

    def __init__(self, slices: Slices, rows: NDArray[np.int64], run: RunConfig, steps: int, seed: int):
        super().__init__(slices, rows, run)
        self.steps, self.seed, self.epoch = steps, seed, 0
        self.batch_size = min(run.batch_size, len(rows))

    def __len__(self) -> int:
        return self.steps

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Rows of the store in the order of this epoch, (steps, batch_size)."""
        rng = np.random.default_rng([self.seed, epoch])
        wanted = self.steps * self.batch_size
        rounds = [rng.permutation(self.rows) for _ in range(-(-wanted // len(self.rows)))]
        return np.concatenate(rounds)[:wanted].reshape(self.steps, self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        for rows in self.order(self.epoch):
            yield self._batch(rows, generator)
        self.epoch += 1

    def _batch(self, rows: NDArray[np.int64], generator: Generator) -> tuple[Tensor, Tensor]:
        hu, labels = self.slices.read(rows)
        image = hu.float()[:, None]
        if self.run.augment == "paper":
            image, labels = augment.move(image, labels, generator)
            return normalise(augment.jitter(channels(image, self.run.window), generator)), labels.long()
        return normalise(channels(image, self.run.window)), labels.long()


def channels(hu: Tensor, window: str) -> Tensor:
    """Three channels in [0, 1] of Hounsfield units (B, 1, H, W): one window thrice, or the notebook's three views."""
    if window != "notebook":
        return windowed(hu, window).expand(-1, 3, -1, -1)
    return torch.cat([*(windowed(hu, name) for name in NOTEBOOK_WINDOWS), equalised(hu)], dim=1)


def windowed(hu: Tensor, window: str) -> Tensor:
    """Hounsfield units through a (width, level) window, clipped to [0, 1]."""
    width_hu, level_hu = WINDOWS[window]
    return ((hu - (level_hu - width_hu / 2)) / width_hu).clamp(0, 1)


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
