"""Overlap and surfaces of an object: a prediction's references merged, against all predictions that joined them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

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

    def __init__(self, matching: Matching, members: Iterable[Member], spacing_mm: Sequence[float] | None):
        self.lesions = (matching.reference, matching.found)
        wanted = list(members)
        self.boxes = [_boxes(self.lesions[side], {n for member in wanted for n in member[side]}) for side in (0, 1)]
        self.spacing_mm = spacing_mm
        self.known: dict[Member, dict[str, float]] = {}

    def of(self, member: Member) -> dict[str, float]:
        """The scores of one of the objects, computed once."""
        if member not in self.known:
            self.known[member] = self._scores(member)
        return self.known[member]

    def _scores(self, member: Member) -> dict[str, float]:
        boxes = [self.boxes[side][number] for side in (0, 1) for number in member[side]]
        spans = ([box[axis] for box in boxes] for axis in range(3))
        box = tuple(slice(min(one.start for one in span), max(one.stop for one in span)) for span in spans)
        truth, prediction = (np.isin(self.lesions[side][box], np.add(member[side], 1)) for side in (0, 1))
        scores = overlap(*_voxels(truth, prediction))
        return scores if self.spacing_mm is None else scores | lits_distances(truth, prediction, self.spacing_mm)


def _boxes(lesions: NDArray[np.int32], wanted: set[int]) -> dict[int, tuple[slice, ...]]:
    """The boxes of these lesions (from 0): of noise there may be a million others."""
    if not wanted:
        return {}
    numbers = sorted(wanted)
    renumbered = np.zeros(int(lesions.max()) + 1, np.int32)
    renumbered[np.add(numbers, 1)] = np.arange(1, len(numbers) + 1)
    return dict(zip(numbers, ndimage.find_objects(renumbered[lesions]), strict=True))


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
