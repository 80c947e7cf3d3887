"""The official scorer's numbers, faults included, against what it prints itself."""

import numpy as np
import pytest

from litsexp.evaluation.matching import match
from litsexp.evaluation.objects import ObjectScores
from litsexp.evaluation.official import detection, failure

SHAPE, SPACING_MM = (6, 9, 11), (0.7, 1.3, 2.1)  # along the file's axes
# Printed by PatrickChrist/lits-challenge-scoring, unchanged, under Python 3.6 with numpy 1.12.0, scipy 0.18.1 and
# MedPy 0.3.0: detected at IoU > 0.5 and at IoU > 0, references, predictions; of its detected objects the sums of Dice,
# RVD, ASSD and maximum, and their number.
PRINTED = [
    (29, 47, 49, 48, 28.5238, -0.75, 0.619, 2.6, 29),
    (19, 29, 34, 38, 18.0607, -1.3021, 1.5322, 9.3463, 19),
    (6, 9, 21, 20, 5.2555, -0.7018, 0.7899, 3.6901, 6),
    (3, 5, 6, 7, 2.7692, -0.3333, 0.1743, 2.1765, 3),
    (24, 37, 46, 46, 23.29, 0.3667, 1.1515, 6.8, 24),
    (10, 21, 36, 35, 10.9047, -0.4641, 1.5714, 12.5579, 12),
    (10, 16, 22, 19, 9.9546, 0.013, 0.0454, 2.1, 10),
    (3, 4, 5, 4, 2.8885, 0.0033, 0.1068, 1.9105, 3),
    (9, 20, 36, 39, 10.8, -0.3333, 0.26, 1.3, 11),
    (32, 38, 41, 41, 31.6454, 0.0076, 0.3682, 2.7, 32),
    (12, 19, 36, 33, 11.4894, -0.016, 0.6619, 7.4004, 12),
    (4, 4, 8, 9, 3.8346, -0.0153, 0.1371, 1.4, 4),
    (40, 48, 50, 48, 39.3231, 0.5238, 0.7138, 4.0, 40),
    (16, 23, 31, 27, 14.8342, -1.2241, 2.0388, 11.5765, 16),
    (6, 7, 28, 26, 5.726, -0.0533, 0.2839, 2.2136, 6),
    (5, 6, 7, 6, 4.9847, 0.0061, 0.0107, 0.7, 5),
]


def noisy_masks():
    """Tumors of noise: bridged, split and touching lesions by the dozen, numbered differently in both masks."""
    rng = np.random.default_rng(7)
    for number in range(len(PRINTED)):
        share, keep = (0.12, 0.25, 0.4, 0.55)[number % 4], (0.95, 0.8, 0.6)[number % 3]
        truth, noise = (1 + (rng.random(SHAPE) < share).astype(np.uint8) for _ in range(2))
        prediction = np.where(rng.random(SHAPE) < keep, truth, noise)
        if number % 2:
            truth, prediction = (np.repeat(mask, 2, axis=2)[:, :, : SHAPE[2]] for mask in (truth, prediction))
        yield truth, prediction


@pytest.mark.parametrize(("turn", "stored"), [((2, 1, 0), (2, 1, 0)), ((0, 1, 2), (0, 1, 2)), ((1, 2, 0), (2, 0, 1))])
def test_noise_is_counted_as_the_official_scorer_counts_it(turn, stored):
    for (truth, prediction), printed in zip(noisy_masks(), PRINTED, strict=True):
        matching = match(truth.transpose(turn) == 2, prediction.transpose(turn) == 2)
        found = detection(matching, stored)
        scores = ObjectScores(matching, found.objects, np.array(SPACING_MM)[list(turn)])
        objects = [scores.of(member) for member in found.objects]
        rvd = sum(1 / (1 + one["rvd"]) - 1 for one in objects)
        sums = [sum(one["dice"] for one in objects), rvd, *(sum(one[n] for one in objects) for n in ("assd", "msd"))]
        assert (found.tp, found.tp_any, found.references, found.predictions) == printed[:4]
        assert sums == pytest.approx(printed[4:8], abs=2e-4)
        assert len(objects) == printed[8]


def matching_of(n_true, n_predicted):
    """So many lesions of one voxel, far from each other."""
    masks = np.zeros((2, 1, 2, 4 * max(n_true, n_predicted) + 1), bool)
    masks[0, 0, 0, : 4 * n_true : 4] = masks[1, 0, 1, : 4 * n_predicted : 4] = True
    return match(*masks)


@pytest.mark.parametrize(
    ("n_true", "n_predicted", "says"),
    [
        (1, 0, ""),
        (255, 32767, ""),
        (0, 3, "a reference without lesions"),
        (1, 32768, "more than 32767 components"),
        (256, 1, "more than 255 lesions"),
    ],
)
def test_where_it_gives_no_number(n_true, n_predicted, says):
    found = failure(matching_of(n_true, n_predicted))
    assert says in found
    assert bool(found) == bool(says)


def test_nothing_found_is_nothing_detected():
    found = detection(matching_of(3, 0), (2, 1, 0))
    assert (found.tp, found.tp_any, found.references, found.predictions, found.objects) == (0, 0, 3, 0, ())
    assert detection(matching_of(2, 5), (2, 1, 0)).tp_any == 0


def test_a_missed_object_counts_below_zero():
    truth, prediction = np.zeros((2, 1, 1, 30), bool)
    truth[..., [0, 9, 19, 29]] = prediction[...] = True  # one prediction bridges four references, IoU 4 / 30
    assert detection(match(truth, prediction), (2, 1, 0)).tp == 1 - 4
