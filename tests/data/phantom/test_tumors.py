"""The phantom's lesions: drawn as in LiTS, and each one a piece of liver whose HU can be computed by hand."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from litsexp.data.phantom import tumors
from litsexp.data.phantom.scanner import SCANNERS
from litsexp.data.phantom.tumors import Liver, draw_contrast_hu, draw_diameters

LIVER_HU, LESION_HU = 110.0, 70.0
PLAIN = tumors.Look(LIVER_HU - LESION_HU, 2.0, None, 3.0, None, 0.5, at_capsule=False, roughness=0.0)


def a_liver(*, front: int = 2) -> Liver:
    """A block of 60 voxels of 2 mm a side; no liver in the ``front`` first ones along x, and room for it in all."""
    shape = (60, 60, 60)
    depth_mm = np.broadcast_to((front - 0.5 - np.arange(60.0))[:, None, None] * 2, shape).astype(np.float32)
    hu, limit_mm = np.full(shape, LIVER_HU, np.float32), np.full(shape, -10, np.float32)
    return Liver((2.0, 2.0, 2.0), depth_mm.copy(), limit_mm, LIVER_HU, hu, np.zeros(shape, np.uint8))


def grow(liver: Liver, look: tumors.Look, at: tuple[float, float, float] = (30, 30, 30), radius_mm: float = 24) -> bool:
    rng = np.random.default_rng(0)
    return tumors._grow(liver, np.array(at), radius_mm, look, 1, SCANNERS["A"], rng)


def drawn(sizes: str, patients: int = 4000) -> list[tuple[float, ...]]:
    rng = np.random.default_rng(0)
    return [draw_diameters(sizes, rng) for _ in range(patients)]


def volumes_cm3(cases: list[tuple[float, ...]]) -> list[float]:
    return [np.pi / 6 * np.power(case, 3).sum() / 1000 for case in cases]


@pytest.mark.parametrize("sizes", ["lits", "large"])
def test_counts_follow_lits(sizes: str) -> None:
    counts = [len(case) for case in drawn(sizes, 9000)] + [0] * 1000  # one patient in ten has none
    assert np.quantile(counts, [0.25, 0.5, 0.75]) == pytest.approx([1, 3, 9], abs=1)
    assert np.median(counts) == 3
    assert max(counts) <= 40


def test_diameters_follow_lits() -> None:
    pooled_mm = np.concatenate(drawn("lits"))
    assert np.median(pooled_mm) == pytest.approx(12, abs=0.5)
    assert np.log(pooled_mm).std() == pytest.approx(0.8, abs=0.04)
    assert (pooled_mm.min(), pooled_mm.max()) == (3, 140)
    assert all(list(case) == sorted(case, reverse=True) for case in drawn("lits", 50))


def test_lesions_of_one_patient_are_of_like_size() -> None:
    pairs = np.log([case[:2] for case in drawn("lits") if len(case) == 2])
    assert np.corrcoef(np.random.default_rng(0).permuted(pairs, axis=1).T)[0, 1] == pytest.approx(0.5, abs=0.12)


def test_tumor_volume_a_case_is_near_lits() -> None:
    """LiTS: 16 cm3, quartiles 3.4 and 108; the stated sizes and counts give no wider spread than this."""
    quartiles_cm3 = np.quantile(volumes_cm3(drawn("lits")), [0.25, 0.5, 0.75])
    assert quartiles_cm3 == pytest.approx([3.6, 15.6, 64], rel=0.15)
    assert np.all(np.abs(np.log(quartiles_cm3 / np.array([3.4, 16, 108]))) < np.log(2))


def test_large_lesions_are_larger_than_in_lits() -> None:
    cases = drawn("large")
    assert np.quantile(volumes_cm3(cases), [0.25, 0.5, 0.75]) == pytest.approx([29, 58, 109], rel=0.1)
    largest_mm = [case[0] for case in cases]
    assert np.median(largest_mm) == pytest.approx(40, abs=1)
    assert (min(largest_mm), max(largest_mm)) == pytest.approx((28, 80))
    assert 9 < np.median([d for case in cases for d in case[1:]]) < 14


def looks(diameter_mm: float, spared: bool = False, site: str = "A", number: int = 2000) -> list[tumors.Look]:
    rng, scanner = np.random.default_rng(0), SCANNERS[site]
    return [tumors._draw_look(diameter_mm, spared, scanner, scanner.liver_hu[0], rng) for _ in range(number)]


def test_contrasts_have_a_hard_stratum_and_a_clear_one() -> None:
    contrasts_hu = np.array([look.contrast_hu for look in looks(30)])
    assert (contrasts_hu < 20).mean() == pytest.approx(0.2, abs=0.03)
    assert not ((contrasts_hu > 20) & (contrasts_hu < 25)).any()
    assert 35 < contrasts_hu.mean() < 45
    assert (contrasts_hu > 50).mean() > 0.1
    spared_hu = np.array([look.contrast_hu for look in looks(30, spared=True)])
    assert spared_hu.min() >= 25
    assert spared_hu.mean() == pytest.approx(45, abs=1)


def test_rims_and_necrosis_belong_to_larger_lesions() -> None:
    def share(found: list[tumors.Look], name: str) -> float:
        return float(np.mean([getattr(look, name) is not None for look in found]))

    small, large = looks(10), looks(30)
    assert share(large, "rim_hu") == pytest.approx(0.8 * 0.3, abs=0.03)  # a hard one has none
    assert share(small, "rim_hu") == pytest.approx(0.8 * 0.15, abs=0.03)
    assert share(large, "core_hu") == pytest.approx(0.8 * 0.25, abs=0.03)
    assert share(small, "core_hu") == 0
    assert share(looks(30, site="B"), "rim_hu") > share(large, "rim_hu") + 0.05
    cores_hu = [look.core_hu for look in large if look.core_hu is not None]
    assert 10 <= min(cores_hu) < max(cores_hu) <= 30
    assert np.mean([look.at_capsule for look in large]) == pytest.approx(0.2, abs=0.03)


def test_edges_are_soft_and_never_wider_than_half_the_lesion() -> None:
    edges_mm = [look.edge_mm for look in looks(30)]
    assert np.quantile(edges_mm, [0, 0.5, 1]) == pytest.approx([1, 5, 9], abs=0.3)
    assert max(look.edge_mm for look in looks(30, spared=True)) <= 5
    assert max(look.edge_mm for look in looks(6)) <= 3


def test_clear_lesions_stand_out_more_in_a_liver_that_enhances_well() -> None:
    rng = np.random.default_rng(0)
    dim, bright = ([draw_contrast_hu(SCANNERS["A"], hu, rng) for _ in range(500)] for hu in (90, 120))
    assert 33 < np.mean(dim) < 37
    assert 53 < np.mean(bright) < 57
    assert min(dim) >= 25


def test_a_plain_lesion_is_a_sphere_of_its_diameter() -> None:
    liver = a_liver()
    assert grow(liver, PLAIN)
    volume_mm3 = (liver.owner == 1).sum() * 8
    stretched = 4 / 3 * np.pi * 24**3  # its axes differ, its volume does not
    assert volume_mm3 == pytest.approx(stretched, rel=0.02)
    assert liver.hu[30, 30, 30] == pytest.approx(LESION_HU)
    assert liver.hu[5, 5, 5] == LIVER_HU
    inside_hu, outside_hu = liver.hu[liver.owner == 1], liver.hu[liver.owner == 0]
    assert inside_hu.max() <= (LIVER_HU + LESION_HU) / 2 + 0.01 <= outside_hu.min() + 0.02


@pytest.mark.parametrize("edge_mm", [2.0, 8.0])
def test_an_edge_is_as_wide_as_drawn(edge_mm: float) -> None:
    liver = a_liver()
    grow(liver, dataclasses.replace(PLAIN, edge_mm=edge_mm))
    between = (liver.hu > LESION_HU + 0.4) & (liver.hu < LIVER_HU - 0.4)
    shell_mm = between.sum() * 8 / (4 * np.pi * 24**2)
    assert shell_mm == pytest.approx(max(edge_mm, 2.0), rel=0.25)


@pytest.mark.parametrize("rim_hu", [LIVER_HU + 20, LESION_HU - 15])
def test_rim_and_necrosis_are_tumor_in_the_labels(rim_hu: float) -> None:
    plain, liver = a_liver(), a_liver()
    grow(plain, PLAIN)
    grow(liver, dataclasses.replace(PLAIN, rim_hu=rim_hu, rim_mm=4.0, core_hu=20.0))
    assert np.array_equal(liver.owner, plain.owner)
    assert liver.hu[30, 30, 30] == pytest.approx(20)
    depth_mm = ndimage.distance_transform_edt(liver.owner == 1, sampling=2.0)
    assert np.median(liver.hu[(depth_mm > 2.5) & (depth_mm < 3.5)]) == pytest.approx(rim_hu, abs=4)
    assert np.median(liver.hu[(depth_mm > 7) & (depth_mm < 9)]) == pytest.approx(LESION_HU, abs=2)
    assert np.median(liver.hu[depth_mm > 16]) == pytest.approx(20, abs=2)


def test_a_lesion_at_the_capsule_makes_the_liver_bulge_where_there_is_room() -> None:
    look = dataclasses.replace(PLAIN, at_capsule=True)
    near = (10 + 6.0, 30, 30)  # 12 mm from the surface, of 24 mm radius: 12 mm would stick out
    free, full, inner = a_liver(front=10), a_liver(front=10), a_liver(front=10)
    full.limit_mm[:10] = 5
    before = free.surface_mm < 0
    for liver, appearance in ((free, look), (full, look), (inner, PLAIN)):
        assert grow(liver, appearance, near)
    bulge = (free.surface_mm < 0) & ~before
    assert 100 < bulge.sum() < 1000
    assert (free.owner[bulge] == 1).all()
    assert np.argwhere(bulge)[:, 0].min() >= 10 - 3  # a fifth of its radius: 4.8 mm
    for liver in (full, inner):
        assert np.array_equal(liver.surface_mm < 0, before)
        assert (liver.owner[before] == 1).any() and not (liver.owner[~before] == 1).any()


def test_a_lesion_that_fills_no_voxel_by_half_is_not_drawn() -> None:
    liver = a_liver()
    assert not grow(liver, PLAIN, (30.5, 30.5, 30.5), radius_mm=0.7)
    assert (liver.hu == LIVER_HU).all() and not liver.owner.any()


def test_a_patients_first_lesion_is_never_lost() -> None:
    for seed in range(20):
        liver = a_liver()
        liver.spacing_mm = (8.0, 8.0, 14.0)
        lesions = tumors.grow_lesions(liver, (3.0, 3.0), "lits", SCANNERS["A"], np.random.default_rng(seed))
        assert len(lesions) == 1
        assert lesions[0].voxels >= 1


def test_lesions_keep_apart() -> None:
    for seed in range(5):
        liver = a_liver()
        lesions = tumors.grow_lesions(liver, (30.0,) * 12, "lits", SCANNERS["A"], np.random.default_rng(seed))
        assert [lesion.diameter_mm for lesion in lesions] == [30] * 12
        assert [int((liver.owner == n).sum()) for n in range(1, 13)] == [lesion.voxels for lesion in lesions]
        centres = 2 * np.array(ndimage.center_of_mass(liver.owner > 0, liver.owner, range(1, 13)))
        apart_mm = np.linalg.norm(centres[:, None] - centres, axis=2)[np.triu_indices(12, 1)]
        assert apart_mm.min() > 1.4 * 15  # two of them touch at 30 mm


def test_a_voxel_stays_with_the_lesion_that_came_first() -> None:
    liver = a_liver()
    assert grow(liver, PLAIN)
    first = liver.owner == 1
    rng = np.random.default_rng(0)
    assert tumors._grow(liver, np.array([40.0, 30.0, 30.0]), 20, PLAIN, 2, SCANNERS["A"], rng)
    assert np.array_equal(liver.owner == 1, first)
    assert (liver.owner == 2).any()
