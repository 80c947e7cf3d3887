"""The table that every statistic starts from: a row a test case, counts and scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from litsexp.evaluation.lesions import score_lesions
from litsexp.evaluation.metrics import confusion_by_case, counts, scores

TRIVIAL = {"all background": 0, "liver everywhere": 1}  # predictor -> the label it gives to every pixel


def score_cases(index: pd.DataFrame, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> pd.DataFrame:
    """Counts, overlap scores and lesion scores of each case.

    Args:
        index: the store's rows of these slices (columns case, z, spacing_*_mm), slices of a case in order.
        truth: labels, (slices, height, width).
        prediction: the same shape.

    Returns:
        A row a case, ascending: ``case``, ``slices``, ``tp_liver`` ..., the scores of ``metrics.scores``, and those of
        ``lesions.score_lesions``. NaN where undefined.
    """
    case = index["case"].to_numpy()
    rows = []
    for number, matrix in confusion_by_case(truth, prediction, case).items():
        here = case == number
        of_case = index[here]
        spacing_mm = tuple(float(of_case[f"spacing_{axis}_mm"].iloc[0]) for axis in "zyx")
        lesions = score_lesions(truth[here], prediction[here], spacing_mm, of_case["z"].to_numpy())
        rows.append({"case": number, "slices": int(here.sum()), **counts(matrix), **scores(matrix), **lesions})
    return pd.DataFrame(rows)


def trivial_cases(index: pd.DataFrame, truth: NDArray[np.uint8]) -> pd.DataFrame:
    """What no learning scores: the table of ``score_cases`` for each trivial predictor, named in ``predictor``."""
    tables = []
    for name, label in TRIVIAL.items():
        table = score_cases(index, truth, np.full_like(truth, label))
        table.insert(0, "predictor", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
