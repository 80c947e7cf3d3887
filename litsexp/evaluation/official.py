"""What the official LiTS scorer makes of one case, its faults included: to be shown beside what is right.

PatrickChrist/lits-challenge-scoring (``evaluate.py``, ``helpers/calc_metric.py``), described here by what it computes:

- it ends with an error at a reference without lesions, and at more than 32767 components (16 bits);
- an object counts once where it is detected, and as often as it has references where it is not; other predictions of
  a detected object count as false positives;
- for an object's IoU the union is taken with the predictions of the object whose number is that of its own first
  prediction, which is another one's wherever the two numberings differ;
- a case whose count comes to 0 or less has none of its objects measured;
- RVD is (reference - prediction) / prediction;
- without a voxel of label 1 a prediction has no liver, though its tumor is liver, too, and a burden of 9001;
- millimetres are those beside the affine, right or not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litsexp.evaluation.matching import Matching
from litsexp.evaluation.objects import Member

LARGE = 9001.0  # its penalty in the place of a distance
MOST_COMPONENTS, MOST_REFERENCES = 32767, 255  # more end it; more overflow its 8-bit numbers of objects


@dataclass(frozen=True)
class OfficialDetection:
    """One case's counts at both thresholds, and the objects that it then measures."""

    tp: int  # at IoU > 0.5; may be below 0
    tp_any: int  # at IoU > 0
    references: int
    predictions: int
    objects: tuple[Member, ...]  # kept at IoU > 0.5


def failure(matching: Matching) -> str:
    """Why the official scorer gives no number; empty where it gives one."""
    references, predictions = matching.shared.shape
    if not references:
        return "it ends with an error at a reference without lesions"
    if max(references, predictions) > MOST_COMPONENTS:
        return "it ends with an error at more than 32767 components"
    return "its 8-bit numbers overflow at more than 255 lesions" if references > MOST_REFERENCES else ""


def detection(matching: Matching, stored: tuple[int, int, int]) -> OfficialDetection:
    """The official counts of a case at which it does not fail; ``stored``: the arrays' axes as the files store them.

    Its numbers are those of scipy's scan of the stored array, and decide what it compares.
    """
    order_true = _scan_order(matching.reference, matching.true_voxels, stored)
    order_found = _scan_order(matching.found, matching.predicted_voxels, stored)
    shared = matching.shared[order_true][:, order_found].T.toarray()  # predictions x references
    sizes_true, sizes_found = matching.true_voxels[order_true], matching.predicted_voxels[order_found]
    groups = _groups(shared)
    firsts = sorted(groups)
    of_object = np.stack([shared[:, groups[first]].sum(axis=1) for first in firsts], axis=1)  # predictions x objects
    overlapping = np.flatnonzero(of_object.any(axis=1))
    chosen = of_object[overlapping].argmax(axis=1)
    members = [overlapping[chosen == number] for number in range(len(firsts))]
    held = {firsts[j]: rows for j, rows in enumerate(members) if len(rows)}  # object's number -> its predictions
    tp = len(held)
    for first, rows in sorted(held.items(), key=lambda item: int(item[1][0])):
        refs = groups[first]
        strange = held.get(int(rows[0]), rows[:0])  # should be rows: it looks for its first prediction's number
        both = int(shared[np.ix_(strange, refs)].sum())
        union = int(sizes_found[strange].sum() + sizes_true[refs].sum()) - both
        common = int(shared[np.ix_(rows, refs)].sum())
        if 2 * common <= union:
            held[first] = rows[:0]
            tp -= len(refs)
    kept = [
        (tuple(order_true[groups[first]].tolist()), tuple(order_found[rows].tolist()))
        for first, rows in held.items()
        if len(rows) and tp > 0
    ]
    tp_any = sum(len(rows) > 0 for rows in members)
    return OfficialDetection(tp, tp_any, len(order_true), len(order_found), tuple(kept))


def _groups(shared: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """First reference of each object -> its references; one that nothing overlaps is alone."""
    best = np.where(shared.any(axis=0), shared.argmax(axis=0) if len(shared) else 0, -1)
    groups: dict[int, NDArray[np.int64]] = {}
    for prediction in np.unique(best[best >= 0]):
        refs = np.flatnonzero(best == prediction)
        groups[int(refs[0])] = refs
    return groups | {int(ref): np.array([ref]) for ref in np.flatnonzero(best < 0)}


def _scan_order(
    lesions: NDArray[np.int32], voxels: NDArray[np.int64], stored: tuple[int, int, int]
) -> NDArray[np.int64]:
    """Lesions, from 0, in the order in which a scan of the stored array meets them."""
    seen = lesions.transpose(stored)
    numbers = seen[seen > 0]  # in scan order
    first = np.empty(len(voxels), np.int64)
    first[numbers[::-1] - 1] = np.arange(len(numbers))[::-1]  # of several, the last written stays
    return np.argsort(first, kind="stable")
