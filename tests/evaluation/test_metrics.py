"""Overlap scores against toy masks whose answers are counted by hand."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from litsexp.spec.catalog import METRICS

import litsexp
from litsexp.evaluation.metrics import (
    confusion_by_case,
    counts,
    dice,
    foreground_acc,
    mean_defined,
    mean_scores,
    pixel_acc,
    precision,
    scores,
    selection_score,
    sensitivity,
    specificity,
)

TRUTH = np.array([[0, 0, 1, 1, 1], [0, 1, 2, 2, 1]], np.uint8)[None]
PREDICTION = np.array([[0, 1, 1, 0, 1], [0, 1, 2, 1, 2]], np.uint8)[None]
# rows truth, columns prediction, counted pixel by pixel
MATRIX = np.array([[2, 1, 0], [1, 3, 1], [0, 1, 1]])

matrices = hnp.arrays(np.int64, (3, 3), elements=st.integers(0, 10**6))
label_stacks = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.uint8, shape, elements=st.integers(0, 2)),
        hnp.arrays(np.uint8, shape, elements=st.integers(0, 2)),
        hnp.arrays(np.int64, shape[:1], elements=st.integers(0, 3)),
    )
)


def confusion(truth, prediction):
    return confusion_by_case(truth, prediction, np.zeros(len(truth), np.int64))[0]


def test_confusion_is_counted_with_truth_in_rows():
    np.testing.assert_array_equal(confusion(TRUTH, PREDICTION), MATRIX)


def test_counts_by_hand():
    assert counts(MATRIX) == {
        **{"tp_liver": 6, "fp_liver": 1, "fn_liver": 1, "tn_liver": 2},  # liver is label >= 1, tumor included
        **{"tp_tumor": 1, "fp_tumor": 1, "fn_tumor": 1, "tn_tumor": 7},
    }


def test_every_score_by_hand():
    expected = {
        "dice_liver": 12 / 14,
        "sensitivity_liver": 6 / 7,
        "specificity_liver": 2 / 3,
        "precision_liver": 6 / 7,
        "dice_tumor": 2 / 4,
        "sensitivity_tumor": 1 / 2,
        "specificity_tumor": 7 / 8,
        "precision_tumor": 1 / 2,
        "foreground_acc": 4 / 7,
        "pixel_acc": 6 / 10,
    }
    assert scores(MATRIX) == pytest.approx(expected)
    assert set(expected) == set(METRICS)


def test_cases_are_kept_apart_whatever_the_order_of_slices():
    truth = np.concatenate([TRUTH, 0 * TRUTH, TRUTH])
    prediction = np.concatenate([PREDICTION, PREDICTION, TRUTH])
    by_case = confusion_by_case(truth, prediction, np.array([7, 3, 7]))
    assert list(by_case) == [3, 7]
    np.testing.assert_array_equal(by_case[7], MATRIX + np.diag([3, 5, 2]))
    np.testing.assert_array_equal(by_case[3], [[3, 5, 2], [0, 0, 0], [0, 0, 0]])


def test_no_slices_are_no_cases():
    nothing = np.zeros((0, 4, 4), np.uint8)
    assert confusion_by_case(nothing, nothing, np.zeros(0, np.int64)) == {}
    assert mean_scores({}) == {}


@pytest.mark.parametrize(
    ("prediction", "case", "says"),
    [
        (PREDICTION[:, :1], np.zeros(1, np.int64), "differ"),
        (PREDICTION, np.zeros(2, np.int64), "differ"),
        (PREDICTION + 1, np.zeros(1, np.int64), "labels up to 3; expected 0, 1, 2"),
    ],
)
def test_bad_masks_are_refused(prediction, case, says):
    with pytest.raises(ValueError, match=says):
        confusion_by_case(TRUTH, prediction, case)


def test_all_background_by_hand():
    score = scores(confusion(TRUTH, 0 * TRUTH))
    assert score["pixel_acc"] == 3 / 10
    assert score["foreground_acc"] == score["dice_liver"] == score["dice_tumor"] == score["sensitivity_tumor"] == 0
    assert score["specificity_liver"] == score["specificity_tumor"] == 1
    assert math.isnan(score["precision_liver"]) and math.isnan(score["precision_tumor"])


def test_liver_everywhere_by_hand():
    score = scores(confusion(TRUTH, np.ones_like(TRUTH)))
    assert score["foreground_acc"] == 5 / 7  # looks good, and knows nothing
    assert score["pixel_acc"] == 5 / 10
    assert score["dice_liver"] == pytest.approx(14 / 17)
    assert (score["sensitivity_liver"], score["specificity_liver"]) == (1, 0)
    assert (score["dice_tumor"], score["sensitivity_tumor"], score["specificity_tumor"]) == (0, 0, 1)


def test_empty_denominators_are_undefined():
    assert math.isnan(dice(0, 0, 0))
    assert math.isnan(sensitivity(0, 0))
    assert math.isnan(specificity(0, 0))
    assert math.isnan(precision(0, 0))
    assert math.isnan(pixel_acc(np.zeros((3, 3), np.int64)))
    assert math.isnan(foreground_acc(np.diag([9, 0, 0])))


def test_a_tumor_free_case_has_no_tumor_dice_but_counts_what_was_painted():
    truth = np.minimum(TRUTH, 1)
    matrix = confusion(truth, PREDICTION)
    score = scores(matrix)
    assert math.isnan(score["dice_tumor"]) and math.isnan(score["sensitivity_tumor"])
    assert score["precision_tumor"] == 0
    assert score["specificity_tumor"] == 8 / 10
    assert counts(matrix)["fp_tumor"] == 2


def test_means_leave_out_the_undefined_and_count_each_case_once():
    tumor_free = confusion(np.minimum(TRUTH, 1), np.minimum(TRUTH, 1))
    mean = mean_scores({0: MATRIX, 1: tumor_free, 2: 100 * MATRIX})
    assert mean["dice_tumor"] == pytest.approx(0.5)  # of two cases, however large
    assert mean["dice_liver"] == pytest.approx((12 / 14 + 1 + 12 / 14) / 3)
    assert math.isnan(mean_defined([])) and math.isnan(mean_defined([math.nan]))
    assert mean_defined([math.nan, 0.25, 0.75]) == 0.5


def test_checkpoints_are_chosen_by_the_dice_that_is_defined():
    assert selection_score({"dice_liver": 0.9, "dice_tumor": 0.5}) == pytest.approx(0.7)
    assert selection_score({"dice_liver": 0.9, "dice_tumor": math.nan}) == 0.9
    assert selection_score({"dice_liver": math.nan, "dice_tumor": math.nan}) == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_papers_accuracies_are_fastais(seed):
    import torch
    from fastai.metrics import foreground_acc as fastai_acc

    logits = torch.randn(6, 3, 9, 7, generator=torch.Generator().manual_seed(seed))
    truth = np.random.default_rng(seed).integers(0, 3, (6, 9, 7))
    matrix = confusion(truth.astype(np.uint8), logits.argmax(1).numpy().astype(np.uint8))
    target = torch.from_numpy(truth)[:, None]
    assert foreground_acc(matrix) == pytest.approx(float(fastai_acc(logits, target, bkg_idx=0, axis=1)), abs=1e-6)
    assert pixel_acc(matrix) == pytest.approx(float(fastai_acc(logits, target, bkg_idx=3, axis=1)), abs=1e-6)


@given(label_stacks)
@settings(deadline=None)
def test_confusion_accounts_for_every_pixel_of_every_case(stack):
    truth, prediction, case = stack
    by_case = confusion_by_case(truth, prediction, case)
    assert list(by_case) == sorted(set(case.tolist()))
    for number, matrix in by_case.items():
        assert matrix.sum() == truth[case == number].size
        np.testing.assert_array_equal(matrix.sum(axis=1), np.bincount(truth[case == number].ravel(), minlength=3))
        np.testing.assert_array_equal(matrix.sum(axis=0), np.bincount(prediction[case == number].ravel(), minlength=3))


@given(matrices)
def test_scores_are_shares_or_undefined(matrix):
    assert all(math.isnan(value) or 0 <= value <= 1 for value in scores(matrix).values())


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_dice_is_the_harmonic_mean_of_precision_and_sensitivity(tp, fp, fn):
    p, s = precision(tp, fp), sensitivity(tp, fn)
    if tp:
        assert dice(tp, fp, fn) == pytest.approx(2 * p * s / (p + s))
    else:
        assert dice(tp, fp, fn) == 0 or fp == fn == 0


@given(matrices, matrices)
def test_renaming_cases_changes_no_mean(a, b):
    assert mean_scores({0: a, 1: b}) == pytest.approx(mean_scores({5: b, 9: a}), nan_ok=True)


def test_metrics_import_nothing_heavy():
    code = (
        "import sys, litsexp.evaluation.metrics; "
        "heavy = {'torch', 'pandas', 'fastai', 'mlflow', 'optuna', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    root = str(Path(litsexp.__file__).parents[1])
    ran = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
