"""The LiTS summary: right where the official scorer is right, and beside its number where it is not."""

import math

import numpy as np
import pytest

from litsexp.evaluation.cases import boxed
from litsexp.evaluation.lits import agree, lits_case, lits_summary
from litsexp.evaluation.objects import overlap
from litsexp.evaluation.volumes import score_volume

from .masks import ADVERSARIAL, MM, case_of

STORED = (2, 1, 0)  # (z, y, x) arrays of a file that is stored x, y, z
# Printed by PatrickChrist/lits-challenge-scoring for ``patients``: Python 3.6, numpy 1.12.0, scipy 0.18.1, MedPy 0.3.0.
PRINTED = {
    "lesion_precision": 0.000,
    "lesion_recall": 0.000,
    "lesion_precision_greater_zero": 1.000,
    "lesion_recall_greater_zero": 0.667,
    "lesion_dice": 0.000,
    "lesion_jaccard": 0.000,
    "lesion_voe": 1.000,
    "lesion_rvd": 9001.000,
    "lesion_assd": 9001.000,
    "lesion_rmsd": 9001.000,
    "lesion_msd": 9001.000,
    "lesion_dice_per_case": 0.354,
    "lesion_dice_global": 0.175,
    "liver_dice": 0.482,
    "liver_jaccard": 0.464,
    "liver_voe": 0.536,
    "liver_rvd": 4500.497,
    "liver_assd": 4500.588,
    "liver_rmsd": 4500.688,
    "liver_msd": 4500.900,
    "liver_dice_per_case": 0.482,
    "liver_dice_global": 0.643,
    "burden_rmse": 6364.661,
    "burden_max_error": 0.000,
}


def patients():
    """Four: moved by a voxel, tumor without label 1, a burden far too high, nothing predicted."""
    rng = np.random.default_rng(3)
    for number in range(4):
        truth = np.zeros((40, 36, 18), np.uint8)
        truth[5:30, 6:30, 3:15] = 1
        for _ in range(3):
            x, y, z = rng.integers((8, 8, 4), (26, 26, 12))
            truth[x : x + 3, y : y + 4, z : z + 2] = 2
        prediction = np.roll(truth, 1, axis=0)
        if number == 1:
            prediction[prediction == 1] = 0
        elif number == 2:
            prediction[5:20, 6:20, 3:9] = 2
        elif number == 3:
            prediction[:] = 0
        yield case_of(truth.transpose(STORED), prediction.transpose(STORED), (2.5, 0.8, 0.8), number)


def summary(cases, written_mm=None, surface_mm=2.0):
    parts = [
        lits_case(case, score_volume(case, None, surface_mm), STORED, written_mm or case.spacing_mm) for case in cases
    ]
    return {score.name: score for score in lits_summary(parts)}


@pytest.mark.parametrize("cut", [lambda case: case, boxed])
def test_its_numbers_are_those_that_the_official_scorer_prints(cut):
    found = summary(map(cut, patients()))
    assert {name: score.official for name, score in found.items()} == pytest.approx(PRINTED, abs=5.1e-4)
    for score in found.values():
        assert bool(score.why) != agree(score.value, score.official)


def test_what_is_right_in_place_of_its_faults():
    found = {name: score.value for name, score in summary(patients()).items()}
    rows = [score_volume(case, None, 2.0) for case in patients()]
    assert math.isnan(found["lesion_dice"])  # nothing is detected
    assert found["lesion_recall_greater_zero"] == 9 / 12
    for score in ("dice", "assd", "msd"):
        assert found[f"liver_{score}"] == pytest.approx(np.mean([row[f"{score}_liver"] for row in rows]))
    assert found["liver_msd"] < math.hypot(18 * 2.5, 36 * 0.8, 40 * 0.8)  # a miss is the diagonal, not 9001
    errors = [np.nan_to_num(row["burden_predicted"]) - row["burden_true"] for row in rows]
    assert found["burden_max_error"] == pytest.approx(max(map(abs, errors)))
    assert found["burden_rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_whys_name_what_made_the_difference():
    found = summary(patients())
    assert "keeps the sign" in found["burden_max_error"].why
    assert "divides by the prediction" in found["liver_rvd"].why
    assert found["liver_dice"].why == "finds no liver without label 1, even where there is tumor"
    assert found["lesion_recall_greater_zero"].why == "counts an object, not its lesions"
    assert "undefined" in found["lesion_msd"].why
    assert found["lesion_dice_global"].why == ""


def test_rvd_is_over_the_reference():
    truth, prediction = np.zeros((2, 4, 6, 6), np.uint8)
    truth[:, :4, :5] = 1
    prediction[:, :4, :4] = 1
    truth[1, 1, 1] = prediction[1, 1, 1] = 2
    found = summary([case_of(truth, prediction)])
    assert (found["liver_rvd"].value, found["liver_rvd"].official) == (pytest.approx(-0.2), pytest.approx(0.25))
    assert found["liver_rvd"].why == "divides by the prediction: (reference - prediction) / prediction"
    others = found.keys() - {"liver_rvd", "burden_max_error"}
    assert all(not found[name].why for name in others)


def test_a_tumor_free_reference_ends_the_official_scorer_and_not_this_one():
    truth, prediction = np.ones((2, 3, 4, 5), np.uint8)
    tumor = truth.copy()
    tumor[1, 1, 1] = 2
    found = summary([case_of(truth, prediction, number=3), case_of(tumor, tumor, number=4)])
    assert all(math.isnan(score.official) for score in found.values())
    assert found["lesion_recall"].value == 1
    assert found["lesion_dice_per_case"].value == 1  # both empty is 1 in LiTS
    assert (
        found["lesion_recall"].why == "gives no number: it ends with an error at a reference without lesions (case 3)"
    )


def test_unknown_millimetres_stay_unknown_though_a_header_writes_some():
    truth, prediction = ADVERSARIAL["another slice"]
    found = summary([case_of(truth, prediction, (math.nan,) * 3)], written_mm=(1.0, 1.0, 1.0))
    there = summary([case_of(truth, prediction, (1.0, 1.0, 1.0))])
    assert math.isnan(found["liver_assd"].value)
    assert found["liver_assd"].official == there["liver_assd"].official > 0


def test_other_millimetres_beside_the_affine_are_named():
    truth, prediction = ADVERSARIAL["another slice"]
    found = summary([case_of(truth, prediction, MM)], written_mm=(1.0, 1.0, 1.0))
    assert found["liver_assd"].why == "takes the millimetres beside the affine"
    assert found["liver_dice"].why == ""


@pytest.mark.parametrize("name", [n for n, (truth, _) in ADVERSARIAL.items() if (truth == 2).any()])
def test_adversarial_masks_are_summed_up(name):
    found = summary([case_of(*ADVERSARIAL[name])])
    assert list(found) == list(PRINTED)
    assert all(not math.isinf(score.value) for score in found.values())
    assert all(math.isfinite(score.official) for score in found.values())


def test_without_surfaces_there_are_no_distances():
    found = summary(patients(), surface_mm=None)
    assert list(found) == [name for name in PRINTED if not name.endswith(("_assd", "_rmsd", "_msd"))]


def test_overlap_of_nothing_is_undefined():
    assert all(math.isnan(value) for value in overlap(0, 0, 0).values())
    assert overlap(0, 0, 4) == {"dice": 0, "jaccard": 0, "voe": 1, "rvd": -1}
    assert math.isnan(overlap(0, 4, 0)["rvd"])
