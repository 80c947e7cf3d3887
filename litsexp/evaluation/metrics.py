"""Overlap scores per case, all derived from one 3 x 3 confusion matrix of counts.

Labels are 0 background, 1 liver, 2 tumor. As LiTS scores it, *liver* means label >= 1 and *tumor* label 2.
A score whose denominator is empty is NaN, and NaN is left out of means: a tumor-free case has no tumor Dice; what a
model paints into it is counted apart as false positives. The functions that the table of metrics names take a case.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from litsexp.spec.catalog import METRICS
from litsexp.spec.errors import LitsexpError, one_line
from litsexp.spec.tables import resolve

if TYPE_CHECKING:
    from litsexp.evaluation.cases import CaseMasks

N_LABELS = 3
STRUCTURES = {"liver": 1, "tumor": 2}  # name -> smallest label that belongs to it
SELECTING = ("dice_liver", "dice_tumor")  # what checkpoints are chosen by
CHUNK_PIXELS = 2**18  # counted at a time: np.bincount makes 8 bytes of each


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


def _of(structure: str, formula: Callable[..., float]) -> Callable[[CaseMasks], float]:
    """The formula on a case's counts of a structure: it takes those that its arguments name."""
    kinds = tuple(inspect.signature(formula).parameters)

    def value(case: CaseMasks) -> float:
        return formula(**{kind: case.counts[f"{kind}_{structure}"] for kind in kinds})

    return value


dice_liver, _dice_tumor = _of("liver", dice), _of("tumor", dice)
sensitivity_liver, sensitivity_tumor = _of("liver", sensitivity), _of("tumor", sensitivity)
specificity_liver, specificity_tumor = _of("liver", specificity), _of("tumor", specificity)
precision_liver, precision_tumor = _of("liver", precision), _of("tumor", precision)


def dice_tumor(case: CaseMasks) -> float:
    """Dice of the tumor; NaN where there is no tumor: false positives are a count then, not an overlap of zero."""
    return _dice_tumor(case) if case.confusion[2].any() else math.nan


def foreground_acc(case: CaseMasks) -> float:
    """The paper's ``foreground_acc``: accuracy over the pixels whose truth is not background; NaN without any.

    A false positive outside the liver costs nothing, so "liver everywhere" scores well.
    """
    matrix = case.confusion
    return _ratio(int(matrix[1, 1] + matrix[2, 2]), int(matrix[1:].sum()))


def pixel_acc(case: CaseMasks) -> float:
    """The paper's ``cust_foreground_acc``: accuracy over every pixel, background included; NaN without any."""
    return _ratio(int(np.trace(case.confusion)), int(case.confusion.sum()))


def confusion(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(3, 3) pixel counts, rows truth, columns prediction, of two (slices, height, width), some slices at a time.

    ValueError: shapes that differ, or a label above 2.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} differ; expected one shape")
    counted = np.zeros(N_LABELS**2, np.int64)
    step = max(1, CHUNK_PIXELS * len(truth) // max(1, truth.size))
    for start in range(0, len(truth) if truth.size else 0, step):
        true, predicted = truth[start : start + step], prediction[start : start + step]
        if (largest := max(true.max(), predicted.max())) >= N_LABELS:
            raise ValueError(f"labels up to {largest}; expected 0, 1, 2")
        counted += np.bincount((true * np.uint8(N_LABELS) + predicted).ravel(), minlength=N_LABELS**2)
    return counted.reshape(N_LABELS, N_LABELS)


def counts(matrix: NDArray[np.int64]) -> dict[str, int]:
    """``tp_liver`` ... ``tn_tumor`` (pixels) of a (3, 3) confusion matrix."""
    result = {}
    for name, first in STRUCTURES.items():
        tp, fp = int(matrix[first:, first:].sum()), int(matrix[:first, first:].sum())
        fn, tn = int(matrix[first:, :first].sum()), int(matrix[:first, :first].sum())
        result.update({f"tp_{name}": tp, f"fp_{name}": fp, f"fn_{name}": fn, f"tn_{name}": tn})
    return result


def score(case: CaseMasks, names: Iterable[str] = METRICS) -> dict[str, float]:
    """The named metrics of a case, NaN where undefined; LitsexpError where a metric's function gives no number."""
    return {name: _value(name, case) for name in names}


def _value(name: str, case: CaseMasks) -> float:
    metric, expected = METRICS[name], "expected a finite number, or nan where it is undefined"
    try:
        value = resolve(metric.value)(case)
    except Exception as error:  # whatever somebody's function does
        failed = f"its function failed ({one_line(error)}); {expected}"
        raise LitsexpError(f"metric {name!r}: case {case.case}: {failed}") from error
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or math.isinf(value):
        raise LitsexpError(f"metric {name!r}: case {case.case}: its function gave {value!r}; {expected}")
    return float(value)


def mean_defined(values: Iterable[float]) -> float:
    """Mean of the values that are defined; NaN when none is."""
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def mean_scores(cases: Iterable[CaseMasks], names: Iterable[str]) -> dict[str, float]:
    """Mean over cases of each named metric, each case counting once, undefined ones left out; NaN without any.

    ``cases`` may be made one at a time (``cases.masks_of``): no case is kept.
    """
    wanted = list(names)
    return mean_rows(case_scores(cases, wanted), wanted)


def case_scores(cases: Iterable[CaseMasks], names: Iterable[str]) -> list[dict[str, float]]:
    """``case`` and the named metrics of each case, NaN where undefined."""
    wanted = list(names)
    return [{"case": case.case, **score(case, wanted)} for case in cases]


def mean_rows(rows: Sequence[Mapping[str, float]], names: Iterable[str]) -> dict[str, float]:
    """Mean over such rows of each named metric, undefined ones left out; NaN without any."""
    return {name: mean_defined(row[name] for row in rows) for name in names}


def selection_score(mean: dict[str, float]) -> float:
    """What checkpoints are chosen by on validation: mean of liver and tumor Dice, of those defined; 0 if neither is."""
    value = mean_defined(mean[name] for name in SELECTING)
    return 0.0 if math.isnan(value) else value


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
