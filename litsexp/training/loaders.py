"""Loaders: which rows of the store make a batch, in which order, read as whole batches.

There are no worker processes and no per-slice Python: a batch is one gather from the memory-mapped store, or from what
is kept of it in a costly encoding, and ``inputs`` turns it into what the network sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from litsexp.data.rows import learning_rows
from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.catalog import ENCODINGS
from litsexp.spec.run import RunConfig
from litsexp.training.inputs import Inputs
from litsexp.training.kept import kept_images


class Slices:
    """The store's slices as batches of tensors: (B, H, W) int16 Hounsfield units and uint8 labels on the device.

    On a GPU with room for them, all of them are copied there once, at the first read; else batches are gathered from
    the mapped file.
    """

    def __init__(self, store: Store, device: torch.device, images: NDArray[np.generic] | None = None):
        self.store, self.device = store, device
        self.images = store.hu if images is None else images
        self._kept: dict[tuple[str, str], Slices] = {}

    def seen_by(self, run: RunConfig) -> Slices:
        """These slices as the arm's encoding makes them, uint8 (B, C, H, W), if that is kept; else these."""
        if not ENCODINGS.of(run.encoding).kept:
            return self
        seen = (run.encoding, run.window)
        if seen not in self._kept:
            self._kept[seen] = Slices(self.store, self.device, kept_images(self.store, run))
        return self._kept[seen]

    def read(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Hounsfield units, or the kept encoding, and labels of these rows of the store, in this order."""
        if self._resident is not None:
            index = torch.from_numpy(rows).to(self.device)
            return self._resident[0][index], self._resident[1][index]
        images, labels = torch.from_numpy(self.images[rows]), torch.from_numpy(self.store.labels[rows])
        return images.to(self.device), labels.to(self.device)

    @cached_property
    def _resident(self) -> tuple[Tensor, Tensor] | None:
        """Images and labels on a GPU that has room for them."""
        if self.device.type != "cuda":
            return None
        free_bytes, _ = torch.cuda.mem_get_info(self.device)
        if self.images.nbytes + self.store.labels.nbytes >= free_bytes / 4:
            return None
        images, labels = np.array(self.images), np.array(self.store.labels)
        return torch.from_numpy(images).to(self.device), torch.from_numpy(labels).to(self.device)


class EvalLoader:
    """Every row once and in order, without augmentation: ``(input, labels)`` batches."""

    n_inp = 1  # fastai asks: how many of a batch's tensors are input

    def __init__(self, slices: Slices, rows: NDArray[np.int64], run: RunConfig):
        self.slices, self.rows, self.run = slices.seen_by(run), rows, run
        self.device, self.inputs = slices.device, Inputs(run)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.run.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.rows), self.run.batch_size):
            yield self.inputs(*self.slices.read(self.rows[start : start + self.run.batch_size]))

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
            yield self.inputs(*self.slices.read(rows), generator)
        self.epoch += 1


def loaders_of(run: RunConfig, slices: Slices, split: Split, seed: int) -> tuple[TrainLoader, EvalLoader]:
    """An arm's training and validation slices; fewer training patients make as many steps an epoch as all of them."""
    train, valid = learning_rows(slices.store, split, run, seed)
    steps = run.steps_per_epoch or max(1, len(slices.store.rows_of(split.train)) // run.batch_size)
    return TrainLoader(slices, train, run, steps, seed), EvalLoader(slices, valid, run)
