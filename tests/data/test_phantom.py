"""The phantom is the embedded default of every study: it must look like CT to what learns from it."""

import numpy as np
import pytest
from scipy import ndimage

from litsexp.config import LitsexpError
from litsexp.data import phantom
from litsexp.data.phantom import PhantomCase, PhantomConfig, make_case

COHORT = PhantomConfig(patients=10, seed=0)


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [make_case(COHORT, number) for number in range(COHORT.patients)]


def test_grid_covers_the_liver(cases: list[PhantomCase]) -> None:
    for case in cases:
        assert case.hu.shape == case.labels.shape == (96, 96, 24)
        assert (case.hu.dtype, case.labels.dtype) == (np.int16, np.uint8)
        assert 340 <= 96 * case.spacing_mm[0] <= 401
        assert 6 <= case.spacing_mm[2] <= 8
        assert not (case.labels[:, :, -1] > 0).any()
        assert case.hu[0, 0, 0] == -1024
        assert ndimage.label(case.labels > 0)[1] == 1
    liver_ml = [(case.labels > 0).sum() * np.prod(case.spacing_mm) / 1000 for case in cases]
    assert 1200 < np.mean(liver_ml) < 1800


def test_hounsfield_units(cases: list[PhantomCase]) -> None:
    liver_hu = np.array([np.median(case.hu[case.labels == 1]) for case in cases])
    assert 90 < liver_hu.mean() < 120
    assert 5 < liver_hu.std() < 25
    tumor_hu = [float(case.hu[case.labels == 2].mean() - liver) for case, liver in zip(cases, liver_hu, strict=True)
                if case.lesions]  # fmt: skip
    assert -50 < np.mean(tumor_hu) < -20
    everything = np.concatenate([case.hu.ravel() for case in cases])
    assert everything.min() == -1024
    for low, high, least in [(-1024, -950, 0.2), (-850, -700, 0.005), (-130, -80, 0.1), (300, 1500, 0.001)]:
        assert ((everything >= low) & (everything <= high)).mean() > least  # air, lung, fat, bone


def test_noise_level_and_correlation(cases: list[PhantomCase]) -> None:
    sums, sds = np.zeros((3, 2)), []
    for case in cases:
        core = ndimage.binary_erosion(case.labels == 1, np.ones((3, 3, 1)), iterations=2)
        residual = np.where(core, case.hu - case.hu[core].mean(), 0)
        sds.append(residual[core].std())
        for axis in range(3):
            for lag in (1, 2):
                both = core & np.roll(core, lag, axis)
                sums[axis, lag - 1] += (residual * np.roll(residual, lag, axis))[both].mean() / residual[core].var()
    lag_1, lag_2 = (sums / len(cases)).T
    assert 18 < np.mean(sds) < 24  # vessels included
    assert lag_1 == pytest.approx([0.4, 0.4, 0.5], abs=0.1)
    assert (lag_2 < 0.2).all()


def test_noise_alone_has_the_stated_correlation() -> None:
    noise = phantom._noise((96, 96, 24), np.random.default_rng(0))
    lags = [np.roll(noise, 1, axis) for axis in range(3)] + [np.roll(noise, 2, axis) for axis in range(3)]
    found = [float((noise * moved).mean() / noise.var()) for moved in lags]
    assert found[:3] == pytest.approx([0.4, 0.4, 0.5], abs=0.02)
    assert max(found[3:]) < 0.1


def test_lesions_are_the_labels(cases: list[PhantomCase]) -> None:
    for case in cases:
        assert sum(lesion.voxels for lesion in case.lesions) == (case.labels == 2).sum()
        if case.lesions:
            assert max(lesion.diameter_mm for lesion in case.lesions) >= 20  # 25 as drawn, less where the liver is full
            assert min(lesion.voxels for lesion in case.lesions) >= 1


