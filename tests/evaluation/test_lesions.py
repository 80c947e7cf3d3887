"""Lesions against masks made by hand, and against the detection rule written out with loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from litsexp.evaluation.lesions import score_lesions, sphere_diameter_mm, tumor_burden
from litsexp.evaluation.matching import SIX_CONNECTED

MM = (1.0, 1.0, 1.0)


def row(text):
    """One row of voxels, a slice and a row high: ``.`` background, ``-`` liver, ``#`` tumor."""
    return np.array([[[".-#".index(voxel) for voxel in text]]], np.uint8)


def lesion_counts(truth, prediction, **given):
    score = score_lesions(truth, prediction, MM, **given)
    return tuple(score[f"lesions_{name}"] for name in ("true", "predicted", "detected", "false"))


def blocks(*sides, shape=(40, 40, 160)):
    """Cubes of tumor with these sides (voxels), one beside the other, in a liver."""
    labels = np.ones(shape, np.uint8)
    for number, side in enumerate(sides):
        labels[:side, :side, 40 * number : 40 * number + side] = 2
    return labels


def test_a_perfect_prediction_detects_everything():
    truth = row("##-##-#")
    assert lesion_counts(truth, truth) == (3, 3, 3, 0)


def test_iou_of_exactly_half_is_not_detected():
    assert lesion_counts(row("##---"), row("#----")) == (1, 1, 0, 1)  # 1 / 2
    assert lesion_counts(row("###--"), row("##---")) == (1, 1, 1, 0)  # 2 / 3
    assert lesion_counts(row("###---"), row("-###--")) == (1, 1, 0, 1)  # 2 / 4
    assert lesion_counts(row("####--"), row("-####-")) == (1, 1, 1, 0)  # 3 / 5


def test_references_bridged_by_one_prediction_count_as_one_object():
    truth, bridge = row("###-###"), row("#######")
    assert lesion_counts(truth, bridge) == (2, 1, 2, 0)  # alone each reference has IoU 3 / 7, together 6 / 7
    assert lesion_counts(row("##---##"), row("#######")) == (2, 1, 2, 0)  # 4 / 7
    assert lesion_counts(row("#-----#"), row("#######")) == (2, 1, 0, 1)  # 2 / 7: neither


def test_predictions_that_share_a_reference_count_together():
    assert lesion_counts(row("#######"), row("###-###")) == (1, 2, 1, 0)  # 6 / 7


def test_a_reference_joins_the_prediction_that_overlaps_it_most():
    truth = row("####-######")
    prediction = row("##-########")  # the second lesion touches the first reference in one voxel
    assert lesion_counts(truth, prediction) == (2, 2, 1, 1)  # first 2 / 4, second 6 / 8


def test_a_prediction_beside_the_truth_is_false_and_the_truth_missed():
    assert lesion_counts(row("##---"), row("---##")) == (1, 1, 0, 1)


def test_components_do_not_connect_over_edges_and_corners():
    diagonal = np.ones((2, 2, 2), np.uint8)
    diagonal[0, 0, 0] = diagonal[0, 1, 1] = diagonal[1, 1, 0] = 2
    assert lesion_counts(diagonal, diagonal) == (3, 3, 3, 0)


def test_lesions_do_not_connect_across_missing_slices():
    column = np.full((4, 1, 1), 2, np.uint8)
    assert lesion_counts(column, column) == (1, 1, 1, 0)
    assert lesion_counts(column, column, z=np.array([4, 5, 6, 7])) == (1, 1, 1, 0)
    assert lesion_counts(column, column, z=np.array([4, 5, 9, 10])) == (2, 2, 2, 0)
    assert lesion_counts(column, column, z=np.array([0, 2, 4, 6])) == (4, 4, 4, 0)
    assert lesion_counts(column, column, z=np.array([4, 5, 7, 9], np.uint16)) == (3, 3, 3, 0)


def test_a_gap_beside_the_lesions_changes_nothing():
    labels = np.array([1, 2, 2, 1], np.uint8).reshape(4, 1, 1)
    assert lesion_counts(labels, labels, z=np.array([0, 4, 5, 9])) == (1, 1, 1, 0)


def test_no_lesion_gives_counts_of_zero():
    liver, tumor = row("-----"), row("-##--")
    assert lesion_counts(liver, liver) == (0, 0, 0, 0)
    assert lesion_counts(liver, tumor) == (0, 1, 0, 1)
    assert lesion_counts(tumor, liver) == (1, 0, 0, 0)
    assert score_lesions(liver, tumor, MM)["lesions_true_lt10mm"] == 0
    nothing = np.zeros((0, 4, 4), np.uint8)
    assert lesion_counts(nothing, nothing, z=np.zeros(0, np.int64)) == (0, 0, 0, 0)


def test_size_bins_by_equivalent_sphere():
    truth = blocks(8, 9, 16, 17)  # diameters 9.9, 11.2, 19.9, 21.1 mm
    prediction = truth.copy()
    prediction[:, :, 40:80] = 1  # the second lesion is missed
    score = score_lesions(truth, prediction, MM)
    bins = ("lt10mm", "10to20mm", "gt20mm")
    assert [score[f"lesions_true_{size}"] for size in bins] == [1, 2, 1]
    assert [score[f"lesions_detected_{size}"] for size in bins] == [1, 1, 1]


