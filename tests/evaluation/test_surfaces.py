"""Surface scores against MONAI, scipy and distances counted by hand."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from litsexp.evaluation.surfaces import EDGES, FACES, SURFACE_SCORES, directed, surface, surface_scores

from .masks import ADVERSARIAL, MM, ball, label_pairs

SPACINGS = st.sampled_from([(1.0, 1.0, 1.0), (5.0, 0.7, 0.7), MM])
TWO = [(truth > 0, prediction > 0) for truth, prediction in ADVERSARIAL.values() if truth.any() and prediction.any()]


def scored(truth, prediction, spacing_mm=MM, tolerance_mm=2.0):
    return surface_scores(truth, prediction, spacing_mm, tolerance_mm, diagonal_mm=100.0)


def monai_scores(truth, prediction, spacing_mm, tolerance_mm):
    """HD95 and NSD as MONAI has them."""
    torch, metrics = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    seen = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (prediction, truth)]
    hd95 = metrics.compute_hausdorff_distance(
        seen[0], seen[1], include_background=True, percentile=95, spacing=list(spacing_mm)
    )
    nsd = metrics.compute_surface_dice(
        seen[0], seen[1], class_thresholds=[tolerance_mm], include_background=True, spacing=list(spacing_mm)
    )
    return float(hd95), float(nsd)


def brute_force(truth, prediction, spacing_mm, connectivity):
    """All distances between the voxels that scipy's erosion takes away."""
    structure = ndimage.generate_binary_structure(3, connectivity)
    edges = [np.argwhere(mask & ~ndimage.binary_erosion(mask, structure)) for mask in (truth, prediction)]
    between = cdist(*(edge * np.array(spacing_mm) for edge in edges))
    return between.min(axis=1), between.min(axis=0)


@pytest.mark.parametrize(("truth", "prediction"), TWO)
@pytest.mark.parametrize("spacing_mm", [MM, (1.0, 1.0, 1.0)])
def test_hd95_and_nsd_are_those_of_monai(truth, prediction, spacing_mm):
    found = scored(truth, prediction, spacing_mm)
    assert (found["hd95"], found["nsd"]) == pytest.approx(monai_scores(truth, prediction, spacing_mm, 2.0), abs=1e-4)


@given(label_pairs(), SPACINGS, st.sampled_from([0.0, 0.95, 2.05]))
@settings(deadline=None, max_examples=60)
def test_hd95_and_nsd_of_random_masks_are_those_of_monai(pair, spacing_mm, tolerance_mm):
    truth, prediction = (mask > 0 for mask in pair)
    assume(truth.any() and prediction.any())
    found = scored(truth, prediction, spacing_mm, tolerance_mm)
    expected = monai_scores(truth, prediction, spacing_mm, tolerance_mm)
    assert (found["hd95"], found["nsd"]) == pytest.approx(expected, abs=1e-4)


@given(label_pairs(), SPACINGS)
@settings(deadline=None, max_examples=80)
def test_distances_are_the_least_of_all(pair, spacing_mm):
    truth, prediction = (mask > 0 for mask in pair)
    assume(truth.any() and prediction.any())
    for connectivity in (FACES, EDGES):
        for found, expected in zip(
            directed(truth, prediction, spacing_mm, connectivity),
            brute_force(truth, prediction, spacing_mm, connectivity),
            strict=True,
        ):
            assert found == pytest.approx(expected)
    both = np.concatenate(brute_force(truth, prediction, spacing_mm, EDGES))
    found = scored(truth, prediction, spacing_mm)
    assert found["assd"] == pytest.approx(both.mean())
    assert found["rmsd"] == pytest.approx(math.sqrt((both**2).mean()))
    assert found["msd"] == pytest.approx(both.max())


@given(label_pairs(), st.sampled_from([FACES, EDGES]))
@settings(deadline=None, max_examples=60)
def test_a_surface_is_what_scipys_erosion_takes_away(pair, connectivity):
    mask = pair[0] > 0
    eroded = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, connectivity))
    assert np.array_equal(surface(mask, connectivity), mask & ~eroded)


def test_a_moved_plane_by_hand():
    truth, prediction = np.zeros((2, 1, 5, 1), bool)
    truth[0, 1], prediction[0, 3] = True, True
    found = scored(truth, prediction, (9.0, 0.7, 9.0), tolerance_mm=1.3)
    assert found == {"assd": 1.4, "rmsd": 1.4, "msd": 1.4, "hd95": 1.4, "nsd": 0.0}
    assert scored(truth, prediction, (9.0, 0.7, 9.0), tolerance_mm=1.4)["nsd"] == 1.0  # the tolerance belongs to it


def test_a_grown_ball_is_about_as_far_as_it_grew():
    shape = (30, 60, 40)
    truth, prediction = (ball(shape, (15, 30, 20), radius) for radius in (15, 18))
    found = scored(truth, prediction)
    assert found["assd"] == pytest.approx(3, abs=0.5)
    assert found["nsd"] < 0.2
    assert scored(truth, prediction, tolerance_mm=3 + max(MM))["nsd"] == 1.0


def test_what_lies_around_changes_nothing():
    truth, prediction = ADVERSARIAL["bridged"]
    wide = [np.pad(mask > 0, ((3, 1), (2, 5), (4, 7))) for mask in (truth, prediction)]
    assert scored(*wide) == scored(truth > 0, prediction > 0)


def test_misses_and_what_is_undefined():
    some, none = ADVERSARIAL["missed"]
    miss = {"assd": 100.0, "rmsd": 100.0, "msd": 100.0, "hd95": 100.0, "nsd": 0.0}
    assert scored(some > 0, none > 0) == scored(none > 0, some > 0) == miss
    assert all(math.isnan(value) for value in scored(none > 0, none > 0).values())
    unknown = scored(some > 0, some > 0, (math.nan, 1.0, 1.0))
    assert list(unknown) == list(SURFACE_SCORES)
    assert all(math.isnan(value) for value in unknown.values())
    assert all(math.isnan(value) for value in scored(some > 0, none > 0, (math.nan,) * 3).values())
