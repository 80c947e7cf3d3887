"""Tumors as lesions: which are found, which are made up, how large they are, how much of the liver they take.

A lesion is a 6-connected component of label 2 in one case's volume. The detection rule is the LiTS scorer's
(PatrickChrist/LiTS-CHALLENGE, ``metrics.detect_lesions``): a reference lesion joins the prediction that overlaps it
most, so that references bridged by one prediction count as one object; each prediction joins the object that it
overlaps most; an object whose IoU with its predictions exceeds 0.5 is detected. Unlike that scorer, whose running
count mixes merged and single lesions, ``lesions_detected`` counts every reference lesion of a detected object, and
``lesions_false`` counts the predicted lesions that belong to none.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.sparse import csr_array

from litsexp.spec.claim import SIZE_BINS

Labels = NDArray[np.uint8]
Counts = NDArray[np.int64]

TUMOR = 2
SIX_CONNECTED = ndimage.generate_binary_structure(3, 1)


def score_lesions(
    truth: Labels, prediction: Labels, spacing_mm: Sequence[float], z: NDArray[np.integer] | None = None
) -> dict[str, float | int]:
    """Lesion counts and tumor burden of one case; which lesions exist never depends on the spacing.

    Args:
        truth: (slices, height, width), labels 0 background, 1 liver, 2 tumor; ``prediction`` the same.
        spacing_mm: voxel size (z, y, x) of these arrays in mm; NaN where unknown.
        z: (slices,), slice numbers, ascending; lesions do not connect across a missing one. Default: none is missing.

    Returns:
        ``lesions_true``, ``lesions_predicted``, ``lesions_detected`` (of the true ones), ``lesions_false`` (of the
        predicted ones); the true and detected ones in each of ``SIZE_BINS`` of the true lesion's diameter, as
        ``lesions_true_lt10mm``, all six NaN where a spacing is NaN; ``burden_true`` and ``burden_predicted`` =
        tumor / liver voxels (liver: label >= 1) of one mask, NaN where that mask has no liver.
        Counts are zero, never NaN, where there is no lesion.

    Raises:
        ValueError: shapes that differ, a label above 2, slice numbers that do not ascend, a spacing not above 0.
    """
    _check(truth, prediction, spacing_mm, z)
    reference, found = _separate(truth == TUMOR, prediction == TUMOR, z)
    true_voxels, predicted_voxels = (np.bincount(lesions.ravel(), minlength=1)[1:] for lesions in (reference, found))
    detected, matched = _match(reference, found, true_voxels, predicted_voxels)
    return {
        "lesions_true": len(true_voxels),
        "lesions_predicted": len(predicted_voxels),
        "lesions_detected": int(detected.sum()),
        "lesions_false": int((~matched).sum()),
        **_size_bins("lesions_true", true_voxels, spacing_mm),
        **_size_bins("lesions_detected", true_voxels[detected], spacing_mm),
        "burden_true": tumor_burden(truth),
        "burden_predicted": tumor_burden(prediction),
    }


def tumor_burden(labels: Labels) -> float:
    """Tumor voxels / liver voxels (label >= 1, as LiTS counts), in [0, 1]; NaN where there is no liver."""
    liver = int(np.count_nonzero(labels))
    return int(np.count_nonzero(labels == TUMOR)) / liver if liver else math.nan


def sphere_diameter_mm(voxels: Counts, spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Diameter in mm of the sphere with the volume of so many voxels; NaN where the spacing is."""
    diameter: NDArray[np.float64] = np.cbrt(6 / np.pi * voxels * math.prod(spacing_mm))
    return diameter


def _check(truth: Labels, prediction: Labels, spacing_mm: Sequence[float], z: NDArray[np.integer] | None) -> None:
    if truth.ndim != 3 or truth.shape != prediction.shape:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape}; expected one (slices, height, width)")
    if truth.size and max(truth.max(), prediction.max()) > TUMOR:
        raise ValueError(f"labels up to {max(truth.max(), prediction.max())}; expected 0, 1, 2")
    if len(spacing_mm) != 3 or any(mm <= 0 for mm in spacing_mm):
        raise ValueError(f"spacing_mm = {tuple(spacing_mm)}; expected (z, y, x) above 0, or NaN where unknown")
    if z is not None and (z.shape != truth.shape[:1] or (np.diff(z) <= 0).any()):
        raise ValueError(f"z {z.shape} for {len(truth)} slices; expected one slice number a slice, ascending")


def _separate(
    truth: NDArray[np.bool_], prediction: NDArray[np.bool_], z: NDArray[np.integer] | None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Number the lesions of both masks from 1, inside the box that holds them all; an empty slice fills each gap."""
    box = _box(truth | prediction)
    numbers = np.arange(len(truth)) if z is None else z
    gaps = np.flatnonzero(np.diff(numbers[box[0]]) > 1) + 1
    reference, found = (np.insert(mask[box], gaps, False, axis=0) for mask in (truth, prediction))
    return ndimage.label(reference, SIX_CONNECTED)[0], ndimage.label(found, SIX_CONNECTED)[0]


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The smallest box around all that is set; an empty one where nothing is. Far faster than ``find_objects``."""
    slices = _reach(mask.any(axis=(1, 2)))
    flat = np.asarray(mask[slices].any(axis=0))
    return slices, _reach(flat.any(axis=1)), _reach(flat.any(axis=0))


def _reach(line: ArrayLike) -> slice:
    """From the first to the last that is set."""
    where = np.flatnonzero(line)
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 0)


def _match(
    reference: NDArray[np.int32], found: NDArray[np.int32], true_voxels: Counts, predicted_voxels: Counts
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which references are detected and which predictions detect; an object is called by the prediction it joined."""
    overlapping = (reference > 0) & (found > 0)
    pairs = (reference[overlapping] - 1, found[overlapping] - 1)
    shape = (len(true_voxels), len(predicted_voxels))
    shared = csr_array((np.ones(len(pairs[0]), np.int64), pairs), shape)  # voxels; sparse: noise has many components
    joins = _largest(shared)  # references x objects
    of_object = joins.T @ shared  # objects x predictions
    members = _largest(of_object.T).T  # objects x predictions
    common = of_object.multiply(members).sum(axis=1)
    union = joins.T @ true_voxels + members @ predicted_voxels - common
    hit = 2 * common > union  # IoU > 0.5 in integers
    return joins @ hit > 0, members.T @ hit > 0


def _largest(shared: csr_array) -> csr_array:
    """A 1 in each row at its largest number, the first in a tie; an empty row stays empty."""
    table = shared.tocoo()
    row, column = table.row, table.col
    order = np.lexsort((-column, table.data, row))  # the last of each row is its largest
    chosen = order[np.flatnonzero(np.diff(row[order], append=-1))]
    return csr_array((np.ones(len(chosen), np.int64), (row[chosen], column[chosen])), shared.shape)


def _size_bins(name: str, voxels: Counts, spacing_mm: Sequence[float]) -> dict[str, float | int]:
    """How many lesions of so many voxels fall into each of ``SIZE_BINS``; NaN where a spacing is unknown."""
    if any(math.isnan(mm) for mm in spacing_mm):
        return {f"{name}_{size}": math.nan for size in SIZE_BINS}
    diameter = sphere_diameter_mm(voxels, spacing_mm)
    small, large = int((diameter < 10).sum()), int((diameter > 20).sum())
    return {f"{name}_{size}": n for size, n in zip(SIZE_BINS, (small, len(voxels) - small - large, large), strict=True)}
