"""The phantom is the embedded default of every study: it must look like CT to what learns from it.

The cohort's numbers against their targets; how lesions are drawn and what one looks like is in ``test_tumors``.
"""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from litsexp.data.phantom import patient as phantom
from litsexp.data.phantom import tumors
from litsexp.data.phantom.anatomy import SOLID, Canvas
from litsexp.data.phantom.patient import PhantomCase, PhantomConfig, make_case
from litsexp.data.phantom.scanner import SCANNERS, noise
from litsexp.spec.errors import LitsexpError

COHORT = PhantomConfig(patients=20, seed=0)
AT_B = PhantomConfig(patients=10, seed=0, site="B")
LARGE = PhantomConfig(patients=10, seed=0, lesions="large")


def cohort(config: PhantomConfig) -> list[PhantomCase]:
    return [make_case(config, number) for number in range(config.patients)]


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return cohort(COHORT)


@pytest.fixture(scope="module")
def cases_at_b() -> list[PhantomCase]:
    return cohort(AT_B)


@pytest.fixture(scope="module")
def large_cases() -> list[PhantomCase]:
    return cohort(LARGE)


def core_of(case: PhantomCase) -> np.ndarray:
    """The liver's tissue, two pixels from its edge and from lesions."""
    return ndimage.binary_erosion(case.labels == 1, np.ones((3, 3, 1)), iterations=2)


def noise_of(cases: list[PhantomCase]) -> tuple[float, np.ndarray]:
    """SD of the liver's voxels, and their correlation along x, y, z (rows) at lag 1 and 2; means over the cases."""
    sds, sums = [], []
    for case in cases:
        core = core_of(case)
        residual = np.where(core, case.hu - case.hu[core].mean(), 0)
        sds.append(residual[core].std())
        pairs = [(axis, lag, core & np.roll(core, lag, axis)) for axis in range(3) for lag in (1, 2)]
        products = [(residual * np.roll(residual, lag, axis))[both].mean() for axis, lag, both in pairs]
        sums.append(np.reshape(products, (3, 2)) / residual[core].var())
    return float(np.mean(sds)), np.mean(sums, axis=0)


def tumor_cm3(cases: list[PhantomCase]) -> list[float]:
    return [float((c.labels == 2).sum() * np.prod(c.spacing_mm) / 1000) for c in cases if c.lesions]


def test_grid_covers_the_liver(cases: list[PhantomCase]) -> None:
    for case in cases:
        assert case.hu.shape == case.labels.shape == (96, 96, 24)
        assert (case.hu.dtype, case.labels.dtype) == (np.int16, np.uint8)
        assert 340 <= 96 * case.spacing_mm[0] <= 401
        assert 6.5 <= case.spacing_mm[2] <= 8.7
        assert not (case.labels[:, :, -1] > 0).any()
        assert (case.labels[:, :, 0] > 0).mean() < 0.01  # the tip at most
        assert case.hu[0, 0, 0] == -1024
        assert ndimage.label(case.labels > 0)[1] == 1
    liver_ml = [(case.labels > 0).sum() * np.prod(case.spacing_mm) / 1000 for case in cases]
    assert np.mean(liver_ml) == pytest.approx(1500, abs=200)
    assert np.std(liver_ml) == pytest.approx(400, abs=150)


def test_hounsfield_units(cases: list[PhantomCase]) -> None:
    liver_hu = np.array([np.median(case.hu[case.labels == 1]) for case in cases])
    assert liver_hu.mean() == pytest.approx(105, abs=7)
    assert liver_hu.std() == pytest.approx(15, abs=5)
    tumor_hu = np.concatenate([case.hu[case.labels == 2] for case in cases])
    assert tumor_hu.mean() == pytest.approx(65, abs=8)  # as LiTS
    assert tumor_hu.std() == pytest.approx(26, abs=4)  # case 117: 23
    everything = np.concatenate([case.hu.ravel() for case in cases])
    assert everything.min() == -1024
    for low, high, least in [(-1024, -950, 0.2), (-850, -700, 0.005), (-130, -80, 0.1), (300, 1500, 0.001)]:
        assert ((everything >= low) & (everything <= high)).mean() > least  # air, lung, fat, bone


