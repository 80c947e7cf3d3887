"""The phantom cohort on disk: the same bytes every time, all of it or nothing, and never over somebody's files."""

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from litsexp.spec.errors import LitsexpError

from litsexp.data.phantom.cohort import write_cohort
from litsexp.data.phantom.patient import GENERATOR_VERSION, PhantomConfig, make_case

SMALL = {"size": 48, "slices": 12}


def checksums(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("phantom") / "four", PhantomConfig(4, seed=3, **SMALL), processes=1)


def test_cohort_has_every_file_and_its_facts(written: Path) -> None:
    names = {f"{kind}-{n}.nii.gz" for kind in ("volume", "segmentation") for n in range(4)}
    assert {path.name for path in written.iterdir()} == names | {"phantom.json"}
    facts = json.loads((written / "phantom.json").read_text())
    assert facts["config"] == {"patients": 4, "seed": 3, **SMALL, "site": "A", "lesions": "lits"}
    assert facts["generator"] == GENERATOR_VERSION
    assert [case["case"] for case in facts["cases"]] == [0, 1, 2, 3]
    for case in facts["cases"]:
        assert case["lesions"] == len(case["diameters_mm"]) == len(case["contrasts_hu"])
        assert 0 <= case["rims"] <= case["lesions"] and 0 <= case["necrotic"] <= case["lesions"]


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


@pytest.fixture(scope="module")
def written_at_b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = PhantomConfig(3, seed=3, site="B", lesions="large", **SMALL)
    return write_cohort(tmp_path_factory.mktemp("phantom") / "b", config, processes=1)


@pytest.mark.parametrize("site", ["A", "B"])
def test_orientations_differ_on_disk_and_agree_in_the_world(site: str, request: pytest.FixtureRequest) -> None:
    directory = request.getfixturevalue("written" if site == "A" else "written_at_b")
    config = PhantomConfig(**json.loads((directory / "phantom.json").read_text())["config"])
    assert config.site == site
    found = []
    for number in range(config.patients):
        case = make_case(config, number)
        for kind, expected in (("volume", case.hu), ("segmentation", case.labels)):
            image = nib.load(directory / f"{kind}-{number}.nii.gz")
            assert "".join(nib.aff2axcodes(image.affine)) == case.orientation
            assert image.get_data_dtype() == expected.dtype
            assert np.allclose(image.get_sform(), image.get_qform(), atol=1e-3)
            assert image.header["sform_code"] == image.header["qform_code"] == 1
            ras = nib.as_closest_canonical(image)
            assert np.allclose(ras.header.get_zooms(), case.spacing_mm)
            assert np.array_equal(np.asarray(ras.dataobj), expected)
            assert np.allclose(ras.affine @ [*(np.array(expected.shape) - 1) / 2, 1], [0, 0, 0, 1], atol=1e-3)
        found.append(case.orientation)
    assert set(found) == {"A": {"LAS", "LPS", "RAS"}, "B": {"RAI", "LPI", "ASR"}}[site]


def test_site_and_lesions_are_part_of_what_a_phantom_is(written_at_b: Path) -> None:
    facts = json.loads((written_at_b / "phantom.json").read_text())
    assert (facts["config"]["site"], facts["config"]["lesions"]) == ("B", "large")
    config = PhantomConfig(3, seed=3, site="B", lesions="large", **SMALL)
    assert write_cohort(written_at_b, config, progress=lambda *step: pytest.fail("nothing to do")) == written_at_b
    for other in ({"site": "A", "lesions": "large"}, {"site": "B", "lesions": "lits"}):
        with pytest.raises(LitsexpError, match="found a phantom of"):
            write_cohort(written_at_b, PhantomConfig(3, seed=3, **other, **SMALL))


def test_liver_lies_on_the_patients_right(written: Path, written_at_b: Path) -> None:
    for directory, number in [(written, 0), (written, 1), (written, 2), (written_at_b, 1), (written_at_b, 2)]:
        image = nib.load(directory / f"segmentation-{number}.nii.gz")
        volume = nib.load(directory / f"volume-{number}.nii.gz")
        liver, body = np.asarray(image.dataobj) > 0, np.asarray(volume.dataobj) > -200
        right_mm = [float(nib.affines.apply_affine(image.affine, np.argwhere(m)).mean(0)[0]) for m in (liver, body)]
        assert right_mm[0] > right_mm[1] + 20


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
