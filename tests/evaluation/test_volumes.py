"""Whole volumes: the same however they are cut, and as scikit-learn and loops count them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import ndimage
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

from litsexp.evaluation.cases import CaseMasks, boxed
from litsexp.evaluation.matching import SIX_CONNECTED
from litsexp.evaluation.volumes import lesion_contrasts, score_volume

from .masks import ADVERSARIAL, MM, case_of, label_pairs

PAIRS = pytest.mark.parametrize(("truth", "prediction"), ADVERSARIAL.values(), ids=list(ADVERSARIAL))


def same(left, right):
    """Dicts of numbers, NaN equal to NaN, the last bit of every float."""
    assert list(left) == list(right)
    assert {n: v for n, v in left.items() if v == v} == {n: v for n, v in right.items() if v == v}
    assert [n for n, v in left.items() if v != v] == [n for n, v in right.items() if v != v]


def wide(labels):
    return np.pad(labels, ((4, 2), (1, 3), (5, 6)))


@PAIRS
@pytest.mark.parametrize("surface_mm", [None, 1.5])
def test_a_case_scores_the_same_however_it_is_cut(truth, prediction, surface_mm):
    whole = case_of(wide(truth), wide(prediction))
    slices = len(truth)
    inner = CaseMasks(
        7, truth, prediction, MM, np.arange(4, 4 + slices), whole.truth.size - truth.size, whole.truth.shape
    )
    number = ndimage.label(truth == 2, SIX_CONNECTED)[1]
    contrast_hu = np.linspace(-50, 50, number)
    scores = score_volume(whole, contrast_hu, surface_mm)
    assert scores["slices"] == slices + 6
    same(score_volume(inner, contrast_hu, surface_mm), scores)
    same(score_volume(boxed(inner), contrast_hu, surface_mm), scores)
    same(score_volume(boxed(boxed(whole)), contrast_hu, surface_mm), scores)


@given(label_pairs())
@settings(deadline=None, max_examples=80)
def test_random_masks_score_the_same_however_they_are_cut(pair):
    whole = case_of(wide(pair[0]), wide(pair[1]))
    same(score_volume(boxed(whole), None, 2.0), score_volume(whole, None, 2.0))
    assert np.array_equal(boxed(whole).confusion, whole.confusion)


@given(label_pairs())
@settings(deadline=None, max_examples=60)
def test_counts_and_overlap_are_those_of_scikit_learn(pair):
    truth, prediction = pair
    scores = score_volume(case_of(truth, prediction))
    for name, first in (("liver", 1), ("tumor", 2)):
        true, predicted = (mask.ravel() >= first for mask in pair)
        tn, fp, fn, tp = confusion_matrix(true, predicted, labels=[False, True]).ravel()
        assert [scores[f"{kind}_{name}"] for kind in ("tp", "fp", "fn", "tn")] == [tp, fp, fn, tn]
        if true.any() and predicted.any():
            assert scores[f"dice_{name}"] == pytest.approx(f1_score(true, predicted))
            assert scores[f"sensitivity_{name}"] == pytest.approx(recall_score(true, predicted))
            assert scores[f"precision_{name}"] == pytest.approx(precision_score(true, predicted))


@given(label_pairs())
@settings(deadline=None, max_examples=60)
def test_what_touches_nothing_is_neither_touched_nor_true(pair):
    scores = score_volume(case_of(*pair))
    (true, n_true), (found, n_found) = (ndimage.label(mask == 2, SIX_CONNECTED) for mask in pair)
    overlapping = (true > 0) & (found > 0)
    lonely_true, lonely_found = n_true - len(np.unique(true[overlapping])), n_found - len(np.unique(found[overlapping]))
    assert scores["lesions_false_any"] == lonely_found
    assert scores["lesions_detected"] <= scores["lesions_touched"] <= n_true - lonely_true
    assert scores["lesions_false_any"] <= scores["lesions_false"]


def test_touched_and_made_up_by_hand():
    truth, prediction = np.ones((2, 1, 1, 12), np.uint8)
    truth[..., 0:4] = truth[..., 6:8] = 2
    prediction[..., 3] = prediction[..., 10] = 2
    scores = score_volume(case_of(truth, prediction))
    found = ("lesions_detected", "lesions_touched", "lesions_false", "lesions_false_any")
    assert [scores[name] for name in found] == [0, 1, 2, 1]


def test_contrast_is_liver_minus_lesion_in_scipys_order():
    truth = np.array([[[0, 1, 1, 2, 2, 1, 2, 0]]], np.uint8)
    hu = np.array([[[-900, 100, 110, 70, 60, 120, 140, 900]]], np.int16)
    assert lesion_contrasts(truth, hu).tolist() == [110 - 65, 110 - 140]
    assert lesion_contrasts(truth[..., 1:7], hu[..., 1:7]).tolist() == [45, -30]
    assert np.isnan(lesion_contrasts(np.array([[[2, 0, 2]]], np.uint8), hu[..., :3])).tolist() == [True, True]
    assert lesion_contrasts(np.ones((1, 1, 3), np.uint8), hu[..., :3]).size == 0
    with pytest.raises(ValueError, match="differ"):
        lesion_contrasts(truth, hu[..., 1:])


def test_contrast_bins_count_bright_lesions_too_and_their_edges_belong_to_the_middle():
    truth = np.ones((1, 1, 20), np.uint8)
    truth[..., 1::4] = 2  # five lesions of one voxel
    prediction = truth.copy()
    prediction[..., 1] = 1
    scores = score_volume(case_of(truth, prediction), np.array([19.9, 20.0, -40.0, 40.1, -41.0]))
    bins = ("lt20hu", "20to40hu", "gt40hu")
    assert [scores[f"lesions_true_{name}"] for name in bins] == [1, 2, 2]
    assert [scores[f"lesions_detected_{name}"] for name in bins] == [0, 2, 2]


@pytest.mark.parametrize("contrast_hu", [None, np.array([math.nan, math.nan])])
def test_unknown_contrast_is_no_count(contrast_hu):
    truth = np.array([[[2, 1, 2]]], np.uint8)
    scores = score_volume(case_of(truth, truth), contrast_hu)
    unknown = [name for name, value in scores.items() if name.endswith("hu") and math.isnan(value)]
    assert len(unknown) == 6


def test_known_contrast_without_lesions_is_none_of_each():
    liver = np.ones((1, 1, 3), np.uint8)
    scores = score_volume(case_of(liver, liver), np.zeros(0))
    assert [value for name, value in scores.items() if name.endswith("hu")] == [0] * 6


def test_a_miss_is_the_volumes_diagonal():
    some, none = ADVERSARIAL["missed"]
    scores = score_volume(case_of(wide(some), wide(none), (3.0, 4.0, 1.0)), None, 2.0)
    diagonal_mm = math.hypot(12 * 3, 13 * 4, 22)
    assert [scores[f"{name}_tumor"] for name in ("assd", "hd95", "nsd")] == [diagonal_mm, diagonal_mm, 0]
    assert (scores["surface_missed_liver"], scores["surface_missed_tumor"]) == (1, 1)
    nothing = score_volume(case_of(none, none), None, 2.0)
    assert math.isnan(nothing["assd_liver"]) and nothing["surface_missed_liver"] == 0


def test_bad_input_is_refused():
    truth = np.full((3, 1, 1), 2, np.uint8)
    with pytest.raises(ValueError, match="2 contrasts of 1 lesions of case 7"):
        score_volume(case_of(truth, truth), np.zeros(2))
    gap = CaseMasks(7, truth, truth, MM, np.array([0, 1, 3]))
    with pytest.raises(ValueError, match="leaves slices out"):
        score_volume(gap)
