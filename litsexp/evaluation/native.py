"""The way back from a network's slices to a volume's own pixels: probabilities resampled, then the likeliest label.

Probabilities go back as a store's slices came: linear between pixel centres where the store is coarser, area means
where it is finer (``data.store.resize``), so that a border falls between stored pixels where the probabilities put it.
"""

import numpy as np
from numpy.typing import NDArray

from litsexp.data.ct.volume import flipped
from litsexp.data.store.resize import resize_weights, unsquared

CERTAIN = 0.5  # background above it beats every other label, and so does a weighted mean of such pixels


class WayBack:
    """From slices of ``size`` pixels, upright and square, to planes (row, column) in stored direction of one volume."""

    def __init__(self, plane: tuple[int, int], flips: tuple[bool, bool], size: int):
        self.plane, self.flips = plane, flips
        weights = resize_weights(size, max(plane))
        self.weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)  # (side, size)

    def labels(self, probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Labels (n, row, column) of probabilities (n, 3, size, size).

        Only the box of pixels that are not certainly background is resampled: cost follows what was found.
        """
        stored = flipped(probabilities, self.flips)
        side = len(self.weights)
        squares = np.zeros((len(stored), side, side), np.uint8)
        for square, one in zip(squares, stored, strict=True):
            open_ = one[0] <= CERTAIN
            if open_.any():
                (rows, above), (columns, left) = self._reach(open_.any(axis=1)), self._reach(open_.any(axis=0))
                near = self.weights[rows, above] @ one[:, above, left] @ self.weights[columns, left].T
                square[rows, columns] = near.argmax(axis=0)
        return unsquared(squares, self.plane, self.flips)

    def _reach(self, line: NDArray[np.bool_]) -> tuple[slice, slice]:
        """The pixels of a plane that these stored pixels influence, and the stored pixels that those need."""
        pixels = _span(self.weights[:, _span(line)].any(axis=1))
        return pixels, _span(self.weights[pixels].any(axis=0))


def _span(line: NDArray[np.bool_]) -> slice:
    """From the first to the last that is set; one is."""
    where = np.flatnonzero(line)
    return slice(int(where[0]), int(where[-1]) + 1)
