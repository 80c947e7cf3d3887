"""Prediction by trained networks: labels of a store's slices, or of a whole volume at its own resolution."""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from litsexp.data.store import Store
from litsexp.evaluation.native import WayBack
from litsexp.spec.run import RunConfig
from litsexp.training.architectures import build_network
from litsexp.training.inputs import Inputs
from litsexp.training.loaders import EvalLoader, Slices
from litsexp.training.machine import MixedPrecision, default_device, repeatable


def predict(run: RunConfig, weights: Mapping[str, Tensor], store: Store, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Labels (rows, size, size) of these rows of the store, in this order.

    Args:
        run: the arm that was trained: architecture, input and precision.
        weights: of its network, as training kept them.
        store: slices of the size that it was trained on; of its own cohort or of another.
        rows: of the store.
    """
    device = default_device()
    with repeatable(), torch.inference_mode():
        model = _model(run, weights, store.size, device)
        parts = [labels_of(model(image)) for image, _ in EvalLoader(Slices(store, device), rows, run)]
    return np.concatenate(parts) if parts else np.empty((0, store.size, store.size), np.uint8)


def labels_of(logits: Tensor) -> NDArray[np.uint8]:
    """The likeliest label of each pixel of logits (B, 3, H, W)."""
    labels: NDArray[np.uint8] = logits.argmax(1).to(torch.uint8).cpu().numpy()
    return labels


@dataclass(frozen=True, eq=False)
class Member:
    """A trained network: the arm, its weights, and the pixels a side that it was trained on."""

    run: RunConfig
    weights: Mapping[str, Tensor]
    size: int


class Predictor:
    """Whole volumes labeled by one trained network, or by several of one size whose probabilities are averaged.

    A volume's slices are batched by themselves, in the first member's batches: the labels of a volume depend on nothing
    that is labeled beside it.
    """

    def __init__(self, members: Sequence[Member]):
        self.size, self.batch_size = members[0].size, members[0].run.batch_size
        if any(member.size != self.size for member in members):
            raise ValueError(f"networks for {sorted({m.size for m in members})} px; expected one size")
        self.device = default_device()
        with repeatable():
            self.members = [(Inputs(m.run), _model(m.run, m.weights, m.size, self.device)) for m in members]

    def label(self, hu: NDArray[np.int16], back: WayBack, among: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Labels (z, row, column) in stored direction of every slice (z, size, size) as a store has it, in HU.

        ``among``: the numbers of the members that are asked; default: all.
        """
        asked = self.members if among is None else [self.members[number] for number in among]
        labels = np.empty((len(hu), *back.plane), np.uint8)
        for start in range(0, len(hu), self.batch_size):
            batch = np.array(hu[start : start + self.batch_size])
            labels[start : start + len(batch)] = back.labels(self._mean(torch.from_numpy(batch), asked))
        return labels

    def _mean(self, hu: Tensor, asked: Sequence[tuple[Inputs, MixedPrecision]]) -> NDArray[np.float32]:
        """Probabilities (B, 3, size, size), the mean over the members."""
        hu = hu.to(self.device)
        unlabeled = torch.zeros_like(hu, dtype=torch.uint8)
        with repeatable(), torch.inference_mode():
            total = sum(model(inputs(hu, unlabeled)[0]).softmax(1) for inputs, model in asked)
            mean: NDArray[np.float32] = torch.as_tensor(total / len(asked)).cpu().numpy()
        return mean


def _model(run: RunConfig, weights: Mapping[str, Tensor], size: int, device: torch.device) -> MixedPrecision:
    """The trained network, ready to predict."""
    if device.type == "cuda":
        gc.collect()  # a learner that has done its work holds itself in cycles, and a GPU's memory with it
    network, _ = build_network(run, size, seed=0, initialise=False)
    network.load_state_dict(weights)
    return MixedPrecision(network, run, device).eval()