def test_lesion_boundary_is_at_half_height(cases: list[PhantomCase], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, which moves a hard lesion's edge more than its contrast; labels are the same with it."""
    monkeypatch.setattr(phantom, "_noise", lambda shape, rng: np.zeros(shape, np.float32))
    disk = ndimage.generate_binary_structure(2, 1)[:, :, None]  # in plane: a slice is thick
    rises, contrasts = [], []
    for number, noisy in enumerate(cases):
        tumor = noisy.labels == 2
        core = ndimage.binary_erosion(tumor, disk, iterations=2)
        if core.sum() <= 60:
            continue
        case = make_case(COHORT, number)
        assert np.array_equal(case.labels, noisy.labels)
        liver, grown = case.labels == 1, [ndimage.binary_dilation(tumor, disk, n) for n in (1, 2, 4)]
        inner, outer = tumor & ~ndimage.binary_erosion(tumor, disk), liver & grown[0]
        boundary_hu = (case.hu[inner].mean() + case.hu[outer].mean()) / 2
        tumor_hu, liver_hu = np.median(case.hu[core]), np.median(case.hu[liver & grown[2] & ~grown[1]])
        rises.append(boundary_hu - tumor_hu)
        contrasts.append(liver_hu - tumor_hu)
    assert len(rises) >= 4
    assert np.divide(rises, contrasts) == pytest.approx(np.full(len(rises), 0.5), abs=0.1)  # each case
    assert sum(rises) / sum(contrasts) == pytest.approx(0.5, abs=0.05)


def test_one_patient_in_ten_has_no_tumor() -> None:
    for seed in range(5):
        free = [number for number in range(40) if phantom._is_tumor_free(seed, number)]
        assert [number // 10 for number in free] == [0, 1, 2, 3]
    assert len({tuple(phantom._is_tumor_free(seed, n) for n in range(10)) for seed in range(10)}) > 1


def test_tumor_free_case_has_no_lesion(cases: list[PhantomCase]) -> None:
    assert [not case.lesions for case in cases] == [phantom._is_tumor_free(0, number) for number in range(10)]


def test_lesion_sizes_and_counts_follow_lits() -> None:
    rng = np.random.default_rng(0)
    drawn = [phantom._draw_diameters(rng) for _ in range(2000)]
    assert 3 <= np.median([len(diameters) for diameters in drawn]) <= 4
    small = [d for diameters in drawn for d in diameters[1:]]
    assert 9 < np.median(small) < 14
    assert min(small) >= 3
    assert max(d for diameters in drawn for d in diameters) <= 140
    assert min(diameters[0] for diameters in drawn) >= 28


def test_tumor_volume_a_case_is_more_than_in_lits() -> None:
    rng = np.random.default_rng(0)
    drawn_cm3 = [np.pi / 6 * np.power(phantom._draw_diameters(rng), 3).sum() / 1000 for _ in range(4000)]
    quartiles_cm3 = np.quantile(drawn_cm3, [0.25, 0.5, 0.75])
    assert quartiles_cm3 == pytest.approx([29, 58, 109], rel=0.1)
    assert np.all(quartiles_cm3 > [3.4, 16, 100])  # LiTS: 3.4, 16, 108


def test_tumor_volume_survives_in_the_labels(cases: list[PhantomCase]) -> None:
    """Over all cases: a lesion at the capsule is cut there."""
    drawn_cm3 = sum(np.pi / 6 * lesion.diameter_mm**3 for case in cases for lesion in case.lesions) / 1000
    labeled_cm3 = sum((case.labels == 2).sum() * np.prod(case.spacing_mm) for case in cases) / 1000
    assert labeled_cm3 == pytest.approx(drawn_cm3, rel=0.25)


def test_clear_lesions_stand_out_more_in_a_liver_that_enhances_well() -> None:
    rng = np.random.default_rng(0)
    dim, bright = ([phantom._contrast_hu(liver_hu, rng) for _ in range(500)] for liver_hu in (90, 120))
    assert 33 < np.mean(dim) < 37
    assert 53 < np.mean(bright) < 57
    assert min(dim) >= 25


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"patients": 1, "seed": -1}, {"patients": 1, "size": 8}])
def test_impossible_config_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(LitsexpError, match="expected at least"):
        PhantomConfig(**wrong)
