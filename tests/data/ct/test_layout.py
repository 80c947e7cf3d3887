"""Finding cases: every layout, whatever else lies beside them, and each folder that is refused in one line."""

import logging
from pathlib import Path

import pytest

from litsexp.data.ct import layout
from litsexp.spec.errors import LitsexpError


def test_find_cases_over_several_folders_and_layouts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [
        "Training Batch 1/volume-10.nii",
        "Training Batch 1/segmentation-10.nii",
        "volume_pt1/volume-2.nii",
        "segmentations/segmentation-2.nii.gz",
        "Task03_Liver/imagesTr/liver_31.nii.gz",
        "Task03_Liver/labelsTr/liver_31.nii.gz",
        "Task03_Liver/imagesTr/._liver_31.nii.gz",
        "Task03_Liver/imagesTs/liver_132.nii.gz",
        "test/test-volume-0.nii",
        "notes/liver_5.nii",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with caplog.at_level(logging.INFO):
        cases = layout.find_cases(tmp_path)
    assert [case.number for case in cases] == [2, 10, 31]
    assert cases[0] == layout.Case(2, tmp_path / names[2], tmp_path / names[3])
    assert cases[2].segmentation == tmp_path / names[5]
    assert "2 unlabeled test volumes" in caplog.text


def test_find_cases_follows_links_and_ends_in_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    for kind in ("volume", "segmentation"):
        (tmp_path / "disk" / f"{kind}-7.nii").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "batch").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "up").symlink_to(tmp_path / "root")
    assert len(layout.find_cases(tmp_path / "root")) == 1


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "found no labeled CT case (0 other"),
        (["scan.nii", "liver_1.nii.gz"], "found no labeled CT case (2 other"),
        (["volume-3.nii"], "volume-3.nii: found no segmentation with number 3"),
        (["a/segmentation-3.nii", "volume-4.nii"], "segmentation-3.nii: found no volume with number 3"),
        (["volume-3.nii", "b/volume-03.nii.gz", "segmentation-3.nii"], "case 3 is there twice"),
        (["volume-3.nii", "imagesTr/liver_3.nii.gz"], "case 3 is there twice"),
    ],
)
def test_folders_that_are_refused(tmp_path: Path, names: list[str], said: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(LitsexpError) as error:
        layout.find_cases(tmp_path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_missing_folder_and_a_file_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(LitsexpError, match="found nothing"):
        layout.find_cases(tmp_path / "no")
    (tmp_path / "file").touch()
    with pytest.raises(LitsexpError, match="found a file"):
        layout.find_cases(tmp_path / "file")


def test_every_volume_has_a_name_for_its_mask(tmp_path: Path) -> None:
    for name in (
        *("a/volume-7.nii", "a/segmentation-7.nii", "b/test-volume-3.nii.gz", "b/test-segmentation-3.nii.gz"),
        *("imagesTs/liver_12.nii.gz", "labelsTr/liver_12.nii.gz", "labelsTr/other.nii.gz", "new.nii.gz", "._new.nii"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {name: path.relative_to(tmp_path).as_posix() for name, path in layout.find_volumes(tmp_path).items()}
    assert found == {
        "segmentation-7.nii.gz": "a/volume-7.nii",
        "test-segmentation-3.nii.gz": "b/test-volume-3.nii.gz",
        "liver_12.nii.gz": "imagesTs/liver_12.nii.gz",
        "new.nii.gz": "new.nii.gz",
    }
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "new.nii").touch()
    with pytest.raises(LitsexpError, match=r"is called new\.nii\.gz, as that of"):
        layout.find_volumes(tmp_path)
