"""One whole volume at its own resolution, scored: counts, metrics, lesions, and surfaces where they are asked for."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from litsexp.evaluation.cases import CaseMasks, boxed
from litsexp.evaluation.lesions import TUMOR, contrast_bins
from litsexp.evaluation.matching import SIX_CONNECTED, box_of
from litsexp.evaluation.metrics import STRUCTURES, score
from litsexp.evaluation.surfaces import surface_scores

LIVER = 1
MISSED = "surface_missed"  # _liver, _tumor: 1 where one of the two masks is empty, and its distances are the diagonal


def score_volume(
    case: CaseMasks, contrast_hu: NDArray[np.float64] | None = None, surface_mm: float | None = None
) -> dict[str, float | int]:
    """All scores of one volume; the same however the case was cut (``cases.boxed``), if it knows its ``whole`` shape.

    Args:
        case: all slices of a volume, or the part of it that holds the foreground of both masks.
        contrast_hu: (true lesions,), as ``lesion_contrasts`` gives them; None where there are no HU.
        surface_mm: NSD's tolerance in mm; None: no surfaces.

    Returns:
        ``case``, ``slices``, ``tp_liver`` ... ``tn_tumor`` (voxels), every metric, what ``lesions.score_lesions``
        gives; ``lesions_touched`` (true lesions detected at IoU > 0), ``lesions_false_any`` (predicted ones that belong
        to no object at IoU > 0); true and detected lesions in each of ``CONTRAST_BINS``, as ``lesions_true_lt20hu``,
        all six NaN where a contrast is unknown. With ``surface_mm``: ``assd_liver``, ``rmsd_``, ``msd_``, ``hd95_``,
        ``nsd_liver``, ``surface_missed_liver``, and so of the tumor: NaN where a spacing is unknown or both masks are
        empty; where one of them is, a miss, NSD is 0 and every distance the diagonal of the volume.

    Raises:
        ValueError: what ``score_lesions`` refuses, slices that are missing, contrasts of another number of lesions.
        LitsexpError: a registered metric fails, or gives no number.
    """
    cut = boxed(case)
    if (np.diff(cut.z) != 1).any():
        raise ValueError(f"z of case {case.case} leaves slices out; expected a whole volume")
    lesions, objects = cut.lesions, cut.matching
    detected, touched = (objects.references(which) for which in (objects.hit, objects.touched))
    if contrast_hu is None:
        contrast_hu = np.full(max(1, len(detected)), np.nan)
    elif len(contrast_hu) != len(detected):
        raise ValueError(f"{len(contrast_hu)} contrasts of {len(detected)} lesions of case {case.case}")
    known = contrast_hu if np.isnan(contrast_hu).any() else contrast_hu[detected]
    row: dict[str, float | int] = {
        "case": cut.case,
        "slices": cut.volume_shape[0],
        **cut.counts,
        **score(cut),
        **lesions,
        "lesions_touched": int(touched.sum()),
        "lesions_false_any": int((~objects.predictions(objects.touched)).sum()),
        **contrast_bins("lesions_true", contrast_hu),
        **contrast_bins("lesions_detected", known),
    }
    return row if surface_mm is None else row | _surfaces(cut, surface_mm)


def lesion_contrasts(truth: NDArray[np.uint8], hu: NDArray[np.int16]) -> NDArray[np.float64]:
    """(true lesions,): the liver's mean HU (label 1) minus each lesion's, positive where the lesion is darker.

    Lesions are 6-connected, in the order of ``scipy.ndimage.label``. Both arrays are (slices, height, width) of one
    shape, cut to the truth's box or not. NaN where no voxel has label 1. ValueError: shapes that differ.
    """
    if truth.shape != hu.shape:
        raise ValueError(f"truth {truth.shape} and HU {hu.shape} differ; expected one shape")
    box = box_of(truth == TUMOR)
    lesions, number = ndimage.label(truth[box] == TUMOR, SIX_CONNECTED)
    inside = lesions > 0
    sums = np.bincount(lesions[inside], hu[box][inside], minlength=number + 1)[1:]  # whole numbers: exact
    voxels = np.bincount(lesions[inside], minlength=number + 1)[1:]
    liver = hu[truth == LIVER]
    mean_hu = int(liver.sum(dtype=np.int64)) / liver.size if liver.size else math.nan
    contrasts: NDArray[np.float64] = mean_hu - sums / voxels
    return contrasts


def _surfaces(case: CaseMasks, tolerance_mm: float) -> dict[str, float | int]:
    """Each structure's surface scores, and whether one of its masks is empty."""
    diagonal_mm = math.hypot(*(n * mm for n, mm in zip(case.volume_shape, case.spacing_mm, strict=True)))
    row: dict[str, float | int] = {}
    for name, first in STRUCTURES.items():
        truth, prediction = case.truth >= first, case.prediction >= first
        scores = surface_scores(truth, prediction, case.spacing_mm, tolerance_mm, diagonal_mm)
        row |= {f"{score}_{name}": value for score, value in scores.items()}
        row[f"{MISSED}_{name}"] = int(truth.any() != prediction.any())
    return row
