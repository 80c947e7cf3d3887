"""Overlap and surfaces of an object: a prediction's references merged, against all predictions that joined them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from litsexp.evaluation.matching import Matching
from litsexp.evaluation.surfaces import lits_distances

Scores = Mapping[str, float]
Member = tuple[tuple[int, ...], tuple[int, ...]]  # lesions from 0: an object's references, and its predictions

OVERLAP, DISTANCES = ("dice", "jaccard", "voe", "rvd"), ("assd", "rmsd", "msd")


def overlap(tp: int, fp: int, fn: int) -> dict[str, float]:
    """Dice, Jaccard, VOE = 1 - Jaccard, RVD = (prediction - reference) / reference; NaN where undefined."""
    union, reference = tp + fp + fn, tp + fn
    jaccard = tp / union if union else math.nan
    return {
        "dice": 2 * tp / (union + tp) if union else math.nan,
        "jaccard": jaccard,
        "voe": 1 - jaccard,
        "rvd": (fp - fn) / reference if reference else math.nan,
    }


class ObjectScores:
    """Overlap, and with a voxel size distances, of an object's references merged against its predictions together."""

    def __init__(self, matching: Matching, spacing_mm: Sequence[float] | None):
        self.lesions = (matching.reference, matching.found)
        self.spacing_mm = spacing_mm
        self.known: dict[Member, dict[str, float]] = {}

    @cached_property
    def boxes(self) -> tuple[list[tuple[slice, ...]], ...]:
        """Of each lesion, of the truth and of the prediction."""
        return tuple(ndimage.find_objects(lesions) for lesions in self.lesions)

    def of(self, member: Member) -> dict[str, float]:
        """The scores of one object, computed once."""
        if member not in self.known:
            boxes = [self.boxes[side][number] for side in (0, 1) for number in member[side]]
            box = tuple(
                slice(min(one[axis].start for one in boxes), max(one[axis].stop for one in boxes)) for axis in range(3)
            )
            masks = [
                np.isin(lesions[box], np.add(numbers, 1)) for lesions, numbers in zip(self.lesions, member, strict=True)
            ]
            tp, fp, fn = _voxels(masks[0], masks[1])
            self.known[member] = overlap(tp, fp, fn)
            if self.spacing_mm is not None:
                self.known[member] |= lits_distances(masks[0], masks[1], self.spacing_mm)
        return self.known[member]


def _voxels(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> tuple[int, int, int]:
    """True positive, false positive and false negative voxels."""
    tp = int(np.count_nonzero(truth & prediction))
    return tp, int(np.count_nonzero(prediction)) - tp, int(np.count_nonzero(truth)) - tp


def detected_objects(matching: Matching) -> list[Member]:
    """The objects whose IoU exceeds 0.5, in the order of the predictions that call them."""
    joins, members = matching.joins.tocsc(), matching.members.tocsr()
    return [
        (
            tuple(np.sort(joins.indices[joins.indptr[number] : joins.indptr[number + 1]]).tolist()),
            tuple(np.sort(members.indices[members.indptr[number] : members.indptr[number + 1]]).tolist()),
        )
        for number in np.flatnonzero(matching.hit)
    ]
