"""Which true and predicted lesions belong together: the LiTS scorer's rule (PatrickChrist/LiTS-CHALLENGE).

A reference lesion joins the prediction that overlaps it most, so that references bridged by one prediction are one
object; each prediction joins the object that it overlaps most. Of equals the first in scan order (z, y, x) is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.sparse import csr_array

Counts = NDArray[np.int64]
Box = tuple[slice, slice, slice]

SIX_CONNECTED = ndimage.generate_binary_structure(3, 1)


@dataclass(frozen=True, eq=False)
class Matching:
    """Lesions of one case and their objects; an object is called by the prediction that its references joined."""

    reference: NDArray[np.int32]  # (slices, height, width) of the box of both: lesions of the truth, from 1
    found: NDArray[np.int32]  # the same box: lesions of the prediction, from 1
    true_voxels: Counts  # (references,)
    predicted_voxels: Counts  # (predictions,)
    shared: csr_array  # references x predictions, voxels
    joins: csr_array  # references x objects, a 1 where it belongs
    members: csr_array  # objects x predictions, the same
    common: Counts  # (objects,), voxels of its references that its predictions hold
    union: Counts  # (objects,)

    @property
    def hit(self) -> NDArray[np.bool_]:
        """(objects,), detected: IoU > 0.5."""
        return 2 * self.common > self.union

    @property
    def touched(self) -> NDArray[np.bool_]:
        """(objects,), detected at IoU > 0."""
        return self.common > 0

    def references(self, objects: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(references,), those of these objects."""
        return np.asarray(self.joins @ objects > 0)

    def predictions(self, objects: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(predictions,), those of these objects."""
        return np.asarray(self.members.T @ objects > 0)


def match(truth: NDArray[np.bool_], prediction: NDArray[np.bool_], z: NDArray[np.integer] | None = None) -> Matching:
    """Number the lesions of two masks (slices, height, width) and match them.

    Lesions are 6-connected, and do not connect across a missing one of the slice numbers ``z``, which ascend.
    """
    (reference, n_true), (found, n_predicted) = _separate(truth, prediction, z)
    true_voxels, predicted_voxels = (
        np.bincount(lesions[lesions > 0], minlength=number + 1)[1:]
        for lesions, number in ((reference, n_true), (found, n_predicted))
    )
    overlapping = (reference > 0) & (found > 0)
    pairs = (reference[overlapping] - 1, found[overlapping] - 1)
    shape = (len(true_voxels), len(predicted_voxels))
    shared = csr_array((np.ones(len(pairs[0]), np.int64), pairs), shape)  # voxels; sparse: noise has many components
    shared.sum_duplicates()
    joins = largest(shared)
    of_object = joins.T @ shared  # objects x predictions
    members = largest(of_object.T).T
    common = of_object.multiply(members).sum(axis=1)
    union = joins.T @ true_voxels + members @ predicted_voxels - common
    return Matching(reference, found, true_voxels, predicted_voxels, shared, joins, members, common, union)


def largest(shared: csr_array) -> csr_array:
    """A 1 in each row at its largest number, the first in a tie; an empty row stays empty."""
    table = shared.tocoo()
    row, column = table.row, table.col
    order = np.lexsort((-column, table.data, row))  # the last of each row is its largest
    chosen = order[np.flatnonzero(np.diff(row[order], append=-1))]
    return csr_array((np.ones(len(chosen), np.int64), (row[chosen], column[chosen])), shared.shape)


def box_of(mask: NDArray[np.bool_ | np.uint8]) -> Box:
    """The smallest box around all that is set; an empty one where nothing is. Far faster than ``find_objects``."""
    slices = _reach(mask.any(axis=(1, 2)))
    flat = np.asarray(mask[slices].any(axis=0))
    return slices, _reach(flat.any(axis=1)), _reach(flat.any(axis=0))


def _reach(line: ArrayLike) -> slice:
    """From the first to the last that is set."""
    where = np.flatnonzero(line)
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 0)


def _separate(
    truth: NDArray[np.bool_], prediction: NDArray[np.bool_], z: NDArray[np.integer] | None
) -> tuple[tuple[NDArray[np.int32], int], tuple[NDArray[np.int32], int]]:
    """The lesions of both masks from 1, inside the box that holds them all, and how many; an empty slice fills gaps."""
    box = box_of(truth | prediction)
    numbers = np.arange(len(truth)) if z is None else z
    gaps = np.flatnonzero(np.diff(numbers[box[0]]) > 1) + 1
    reference, found = truth[box], prediction[box]
    if len(gaps):
        reference, found = (np.insert(mask, gaps, False, axis=0) for mask in (reference, found))
    return ndimage.label(reference, SIX_CONNECTED), ndimage.label(found, SIX_CONNECTED)
