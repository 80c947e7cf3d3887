"""Resizing slices: area averages when shrinking, linear when enlarging, the same bytes on every processor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def resize_weights(size_in: int, size_out: int) -> NDArray[np.float64]:
    """Weights (size_out, size_in) of a resize along one axis: whole numbers, every row with the same sum.

    Shrinking is exact area averaging: the overlap of output and input pixels, in units of 1/size_out input pixel.
    Enlarging is linear between pixel centres. Whole numbers make every sum exact in float64, so results do not
    depend on the processor or its libraries.
    """
    output, input_ = np.arange(size_out)[:, None], np.arange(size_in)[None, :]
    if size_out <= size_in:
        left = np.maximum(output * size_in, input_ * size_out)
        right = np.minimum((output + 1) * size_in, (input_ + 1) * size_out)
        return np.asarray(np.maximum(right - left, 0), np.float64)
    center = np.clip((2 * output + 1) * size_in - size_out, 0, 2 * size_out * (size_in - 1))
    return np.asarray(np.maximum(2 * size_out - np.abs(center - 2 * size_out * input_), 0), np.float64)


def resize_hu(images: NDArray[np.int16], size: int) -> NDArray[np.int16]:
    """Square slices (n, side, side) in HU to (n, size, size): weighted means, rounded half to even."""
    weights = resize_weights(images.shape[-1], size)
    return np.asarray(np.rint(_weighted(images, weights) / weights[0].sum() ** 2), np.int16)


def resize_labels(labels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Square slices (n, side, side) of labels 0, 1, 2 to (n, size, size): the label with the largest area wins.

    Ties go to the higher label, so that a tumor pixel is lost only where another label really covers more of it.
    """
    weights = resize_weights(labels.shape[-1], size)
    liver, tumor = _weighted(labels == 1, weights), _weighted(labels == 2, weights)
    background = weights[0].sum() ** 2 - liver - tumor
    rest = np.where(liver >= background, 1, 0)
    return np.where(tumor >= np.maximum(liver, background), 2, rest).astype(np.uint8)


def _weighted(images: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = weights @ images.astype(np.float64) @ weights.T
    return result
