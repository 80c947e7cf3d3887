"""Lesions found over many cases: recall in all, by diameter and by contrast, and what was made up."""

import math

import pandas as pd

from litsexp.evaluation.metrics import STRUCTURES, mean_defined
from litsexp.spec.claim import CONTRAST_BINS, SIZE_BINS

ALL = "all"
COUNTS = ("tp_", "fp_", "fn_", "tn_")
Row = dict[str, float | int | str]


def recalls(cases: pd.DataFrame) -> list[Row]:
    """Of all lesions (``lesions``: all) and of each of ``SIZE_BINS`` and ``CONTRAST_BINS``, pooled over cases.

    ``true``, ``detected`` (IoU > 0.5), ``recall``, and how many ``cases`` these are: the others' size or contrast is
    unknown. Of all lesions also ``touched`` (IoU > 0) and ``recall_any``. Recall is NaN without lesions.
    """
    touched = int(cases["lesions_touched"].sum())
    all_lesions = _recall(cases, ALL, "")
    any_lesions: Row = {"touched": touched, "recall_any": _ratio(touched, int(cases["lesions_true"].sum()))}
    bins = [_recall(cases, name, f"_{name}") for name in (*SIZE_BINS, *CONTRAST_BINS)]
    return [all_lesions | any_lesions, *bins]


def _recall(cases: pd.DataFrame, name: str, suffix: str) -> Row:
    known = cases[cases[f"lesions_true{suffix}"].notna()]
    true, detected = (int(known[f"lesions_{kind}{suffix}"].sum()) for kind in ("true", "detected"))
    return {"lesions": name, "cases": len(known), "true": true, "detected": detected, "recall": _ratio(detected, true)}


def made_up(cases: pd.DataFrame) -> dict[str, float]:
    """Predicted lesions that are none, a case: at IoU > 0.5, at IoU > 0, and in tumor-free cases; NaN without cases."""
    free = cases[cases["lesions_true"] == 0]
    return {
        "false_per_case": mean_defined(cases["lesions_false"]),
        "false_per_case_any": mean_defined(cases["lesions_false_any"]),
        "tumor_free_cases": len(free),
        "false_per_tumor_free_case": mean_defined(free["lesions_false"]),
    }


def structures(cases: pd.DataFrame) -> list[Row]:
    """Each structure's mean over the cases where a score is defined, with how many these are (``n_dice`` ...)."""
    rows: list[Row] = []
    for structure in STRUCTURES:
        columns = [
            c for c in cases if str(c).endswith(f"_{structure}") and not str(c).startswith(("tp_", "fp_", "fn_", "tn_"))
        ]
        row: Row = {"structure": structure}
        for column in columns:
            name = str(column).removesuffix(f"_{structure}")
            row |= {name: mean_defined(cases[column]), f"n_{name}": int(cases[column].notna().sum())}
        rows.append(row)
    return rows


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
