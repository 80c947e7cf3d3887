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
from sklearn.metrics import confusion_matrix

import litsexp
from litsexp.evaluation import metrics
from litsexp.evaluation.cases import CaseMasks
from litsexp.evaluation.metrics import (
    confusion,
    counts,
    dice,
    mean_defined,
    mean_scores,
    precision,
    score,
    selection_score,
    sensitivity,
    specificity,
)
from litsexp.spec.catalog import METRICS, Metric
from litsexp.spec.errors import LitsexpError

TRUTH = np.array([[0, 0, 1, 1, 1], [0, 1, 2, 2, 1]], np.uint8)[None]
PREDICTION = np.array([[0, 1, 1, 0, 1], [0, 1, 2, 1, 2]], np.uint8)[None]
# rows truth, columns prediction, counted pixel by pixel
MATRIX = np.array([[2, 1, 0], [1, 3, 1], [0, 1, 1]])

matrices = hnp.arrays(np.int64, (3, 3), elements=st.integers(0, 10**6))
label_stacks = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.uint8, shape, elements=st.integers(0, 2)),
        hnp.arrays(np.uint8, shape, elements=st.integers(0, 2)),
    )
)


def case_of(truth, prediction, case=0):
    return CaseMasks(case, truth, prediction, (1.0, 1.0, 1.0), np.arange(len(truth)))


def counted(matrix):
    """A case that counts so many pixels, without its masks."""
    case = case_of(TRUTH, PREDICTION)
    case.__dict__["confusion"] = matrix
    return case


def scores(matrix):
    return score(counted(matrix))


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


def test_no_pixels_and_no_cases():
    np.testing.assert_array_equal(
        confusion(np.zeros((0, 4, 4), np.uint8), np.zeros((0, 4, 4), np.uint8)), np.zeros((3, 3))
    )
    assert math.isnan(mean_scores([], ["dice_liver"])["dice_liver"])


@pytest.mark.parametrize(
    ("prediction", "says"),
    [
        (PREDICTION[:, :1], "differ"),
        (PREDICTION + 1, "labels up to 3; expected 0, 1, 2"),
        (PREDICTION * 0 + 255, "255"),
    ],
)
def test_bad_masks_are_refused(prediction, says):
    with pytest.raises(ValueError, match=says):
        confusion(TRUTH, prediction)


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
    assert math.isnan(scores(np.zeros((3, 3), np.int64))["pixel_acc"])
    assert math.isnan(scores(np.diag([9, 0, 0]))["foreground_acc"])


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
    mean = mean_scores(map(counted, (MATRIX, tumor_free, 100 * MATRIX)), iter(["dice_tumor", "dice_liver"]))
    assert list(mean) == ["dice_tumor", "dice_liver"]
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
    score_of = score(case_of(truth.astype(np.uint8), logits.argmax(1).numpy().astype(np.uint8)))
    target = torch.from_numpy(truth)[:, None]
    assert score_of["foreground_acc"] == pytest.approx(float(fastai_acc(logits, target, bkg_idx=0, axis=1)), abs=1e-6)
    assert score_of["pixel_acc"] == pytest.approx(float(fastai_acc(logits, target, bkg_idx=3, axis=1)), abs=1e-6)


@given(label_stacks, st.sampled_from([1, 7, 2**18]))
@settings(deadline=None)
def test_confusion_is_scikit_learns_however_it_is_chunked(stack, chunk):
    truth, prediction = stack
    expected = confusion_matrix(truth.ravel(), prediction.ravel(), labels=[0, 1, 2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "CHUNK_PIXELS", chunk)
        np.testing.assert_array_equal(confusion(truth, prediction), expected)
        np.testing.assert_array_equal(confusion(truth[:, ::-1, ::-1], prediction[:, ::-1, ::-1]), expected)


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
    ours, theirs = (mean_scores(map(counted, order), METRICS) for order in ((a, b), (b, a)))
    assert ours == pytest.approx(theirs, nan_ok=True)


def register_metric(monkeypatch, **rows):
    for name, value in rows.items():
        monkeypatch.setitem(METRICS, name, Metric("mine", value))


def test_a_registered_metric_follows_the_built_in_ones(monkeypatch):
    register_metric(monkeypatch, mine=lambda case: np.float32(case.lesions["lesions_true"]))
    found = score(case_of(TRUTH, PREDICTION))
    assert list(found)[-2:] == ["pixel_acc", "mine"]
    assert found["mine"] == 1 and type(found["mine"]) is float


def fails(case):
    raise KeyError("x")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (fails, r"failed \(KeyError: 'x'\)"),
        (lambda _: None, "gave None"),
        (lambda _: "0.5", "gave '0.5'"),
        (lambda _: True, "gave True"),
        (lambda _: math.inf, "gave inf"),
        (lambda _: np.ones(2), r"gave array"),
    ],
)
def test_a_metric_that_gives_no_number_is_named(monkeypatch, value, says):
    register_metric(monkeypatch, mine=value)
    with pytest.raises(LitsexpError, match=f"^metric 'mine': case 7: its function {says}.*; expected a finite number"):
        score(case_of(TRUTH, PREDICTION, case=7))
    assert score(case_of(TRUTH, PREDICTION), ["dice_liver"])  # the others are not asked


def test_metrics_import_nothing_heavy():
    code = (
        "import sys, litsexp.evaluation.metrics; "
        "heavy = {'torch', 'pandas', 'scipy', 'fastai', 'mlflow', 'optuna', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    root = str(Path(litsexp.__file__).parents[1])
    ran = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