def test_noise_level_and_correlation(cases: list[PhantomCase]) -> None:
    """LiTS case 117: 20 to 22 HU, 0.41 in plane and 0.52 across slices, under 0.1 in plane at lag 2."""
    sd_hu, correlation = noise_of(cases)
    assert sd_hu == pytest.approx(21.5, abs=1.5)
    assert correlation[:, 0] == pytest.approx([0.41, 0.41, 0.52], abs=0.05)
    assert (correlation[:2, 1] < 0.12).all() and correlation[2, 1] < 0.2


@pytest.mark.parametrize("site", SCANNERS)
def test_noise_alone_has_the_stated_correlation(site: str) -> None:
    scanner = SCANNERS[site]
    values = noise((96, 96, 24), scanner, np.random.default_rng(0))
    lags = [np.roll(values, lag, axis) for lag in (1, 2) for axis in range(3)]
    found = [float((values * moved).mean() / values.var()) for moved in lags]
    assert found[:3] == pytest.approx(scanner.noise_correlation, abs=0.02)
    assert max(found[3:]) < 0.1
    assert values.std() == pytest.approx(scanner.noise_hu[0], abs=3 * scanner.noise_hu[1])


def test_class_balance(cases: list[PhantomCase]) -> None:
    """LiTS: 2.2 % liver and 0.1 % tumor of scans that reach from the chest to the pelvis; these show 18 cm."""
    liver, tumor = (np.mean([(case.labels >= label).mean() for case in cases]) for label in (1, 2))
    assert liver == pytest.approx(0.06, abs=0.012)
    assert 0.02 < tumor / liver < 0.09  # LiTS: 0.1 / 2.2


def test_lesion_counts_and_sizes_as_labeled(cases: list[PhantomCase]) -> None:
    """What is left of LiTS' counts and sizes where a voxel is 4 x 4 x 8 mm: none under some 5 mm."""
    counts = [len(case.lesions) for case in cases]
    assert np.median(counts) == pytest.approx(3, abs=1)
    assert 7 < max(counts) <= 40
    diameters_mm = [lesion.diameter_mm for case in cases for lesion in case.lesions]
    assert 3 < min(diameters_mm) < 8
    assert np.median(diameters_mm) == pytest.approx(14.5, abs=2.5)  # of those that are drawn: 12
    assert np.log(diameters_mm).std() == pytest.approx(0.62, abs=0.12)
    assert 5 < np.median(tumor_cm3(cases)) < 50  # LiTS: 16


def test_lesions_are_the_labels(cases: list[PhantomCase]) -> None:
    for case in cases:
        assert sum(lesion.voxels for lesion in case.lesions) == (case.labels == 2).sum()
        assert all(lesion.voxels >= 1 for lesion in case.lesions)
    drawn_cm3 = sum(np.pi / 6 * lesion.diameter_mm**3 for case in cases for lesion in case.lesions) / 1000
    assert sum(tumor_cm3(cases)) == pytest.approx(drawn_cm3, rel=0.15)  # a lesion at the capsule is cut there


def test_some_lesions_are_hard_and_some_have_rim_or_necrosis(cases: list[PhantomCase]) -> None:
    looks = [lesion.look for case in cases for lesion in case.lesions]
    assert np.mean([look.contrast_hu for look in looks]) == pytest.approx(40, abs=5)
    assert np.mean([look.contrast_hu < 20 for look in looks]) == pytest.approx(0.2, abs=0.1)
    assert 0.08 < np.mean([look.rim_hu is not None for look in looks]) < 0.3
    assert 0.02 < np.mean([look.core_hu is not None for look in looks]) < 0.2
    assert 0.1 < np.mean([look.at_capsule for look in looks]) < 0.3


