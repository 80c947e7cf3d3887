"""The table of cases: one row a case, and what an unknown spacing leaves undefined."""

import numpy as np
import pandas as pd
import pytest

from litsexp.data.store import Store
from litsexp.evaluation.cases import masks_of, score_cases, trivial_cases
from litsexp.evaluation.metrics import counts
from litsexp.spec.catalog import METRICS, Metric
from litsexp.spec.errors import LitsexpError

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


def test_cases_are_kept_apart_whatever_the_order_of_slices() -> None:
    order = [1, 0, 2]  # cases 7, 3, 7
    prediction = np.minimum(TRUTH, 1)
    mixed, sorted_ = index(1.0).iloc[order], index(1.0)
    ours = list(masks_of(mixed, TRUTH[order], prediction[order]))
    assert [case.case for case in ours] == [3, 7]
    for case, straight in zip(ours, masks_of(sorted_, TRUTH, prediction), strict=True):
        np.testing.assert_array_equal(case.truth, straight.truth)
        np.testing.assert_array_equal(case.prediction, straight.prediction)
        np.testing.assert_array_equal(case.z, straight.z)
        assert case.spacing_mm == straight.spacing_mm == (1.0, 1.0, 1.0)
    pd.testing.assert_frame_equal(
        score_cases(mixed, TRUTH[order], prediction[order]), score_cases(sorted_, TRUTH, prediction)
    )


def test_a_case_in_one_run_is_not_copied() -> None:
    for case in masks_of(index(1.0), TRUTH, TRUTH):
        assert np.shares_memory(case.truth, TRUTH)


def test_shapes_that_differ_are_refused() -> None:
    for truth, rows in ((TRUTH[:, :2], index(1.0)), (TRUTH, index(1.0)[:2])):
        with pytest.raises(ValueError, match="differ"):
            score_cases(rows, truth, TRUTH)
    assert score_cases(index(1.0)[:0], TRUTH[:0], TRUTH[:0]).empty


def test_the_columns_and_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    table = score_cases(index(1.0), TRUTH, TRUTH)
    names = list(table.columns)
    assert names[:2] == ["case", "slices"]
    assert names[2:10] == list(counts(np.eye(3, dtype=np.int64)))
    assert names[10:20] == list(METRICS)
    assert names[20:24] == ["lesions_true", "lesions_predicted", "lesions_detected", "lesions_false"]
    assert names[-2:] == ["burden_true", "burden_predicted"]
    assert (table.dtypes[:10] == np.int64).all() and (table.dtypes[10:20] == np.float64).all()
    monkeypatch.setitem(METRICS, "mine", Metric("mine", lambda case: case.case))
    assert list(score_cases(index(1.0), TRUTH, TRUTH)) == [*names[:20], "mine", *names[20:]]
    monkeypatch.setitem(METRICS, "lesions_true", Metric("mine", lambda case: 0.0))
    with pytest.raises(LitsexpError, match="metric 'lesions_true': the table of cases has that column"):
        score_cases(index(1.0), TRUTH, TRUTH)


class Shelf:
    """As much of a store as ``trivial_cases`` asks for."""

    def __init__(self, spacing_mm: float):
        self.index, self.cases = index(spacing_mm), [3, 7]

    def masks(self, case: int) -> np.ndarray:
        return TRUTH[self.index["case"].to_numpy() == case]


@pytest.mark.parametrize("spacing_mm", [1.0, np.nan])
def test_what_learns_nothing_is_scored_a_case_and_predictor(spacing_mm: float) -> None:
    table = trivial_cases(Shelf(spacing_mm)).set_index(["predictor", "case"])
    assert table["dice_liver"].to_dict() == {
        ("all background", 3): 0,
        ("all background", 7): 0,
        ("liver everywhere", 3): pytest.approx(2 / 3),
        ("liver everywhere", 7): pytest.approx(2 / 3),
    }
    assert np.isnan(table.loc[("all background", 3), "dice_tumor"])  # there is none


def test_what_learns_nothing_is_scored_on_the_tested_slices_alone(phantom_store: Store) -> None:
    rows = phantom_store.rows_of([phantom_store.cases[1]])[2:4]
    table = trivial_cases(phantom_store, rows)
    assert table[["case", "slices"]].to_numpy().tolist() == [[phantom_store.cases[1], 2]] * 2
    liver = phantom_store.index["liver_pixels"].to_numpy()[rows].sum()
    assert table["tp_liver"].tolist() == [0, liver]


def test_what_learns_nothing_is_scored_on_the_stored_labels(phantom_store: Store) -> None:
    labels = np.asarray(phantom_store.labels)
    for name, label in (("all background", 0), ("liver everywhere", 1)):
        table = trivial_cases(phantom_store)
        table = table[table["predictor"] == name].drop(columns="predictor").reset_index(drop=True)
        pd.testing.assert_frame_equal(table, score_cases(phantom_store.index, labels, np.full_like(labels, label)))
