"""The phantom is the embedded default of every study: it must repeat by bytes, and look like LiTS to what reads it."""

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from litsexp.config import LitsexpError
from litsexp.data import phantom
from litsexp.data.phantom import PhantomCase, PhantomConfig, make_case, write_cohort

SMALL = {"size": 48, "slices": 12}
COHORT = PhantomConfig(patients=10, seed=0)


def checksums(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


@pytest.fixture(scope="module")
def cases() -> list[PhantomCase]:
    return [make_case(COHORT, number) for number in range(COHORT.patients)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("phantom") / "four", PhantomConfig(4, seed=3, **SMALL), processes=1)


def test_cohort_has_every_file_and_its_facts(written: Path) -> None:
    names = {f"{kind}-{n}.nii.gz" for kind in ("volume", "segmentation") for n in range(4)}
    assert {path.name for path in written.iterdir()} == names | {"phantom.json"}
    facts = json.loads((written / "phantom.json").read_text())
    assert facts["config"] == {"patients": 4, "seed": 3, "size": 48, "slices": 12}
    assert facts["generator"] == phantom.GENERATOR_VERSION
    assert [case["case"] for case in facts["cases"]] == [0, 1, 2, 3]
    for case in facts["cases"]:
        assert case["lesions"] == len(case["diameters_mm"]) == len(case["contrasts_hu"])


def test_same_seed_same_bytes_in_any_number_of_processes(written: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    config = PhantomConfig(4, seed=3, **SMALL)
    again = write_cohort(tmp_path / "again", config, processes=2, progress=lambda *step: told.append(step))
    assert checksums(again) == checksums(written)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_other_seed_other_bytes(written: Path, tmp_path: Path) -> None:
    other = checksums(write_cohort(tmp_path / "other", PhantomConfig(1, seed=4, **SMALL)))
    assert not set(other.values()) & set(checksums(written).values())


def test_small_cohort_is_the_beginning_of_a_large_one(written: Path, tmp_path: Path) -> None:
    two = checksums(write_cohort(tmp_path / "two", PhantomConfig(2, seed=3, **SMALL), processes=1))
    four = checksums(written)
    assert {name: four[name] for name in two if name != "phantom.json"} == {
        name: value for name, value in two.items() if name != "phantom.json"
    }


def test_orientations_differ_on_disk_and_agree_in_the_world(written: Path) -> None:
    found = []
    for number in range(4):
        case = make_case(PhantomConfig(4, seed=3, **SMALL), number)
        for kind, expected in (("volume", case.hu), ("segmentation", case.labels)):
            image = nib.load(written / f"{kind}-{number}.nii.gz")
            assert "".join(nib.aff2axcodes(image.affine)) == case.orientation
            assert image.get_data_dtype() == expected.dtype
            assert np.allclose(image.get_sform(), image.get_qform(), atol=1e-3)
            assert image.header["sform_code"] == image.header["qform_code"] == 1
            assert np.allclose(image.header.get_zooms(), case.spacing_mm)
            ras = nib.as_closest_canonical(image)
            assert np.array_equal(np.asarray(ras.dataobj), expected)
        found.append(case.orientation)
    assert set(found) == {"LAS", "LPS", "RAS"}


def test_liver_lies_on_the_patients_right(written: Path) -> None:
    for number in range(4):
        image = nib.load(written / f"segmentation-{number}.nii.gz")
        volume = nib.load(written / f"volume-{number}.nii.gz")
        liver, body = np.asarray(image.dataobj) > 0, np.asarray(volume.dataobj) > -200
        right_mm = [float(nib.affines.apply_affine(image.affine, np.argwhere(m)).mean(0)[0]) for m in (liver, body)]
        assert right_mm[0] > right_mm[1] + 20


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
            assert max(lesion.diameter_mm for lesion in case.lesions) >= 18
            assert min(lesion.voxels for lesion in case.lesions) >= 1


def test_lesion_boundary_is_at_half_height(cases: list[PhantomCase]) -> None:
    steps = []
    for case in cases:
        tumor, liver = case.labels == 2, case.labels == 1
        ball = ndimage.generate_binary_structure(3, 1)
        ball[:, :, [0, 2]] = False
        core = ndimage.binary_erosion(tumor, ball, iterations=2)
        around = liver & ndimage.binary_dilation(tumor, ball, iterations=4) & ~ndimage.binary_dilation(tumor, ball, 2)
        edge_in = tumor & ~ndimage.binary_erosion(tumor, ball)
        edge_out = liver & ndimage.binary_dilation(tumor, ball)
        if core.sum() > 60:
            low, high = np.median(case.hu[core]), np.median(case.hu[around])  # vessels lie around, too
            middle = (case.hu[edge_in].mean() + case.hu[edge_out].mean()) / 2
            steps.append((middle - low) / (high - low))
    assert steps
    assert np.mean(steps) == pytest.approx(0.5, abs=0.15)


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
    assert min(diameters[0] for diameters in drawn) >= 18


def test_same_phantom_is_left_untouched(written: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in written.iterdir()}
    write_cohort(written, PhantomConfig(4, seed=3, **SMALL), progress=lambda *step: pytest.fail("nothing to do"))
    assert {path.name: path.stat().st_mtime_ns for path in written.iterdir()} == before


def test_another_phantom_is_refused(written: Path) -> None:
    with pytest.raises(
        LitsexpError, match=r"four: found a phantom of .*'seed': 3.*expected .*'seed': 5.*remove"
    ) as error:
        write_cohort(written, PhantomConfig(4, seed=5, **SMALL))
    assert "\n" not in str(error.value)


def test_foreign_and_incomplete_directories_are_refused(tmp_path: Path) -> None:
    config = PhantomConfig(1, **SMALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(LitsexpError, match="mine: found other files; expected"):
        write_cohort(tmp_path / "mine", config)
    (write_cohort(tmp_path / "gap", config) / "segmentation-0.nii.gz").unlink()
    with pytest.raises(LitsexpError, match=r"this phantom without segmentation-0\.nii\.gz"):
        write_cohort(tmp_path / "gap", config)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_empty_directory_is_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (write_cohort(tmp_path / "empty", PhantomConfig(1, **SMALL)) / "volume-0.nii.gz").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("processes", [1, 2])
def test_interrupted_write_leaves_nothing(tmp_path: Path, processes: int) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cohort(tmp_path / "cohort", PhantomConfig(4, **SMALL), processes, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_failure_while_writing_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LitsexpError, match=r"cohort: the phantom cannot be written \(No space left"):
        write_cohort(tmp_path / "cohort", PhantomConfig(1, **SMALL))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"patients": 1, "seed": -1}, {"patients": 1, "size": 8}])
def test_impossible_config_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(LitsexpError, match="expected at least"):
        PhantomConfig(**wrong)
