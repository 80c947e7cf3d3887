"""Overlap scores per case, all derived from one 3 x 3 confusion matrix of counts.

Labels are 0 background, 1 liver, 2 tumor. As LiTS scores it, *liver* means label >= 1 and *tumor* label 2.
A score whose denominator is empty is NaN, and NaN is left out of means: a tumor-free case has no tumor Dice; what a
model paints into it is counted apart as false positives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

N_LABELS = 3
STRUCTURES = {"liver": 1, "tumor": 2}  # name -> smallest label that belongs to it
COUNTS = ("tp", "fp", "fn", "tn")


def dice(tp: int, fp: int, fn: int) -> float:
    """2TP / (2TP + FP + FN); NaN when truth and prediction are both empty."""
    return _ratio(2 * tp, 2 * tp + fp + fn)


def sensitivity(tp: int, fn: int) -> float:
    """TP / (TP + FN), the part of the structure that was found; NaN when there is none."""
    return _ratio(tp, tp + fn)


def specificity(tn: int, fp: int) -> float:
    """TN / (TN + FP), the part of the rest that was left alone; NaN when there is no rest."""
    return _ratio(tn, tn + fp)


def precision(tp: int, fp: int) -> float:
    """TP / (TP + FP), the part of the prediction that is right; NaN when nothing was predicted."""
    return _ratio(tp, tp + fp)


def foreground_acc(matrix: NDArray[np.int64]) -> float:
    """The paper's ``foreground_acc``: accuracy over the pixels whose truth is not background; NaN without any.

    A false positive outside the liver costs nothing, so "liver everywhere" scores well.
    """
    return _ratio(int(matrix[1, 1] + matrix[2, 2]), int(matrix[1:].sum()))


def pixel_acc(matrix: NDArray[np.int64]) -> float:
    """The paper's ``cust_foreground_acc``: accuracy over every pixel, background included; NaN without any."""
    return _ratio(int(np.trace(matrix)), int(matrix.sum()))


def confusion_by_case(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], case: NDArray[np.int64]
) -> dict[int, NDArray[np.int64]]:
    """Confusion matrix of each case.

    Args:
        truth: (slices, height, width), labels 0, 1, 2.
        prediction: the same shape.
        case: (slices,), the case that each slice belongs to.

    Returns:
        case -> (3, 3) pixel counts, rows truth, columns prediction; cases ascending.

    Raises:
        ValueError: shapes that differ, or a label above 2.
    """
    if truth.shape != prediction.shape or len(truth) != len(case):
        raise ValueError(f"truth {truth.shape}, prediction {prediction.shape} and {len(case)} case numbers differ")
    if truth.size and max(truth.max(), prediction.max()) >= N_LABELS:
        raise ValueError(f"labels up to {max(truth.max(), prediction.max())}; expected 0, 1, 2")
    cases, index = np.unique(case, return_inverse=True)
    code = truth.astype(np.int64) * N_LABELS + prediction + index.reshape(-1, 1, 1) * N_LABELS**2
    counts = np.bincount(code.ravel(), minlength=len(cases) * N_LABELS**2).reshape(-1, N_LABELS, N_LABELS)
    return {int(number): matrix for number, matrix in zip(cases, counts, strict=True)}


def counts(matrix: NDArray[np.int64]) -> dict[str, int]:
    """``tp_liver`` ... ``tn_tumor`` (pixels) of a (3, 3) confusion matrix."""
    result = {}
    for name, first in STRUCTURES.items():
        tp, fp = int(matrix[first:, first:].sum()), int(matrix[:first, first:].sum())
        fn, tn = int(matrix[first:, :first].sum()), int(matrix[:first, :first].sum())
        result.update({f"tp_{name}": tp, f"fp_{name}": fp, f"fn_{name}": fn, f"tn_{name}": tn})
    return result


def scores(matrix: NDArray[np.int64]) -> dict[str, float]:
    """Every overlap score of a (3, 3) confusion matrix, named as in ``METRICS``; NaN where undefined."""
    count, result = counts(matrix), {}
    for name in STRUCTURES:
        tp, fp, fn, tn = (count[f"{kind}_{name}"] for kind in COUNTS)
        result[f"dice_{name}"] = dice(tp, fp, fn)
        result[f"sensitivity_{name}"] = sensitivity(tp, fn)
        result[f"specificity_{name}"] = specificity(tn, fp)
        result[f"precision_{name}"] = precision(tp, fp)
    if count["tp_tumor"] + count["fn_tumor"] == 0:
        result["dice_tumor"] = math.nan  # no tumor to find: false positives are a count, not an overlap of zero
    return {**result, "foreground_acc": foreground_acc(matrix), "pixel_acc": pixel_acc(matrix)}


def mean_defined(values: Iterable[float]) -> float:
    """Mean of the values that are defined; NaN when none is."""
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def mean_scores(by_case: dict[int, NDArray[np.int64]]) -> dict[str, float]:
    """Mean over cases of every score, each case counting once, undefined ones left out."""
    rows = [scores(matrix) for matrix in by_case.values()]
    return {name: mean_defined(row[name] for row in rows) for name in (rows[0] if rows else ())}


def selection_score(mean: dict[str, float]) -> float:
    """What checkpoints are chosen by on validation: mean of liver and tumor Dice, of those defined; 0 if neither is."""
    score = mean_defined([mean["dice_liver"], mean["dice_tumor"]])
    return 0.0 if math.isnan(score) else score


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
