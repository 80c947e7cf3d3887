"""Prediction: labels of a store's slices by a network with given weights."""

import gc
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from litsexp.data.store import Store
from litsexp.spec.run import RunConfig
from litsexp.training.architectures import build_network
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
    if device.type == "cuda":
        gc.collect()  # a learner that has done its work holds itself in cycles, and a GPU's memory with it
    with repeatable():
        network, _ = build_network(run, store.size, seed=0, initialise=False)
        network.load_state_dict(weights)
        model = MixedPrecision(network, run, device).eval()
        with torch.inference_mode():
            parts = [labels_of(model(image)) for image, _ in EvalLoader(Slices(store, device), rows, run)]
    return np.concatenate(parts) if parts else np.empty((0, store.size, store.size), np.uint8)


def labels_of(logits: Tensor) -> NDArray[np.uint8]:
    """The likeliest label of each pixel of logits (B, 3, H, W)."""
    labels: NDArray[np.uint8] = logits.argmax(1).to(torch.uint8).cpu().numpy()
    return labels