def test_lesion_boundary_is_at_half_height(large_cases: list[PhantomCase], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, rims, necrosis and hard lesions, so that one case has one contrast. Labels are the same."""
    monkeypatch.setattr(phantom, "noise", lambda shape, scanner, rng: np.zeros(shape, np.float32))
    monkeypatch.setattr(tumors, "CORE_SHARE", 0)
    monkeypatch.setattr(tumors, "HARD_SHARE", 0)
    monkeypatch.setattr(phantom, "SCANNERS", {"A": dataclasses.replace(SCANNERS["A"], rim_share=0)})
    disk = ndimage.generate_binary_structure(2, 1)[:, :, None]  # in plane: a slice is thick
    rises, contrasts = [], []
    for number, noisy in enumerate(large_cases):
        tumor = noisy.labels == 2
        core = ndimage.binary_erosion(tumor, disk, iterations=2)
        if core.sum() <= 60:
            continue
        case = make_case(LARGE, number)
        assert np.array_equal(case.labels, noisy.labels)
        deep = ndimage.binary_erosion(case.labels > 0, disk, iterations=3)  # where no fat or lung shows through
        liver, grown = (case.labels == 1) & deep, [ndimage.binary_dilation(tumor, disk, n) for n in (1, 2, 4)]
        inner, outer = deep & tumor & ~ndimage.binary_erosion(tumor, disk), liver & grown[0]
        boundary_hu = (case.hu[inner].mean() + case.hu[outer].mean()) / 2
        tumor_hu, liver_hu = np.median(case.hu[core]), np.median(case.hu[liver & grown[2] & ~grown[1]])
        rises.append(boundary_hu - tumor_hu)
        contrasts.append(liver_hu - tumor_hu)
    assert len(rises) >= 4
    assert np.divide(rises, contrasts) == pytest.approx(np.full(len(rises), 0.5), abs=0.12)  # each case
    assert sum(rises) / sum(contrasts) == pytest.approx(0.5, abs=0.06)


def test_partial_volume_follows_a_surface_through_the_voxels() -> None:
    """A tilted plane: half a voxel's fill where it passes the centre, and on average what lies below it."""
    x, z = np.arange(12.0)[:, None, None] * 4, np.arange(12.0)[None, None, :] * 8
    for along_x, along_z, thickness in [(1, 0, 1), (0, 1, 1), (0, 1, 0.5), (0.6, 0.8, 1)]:
        surface_mm = (along_x * (x - 20) + along_z * (z - 40) + np.zeros((12, 12, 12))).astype(np.float32)
        canvas = Canvas(np.zeros((12, 12, 12), np.float32), thickness)
        canvas.paint(surface_mm, 1.0)
        assert canvas.hu[5, 5, 5] == pytest.approx(0.5)
        assert canvas.hu.min() == 0 and canvas.hu.max() == 1
        width_mm = np.hypot(4 * along_x, 8 * along_z * thickness)
        assert ((canvas.hu > 0) & (canvas.hu < 1)).any()
        assert (canvas.hu[surface_mm > width_mm / 2] == 0).all() and (canvas.hu[surface_mm < -width_mm / 2] == 1).all()


@pytest.mark.parametrize("site", SCANNERS)
def test_one_patient_in_ten_has_no_tumor(site: str) -> None:
    for seed in range(5):
        config = PhantomConfig(40, seed, site=site)
        free = [number for number in range(40) if phantom._is_tumor_free(config, number)]
        assert [number // 10 for number in free] == [0, 1, 2, 3]
    which = {
        tuple(phantom._is_tumor_free(PhantomConfig(10, seed, site=site), n) for n in range(10)) for seed in range(10)
    }
    assert len(which) > 1


def test_tumor_free_case_has_no_lesion(cases: list[PhantomCase]) -> None:
    expected = [phantom._is_tumor_free(COHORT, number) for number in range(20)]
    assert [not case.lesions for case in cases] == expected
    assert [not (case.labels == 2).any() for case in cases] == expected


def test_large_lesions_are_the_same_patients_with_more_tumor(
    cases: list[PhantomCase], large_cases: list[PhantomCase]
) -> None:
    for lits, large in zip(cases, large_cases, strict=False):
        assert lits.spacing_mm == large.spacing_mm
        assert (lits.labels > 0).sum() == pytest.approx((large.labels > 0).sum(), rel=0.02)
        assert bool(lits.lesions) == bool(large.lesions)
        if large.lesions:
            assert large.lesions[0].diameter_mm >= 20  # 28 as drawn, less where the liver is full
            assert large.lesions[0].look.contrast_hu >= 25
    assert 25 < np.quantile(tumor_cm3(large_cases), 0.25) < 45
    assert 40 < np.median(tumor_cm3(large_cases)) < 110


def test_the_second_site_differs_in_what_is_named(cases: list[PhantomCase], cases_at_b: list[PhantomCase]) -> None:
    a, b = SCANNERS["A"], SCANNERS["B"]
    assert [f.name for f in dataclasses.fields(a) if getattr(a, f.name) == getattr(b, f.name)] == []
    (sd_a, lags_a), (sd_b, lags_b) = noise_of(cases[:10]), noise_of(cases_at_b)
    assert sd_b > sd_a + 5
    assert (lags_b[:, 0] < lags_a[:, 0] - 0.15).all()
    spacing_a, spacing_b = (np.mean([c.spacing_mm for c in found], axis=0) for found in (cases, cases_at_b))
    assert (spacing_b - spacing_a > [0.3, 0.3, 0.7]).all()
    liver_a, liver_b = (np.mean([np.median(c.hu[core_of(c)]) for c in found]) for found in (cases, cases_at_b))
    assert (liver_a, liver_b) == pytest.approx((106, 81), abs=9)
    contrasts = [np.mean([one.look.contrast_hu for c in found for one in c.lesions]) for found in (cases, cases_at_b)]
    assert contrasts[1] == pytest.approx(0.7 * contrasts[0], rel=0.2)
    aortas = [phantom._in_phase("aorta", SOLID["aorta"], scanner).hu for scanner in (a, b)]
    assert aortas == [162, 300]
    assert not {c.orientation for c in cases} & {c.orientation for c in cases_at_b}


def test_a_sharper_kernel_leaves_a_sharper_edge() -> None:
    step = np.zeros((40, 4, 4), np.float32)
    step[20:] = 100
    steepest = [np.diff(phantom.blur(step, SCANNERS[site], (2, 2, 8))[:, 0, 0]).max() for site in "AB"]
    assert steepest[1] > steepest[0] + 10


def test_no_person_is_at_both_sites(cases: list[PhantomCase], cases_at_b: list[PhantomCase]) -> None:
    for here, there in zip(cases, cases_at_b, strict=False):
        liver_ml = [(c.labels > 0).sum() * np.prod(c.spacing_mm) / 1000 for c in (here, there)]
        assert abs(liver_ml[0] - liver_ml[1]) > 1
        assert [lesion.diameter_mm for lesion in here.lesions] != [lesion.diameter_mm for lesion in there.lesions] or (
            not here.lesions
        )


def test_a_case_is_the_same_every_time_and_at_each_site(
    cases: list[PhantomCase], cases_at_b: list[PhantomCase]
) -> None:
    for config, case in ((COHORT, cases[3]), (AT_B, cases_at_b[3])):
        again = make_case(dataclasses.replace(config, patients=4), 3)
        assert np.array_equal(again.hu, case.hu) and np.array_equal(again.labels, case.labels)
        assert again.lesions == case.lesions


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"patients": 1, "seed": -1}, {"patients": 1, "size": 8}])
def test_impossible_config_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(LitsexpError, match="expected at least"):
        PhantomConfig(**wrong)


@pytest.mark.parametrize(
    ("wrong", "said"), [({"site": "C"}, "site = C; expected A or B"), ({"lesions": "big"}, "expected lits or large")]
)
def test_unknown_site_and_lesions_are_refused(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(LitsexpError, match=said):
        PhantomConfig(1, **wrong)
