"""Tumors as lesions: which are found, which are made up, how large they are, how much of the liver they take.

A lesion is a 6-connected component of label 2 in one case's volume. Lesions are matched as the LiTS scorer does
(``matching``); an object whose IoU with its predictions exceeds 0.5 is detected. Unlike that scorer, whose running
count mixes merged and single lesions, ``lesions_detected`` counts every reference lesion of a detected object, and
``lesions_false`` counts the predicted lesions that belong to none.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from litsexp.evaluation.matching import Counts, Matching, match
from litsexp.spec.claim import CONTRAST_BINS, SIZE_BINS

Labels = NDArray[np.uint8]

TUMOR = 2


def score_lesions(
    truth: Labels,
    prediction: Labels,
    spacing_mm: Sequence[float],
    z: NDArray[np.integer] | None = None,
    matched: Matching | None = None,
) -> dict[str, float | int]:
    """Lesion counts and tumor burden of one case; which lesions exist never depends on the spacing.

    Args:
        truth: (slices, height, width), labels 0 background, 1 liver, 2 tumor; ``prediction`` the same.
        spacing_mm: voxel size (z, y, x) of these arrays in mm; NaN where unknown.
        z: (slices,), slice numbers, ascending; lesions do not connect across a missing one. Default: none is missing.
        matched: the lesions' matching, where it is known already.

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
    lesions = matched or match(truth == TUMOR, prediction == TUMOR, z)
    detected = lesions.references(lesions.hit)
    return {
        "lesions_true": len(lesions.true_voxels),
        "lesions_predicted": len(lesions.predicted_voxels),
        "lesions_detected": int(detected.sum()),
        "lesions_false": int((~lesions.predictions(lesions.hit)).sum()),
        **_size_bins("lesions_true", lesions.true_voxels, spacing_mm),
        **_size_bins("lesions_detected", lesions.true_voxels[detected], spacing_mm),
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


def _size_bins(name: str, voxels: Counts, spacing_mm: Sequence[float]) -> dict[str, float | int]:
    """How many lesions of so many voxels fall into each of ``SIZE_BINS``; NaN where a spacing is unknown."""
    if any(math.isnan(mm) for mm in spacing_mm):
        return {f"{name}_{size}": math.nan for size in SIZE_BINS}
    return _bins(name, sphere_diameter_mm(voxels, spacing_mm), (10, 20), SIZE_BINS)


def contrast_bins(name: str, contrast_hu: NDArray[np.float64]) -> dict[str, float | int]:
    """How many lesions fall into each of ``CONTRAST_BINS``, bright ones as dark ones; NaN where any is unknown."""
    if np.isnan(contrast_hu).any():
        return {f"{name}_{contrast}": math.nan for contrast in CONTRAST_BINS}
    return _bins(name, np.abs(contrast_hu), (20, 40), CONTRAST_BINS)


def _bins(
    name: str, values: NDArray[np.float64], edges: tuple[float, float], names: Sequence[str]
) -> dict[str, float | int]:
    """How many values are below, between and above two edges, which belong to the middle."""
    low, high = int((values < edges[0]).sum()), int((values > edges[1]).sum())
    return {f"{name}_{size}": n for size, n in zip(names, (low, len(values) - low - high, high), strict=True)}
