"""The table of cases: one row a case, and what an unknown spacing leaves undefined."""

import numpy as np
import pandas as pd
import pytest

from litsexp.evaluation.cases import score_cases, trivial_cases

TRUTH = np.zeros((3, 4, 4), np.uint8)
TRUTH[:, :2], TRUTH[1:, 0, 0] = 1, 2


def index(spacing_mm: float) -> pd.DataFrame:
    spacing = dict.fromkeys(["spacing_z_mm", "spacing_y_mm", "spacing_x_mm"], spacing_mm)
    return pd.DataFrame({"case": [3, 7, 7], "z": [0, 0, 1], **spacing})


def test_an_unknown_spacing_leaves_sizes_in_mm_undefined_and_every_other_score_as_it_is() -> None:
    known, unknown = (score_cases(index(mm), TRUTH, TRUTH) for mm in (1.0, np.nan))
    in_mm = [name for name in known.columns if "mm" in name]
    assert len(in_mm) == 6
    assert list(known["case"]) == [3, 7]
    assert known[in_mm].notna().all(axis=None)
    assert unknown[in_mm].isna().all(axis=None)
    pd.testing.assert_frame_equal(known.drop(columns=in_mm), unknown.drop(columns=in_mm))
    assert unknown["lesions_true"].tolist() == [0, 1]


@pytest.mark.parametrize("spacing_mm", [1.0, np.nan])
def test_what_learns_nothing_is_scored_a_case_and_predictor(spacing_mm: float) -> None:
    table = trivial_cases(index(spacing_mm), TRUTH).set_index(["predictor", "case"])
    assert table["dice_liver"].to_dict() == {
        ("all background", 3): 0,
        ("all background", 7): 0,
        ("liver everywhere", 3): pytest.approx(2 / 3),
        ("liver everywhere", 7): pytest.approx(2 / 3),
    }
    assert np.isnan(table.loc[("all background", 3), "dice_tumor"])  # there is none