def test_the_diameter_counts_the_spacing_of_every_axis():
    assert sphere_diameter_mm(np.array([1000]), (1, 1, 1)) == pytest.approx(12.407, abs=1e-3)
    assert sphere_diameter_mm(np.array([125]), (4, 2, 1)) == pytest.approx(12.407, abs=1e-3)
    assert score_lesions(blocks(8), blocks(8), (4.0, 1.0, 1.0))["lesions_true_10to20mm"] == 1


def test_without_spacing_bins_are_undefined_and_counts_are_not():
    score = score_lesions(row("##-"), row("##-"), (math.nan, 1.0, 1.0))
    undefined = {name for name, value in score.items() if math.isnan(value)}
    assert undefined == {f"lesions_{k}_{s}" for k in ("true", "detected") for s in ("lt10mm", "10to20mm", "gt20mm")}
    assert (score["lesions_true"], score["lesions_detected"]) == (1, 1)


def test_burden_is_tumor_over_liver_with_tumor():
    score = score_lesions(row(".--#."), row(".-##."), MM)
    assert (score["burden_true"], score["burden_predicted"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert math.isnan(score_lesions(row(".--#."), row("....."), MM)["burden_predicted"])
    assert tumor_burden(row("--")) == 0


@pytest.mark.parametrize(
    ("prediction", "spacing_mm", "z", "says"),
    [
        (row("#--"), MM, None, "truth .* and prediction"),
        (row("#-") + 1, MM, None, "labels up to 3"),
        (row("#-"), (0.0, 1.0, 1.0), None, "spacing_mm"),
        (row("#-"), (1.0, 1.0), None, "spacing_mm"),
        (row("#-"), MM, np.array([1, 2]), "z .* ascending"),
    ],
)
def test_bad_input_is_refused(prediction, spacing_mm, z, says):
    with pytest.raises(ValueError, match=says):
        score_lesions(row("#-"), prediction, spacing_mm, z)


@pytest.mark.parametrize("z", [[2, 1], [1, 1]])
def test_slice_numbers_have_to_ascend(z):
    labels = np.ones((2, 1, 1), np.uint8)
    with pytest.raises(ValueError, match="ascending"):
        score_lesions(labels, labels, MM, np.array(z))


def detected_by_loops(truth, prediction):
    """The rule as the module's docstring says it, a lesion at a time."""
    (reference, n_true), (found, n_predicted) = (ndimage.label(m == 2, SIX_CONNECTED) for m in (truth, prediction))
    true, predicted = range(1, n_true + 1), range(1, n_predicted + 1)
    shared = {(t, p): int(((reference == t) & (found == p)).sum()) for t in true for p in predicted}
    objects = {}  # prediction -> the references that join it
    for t in true:
        best = max(predicted, key=lambda p: (shared[t, p], -p), default=None)
        if best is not None and shared[t, best]:
            objects.setdefault(best, []).append(t)
    members = {}  # object -> the predictions that join it
    for p in predicted:
        overlap = {o: sum(shared[t, p] for t in ts) for o, ts in objects.items()}
        best = max(overlap, key=lambda o: (overlap[o], -o), default=None)
        if best is not None and overlap[best]:
            members.setdefault(best, []).append(p)
    hits = {}
    for o, ps in members.items():
        a, b = np.isin(reference, objects[o]), np.isin(found, ps)
        if (a & b).sum() / (a | b).sum() > 0.5:
            hits[o] = ps
    return sum(len(objects[o]) for o in hits), n_predicted - sum(len(ps) for ps in hits.values())


@given(*[hnp.arrays(np.uint8, (3, 4, 6), elements=st.sampled_from([1, 2, 2]))] * 2)
@settings(deadline=None, max_examples=150)
def test_detection_follows_the_rule_written_with_loops(truth, prediction):
    score = score_lesions(truth, prediction, MM)
    assert (score["lesions_detected"], score["lesions_false"]) == detected_by_loops(truth, prediction)


@pytest.mark.parametrize("tumor_share", [0.2, 0.35, 0.5])
def test_detection_follows_the_rule_where_many_lesions_touch(tumor_share):
    rng = np.random.default_rng(0)
    for _ in range(15):
        truth, noise = 1 + (rng.random((2, 4, 6, 8)) < tumor_share).astype(np.uint8)
        prediction = np.where(rng.random(truth.shape) < 0.8, truth, noise)
        score = score_lesions(truth, prediction, MM)
        assert (score["lesions_detected"], score["lesions_false"]) == detected_by_loops(truth, prediction)


@given(hnp.arrays(np.uint8, (3, 4, 6), elements=st.sampled_from([0, 1, 2])))
@settings(deadline=None, max_examples=50)
def test_bins_add_up_and_the_truth_detects_itself(truth):
    score = score_lesions(truth, truth, (3.0, 5.0, 8.0))
    for kind in ("true", "detected"):
        assert (
            sum(score[f"lesions_{kind}_{size}"] for size in ("lt10mm", "10to20mm", "gt20mm")) == score["lesions_true"]
        )
    assert score["lesions_false"] == 0
