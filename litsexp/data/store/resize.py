"""Slices made square and resized, to the same bytes on every processor: area averages to shrink, linear to enlarge.

All sums are sums of whole numbers that are exact in the type they are made in, so no result depends on the processor,
its libraries or their order of summation.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_T = TypeVar("_T", bound=np.generic)
_MOST_FACTOR = 8  # of a shrink by a whole number whose sums of int16 HU stay in int16


def squared(plane: NDArray[_T], fill: int, flips: tuple[bool, bool] = (False, False)) -> NDArray[_T]:
    """A plane (row, column) with a margin of ``fill`` that makes it square; itself where it is.

    Half of the margin lies on each side, the odd pixel last; first along an axis that will be flipped (``flips``).
    """
    side = max(plane.shape)
    if plane.shape == (side, side):
        return plane
    return np.pad(plane, _margins(plane.shape, flips), constant_values=fill)


def unsquared(squares: NDArray[_T], shape: tuple[int, int], flips: tuple[bool, bool] = (False, False)) -> NDArray[_T]:
    """The planes of this shape (row, column) that ``squared`` made these (..., side, side) of, a view."""
    (top, _), (left, _) = _margins(shape, flips)
    return squares[..., top : top + shape[0], left : left + shape[1]]


def _margins(shape: tuple[int, ...], flips: tuple[bool, bool]) -> list[tuple[int, int]]:
    """Before and after each axis, what makes it as long as the longest."""
    side = max(shape)
    halves = [((side - n) // 2, side - n - (side - n) // 2) for n in shape]
    return [half[::-1] if flipped else half for half, flipped in zip(halves, flips, strict=True)]


def resize_weights(size_in: int, size_out: int) -> NDArray[np.float64]:
    """Weights (size_out, size_in) of a resize along one axis: whole numbers, every row with the same sum.

    Shrinking is exact area averaging: the overlap of output and input pixels, in units of 1/size_out input pixel.
    Enlarging is linear between pixel centres.
    """
    output, input_ = np.arange(size_out)[:, None], np.arange(size_in)[None, :]
    if size_out <= size_in:
        left = np.maximum(output * size_in, input_ * size_out)
        right = np.minimum((output + 1) * size_in, (input_ + 1) * size_out)
        return np.asarray(np.maximum(right - left, 0), np.float64)
    center = np.clip((2 * output + 1) * size_in - size_out, 0, 2 * size_out * (size_in - 1))
    return np.asarray(np.maximum(2 * size_out - np.abs(center - 2 * size_out * input_), 0), np.float64)


class Resize:
    """A resize of square images (..., side, side) to (..., size, size), its weights computed once."""

    def __init__(self, side: int, size: int):
        self.side, self.size = side, size
        self.factor = side // size if side % size == 0 and side // size <= _MOST_FACTOR else 0  # 0: not by blocks
        if self.factor:
            self.area = float(self.factor**2)
        else:
            self._weights = resize_weights(side, size)
            self._rows = self._weights.astype(np.float32)  # sums up to 3071 * 4096 < 2**24 are exact
            self.area = float(self._weights[0].sum() ** 2)

    def hu(self, images: NDArray[np.int16]) -> NDArray[np.int16]:
        """Weighted means of HU, rounded half to even."""
        return np.rint(self.sums(images) / self.area).astype(np.int16)

    def labels(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Of labels 0, 1, 2 the one with the largest area.

        Ties go to the higher label, so that a tumor pixel is lost only where another label really covers more of it.
        """
        result = np.zeros((*labels.shape[:-2], self.size, self.size), np.uint8)
        rows, columns = self._box(labels)
        part = labels
        if k := self.factor:
            part = labels[..., k * rows.start : k * rows.stop, k * columns.start : k * columns.stop]
        tumor = self.sums((part == 2).view(np.uint8))
        foreground = self.sums((part != 0).view(np.uint8))
        background, liver = self.area - foreground, foreground - tumor
        chosen = (liver >= background).view(np.uint8)
        chosen[tumor >= np.maximum(liver, background)] = 2
        result[..., rows, columns] = chosen
        return result

    def _box(self, labels: NDArray[np.uint8]) -> tuple[slice, slice]:
        """Rows and columns of the result that can be other than background; all of them where blocks do not apply."""
        if not self.factor:
            return slice(0, self.size), slice(0, self.size)
        boxes = []
        for axis in (-1, -2):
            hit = np.flatnonzero(labels.max(axis=axis).reshape(-1, self.size, self.factor).any(axis=(0, 2)))
            boxes.append(slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 0))
        return boxes[0], boxes[1]

    def sums(self, images: NDArray[Any]) -> NDArray[Any]:
        """Weighted sums: whole numbers, ``area`` times the mean."""
        if not self.factor:
            return (self._rows @ images.astype(np.float32)).astype(np.float64) @ self._weights.T
        k, (*lead, height, width) = self.factor, images.shape
        rows = images.reshape(*lead, height // k, k, width)
        sums = rows[..., 0, :].copy()
        for i in range(1, k):
            sums += rows[..., i, :]
        blocks = sums.reshape(*lead, height // k, width // k, k)
        total = blocks[..., 0].astype(np.int32)
        for i in range(1, k):
            total += blocks[..., i]
        return total
