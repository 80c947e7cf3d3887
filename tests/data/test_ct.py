"""Reading CT: one orientation out of all 48, every layout, and each bad case refused in one line."""

import itertools
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from litsexp.config import LitsexpError
from litsexp.data import ct

SHAPE = (5, 4, 3)
RAS = np.array([[0.7, 0, 0, -10], [0, 0.8, 0, 20], [0, 0, 2.5, -300], [0, 0, 0, 1]])
ORIENTATIONS = [
    np.array([(axis, sign) for axis, sign in zip(axes, signs, strict=True)])
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def hu_ramp() -> np.ndarray:
    return (np.arange(np.prod(SHAPE), dtype=np.int16) * 7 - 200).reshape(SHAPE)


def label_ramp() -> np.ndarray:
    return (np.arange(np.prod(SHAPE)) % 3).astype(np.uint8).reshape(SHAPE)


def write(path: Path, array: np.ndarray, affine: np.ndarray = RAS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine, dtype=array.dtype), path)
    return path


def write_case(
    root: Path, hu: np.ndarray | None = None, labels: np.ndarray | None = None, ending: str = ".nii"
) -> ct.Case:
    volume = write(root / f"volume-7{ending}", hu_ramp() if hu is None else hu)
    segmentation = write(root / f"segmentation-7{ending}", label_ramp() if labels is None else labels)
    return ct.Case(7, volume, segmentation)


def refusal(case: ct.Case) -> str:
    """The one line with which a case is refused."""
    with pytest.raises(LitsexpError) as error:
        ct.read_case(case)
    message = str(error.value)
    assert "\n" not in message and len(message) < 600
    assert str(case.volume) in message or str(case.segmentation) in message
    return message


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda o: "".join(nib.orientations.ornt2axcodes(o)))
def test_every_orientation_gives_the_same_voxels(tmp_path: Path, orientation: np.ndarray) -> None:
    image = nib.Nifti1Image(hu_ramp(), RAS).as_reoriented(orientation)
    label_affine = np.diag([-1.0, 1, 1, 1])  # wrong, as in LiTS cases 48 to 52
    case = ct.Case(
        7, tmp_path / "volume-7.nii.gz", write(tmp_path / "s.nii", reorient(label_ramp(), orientation), label_affine)
    )
    nib.save(image, case.volume)
    volume = ct.read_case(case)
    np.testing.assert_array_equal(volume.hu, hu_ramp())
    np.testing.assert_array_equal(volume.labels, label_ramp())
    assert volume.facts.spacing_mm == (0.7, 0.8, 2.5)
    assert (volume.hu.dtype, volume.labels.dtype, volume.facts.clipped) == (np.int16, np.uint8, 0)
    assert ct.count_slices(case) == 3


def reorient(array: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(apply_orientation(array, orientation))


def test_an_oblique_affine_goes_to_the_nearest_orientation(tmp_path: Path) -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    flipped = np.array([(0, -1), (1, -1), (2, 1)])
    affine = turn @ RAS @ inv_ornt_aff(flipped, SHAPE)
    assert io_orientation(affine)[0, 1] == -1
    case = write_case(tmp_path)
    write(case.volume, reorient(hu_ramp(), flipped), affine)
    volume = ct.read_case(case)
    np.testing.assert_array_equal(volume.hu, hu_ramp())
    assert volume.facts.spacing_mm == (0.7, 0.8, 2.5)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u2", "<i4", "<f4", ">f8", "<i8"])
def test_any_number_type_and_byte_order(tmp_path: Path, dtype: str) -> None:
    hu, labels = (hu_ramp() + 300).astype(dtype), label_ramp().astype(dtype)
    case = write_case(tmp_path, hu, labels, ".nii.gz")
    volume = ct.read_case(case)
    np.testing.assert_array_equal(volume.hu, hu_ramp() + 300)
    np.testing.assert_array_equal(volume.labels, label_ramp())


def test_hu_are_rounded(tmp_path: Path) -> None:
    hu = hu_ramp() + np.float32(0.6)
    np.testing.assert_array_equal(ct.read_case(write_case(tmp_path, hu)).hu, hu_ramp() + 1)


def test_hu_outside_12_bits_are_clipped_and_counted(tmp_path: Path) -> None:
    hu = hu_ramp()
    hu[4, 0, 0], hu[1, 0, 0], hu[2, 0, 0], hu[3, 0, 0] = -10522, 27572, -1024, 3071
    volume = ct.read_case(write_case(tmp_path, hu))
    assert volume.hu[1:, 0, 0].tolist() == [3071, -1024, 3071, -1024]
    assert volume.facts.clipped == 2


def test_shapes_that_differ(tmp_path: Path) -> None:
    assert "shape (5, 4, 2) differs from its volume's (5, 4, 3)" in refusal(
        write_case(tmp_path, labels=label_ramp()[..., :2])
    )


@pytest.mark.parametrize("which", ["volume", "segmentation"])
def test_a_truncated_file(tmp_path: Path, which: str) -> None:
    case = write_case(tmp_path, ending=".nii.gz")
    path = getattr(case, which)
    path.write_bytes(path.read_bytes()[:-9])
    assert f"{path}: truncated" in refusal(case)


def test_labels_other_than_0_1_2(tmp_path: Path) -> None:
    labels = label_ramp().astype(np.int16)
    labels[0, 0], labels[1, 0, 0] = 3, -1
    assert "found label 3 (3 voxels), -1 (1 voxels); expected only" in refusal(write_case(tmp_path, labels=labels))
    assert "and 57 other values" in refusal(
        write_case(tmp_path, labels=np.arange(60).reshape(SHAPE).astype(np.uint8) + 9)
    )


def test_labels_that_are_no_whole_numbers(tmp_path: Path) -> None:
    labels = label_ramp().astype(np.float32)
    labels[0, 0, 0], labels[1, 0, 0] = 0.5, np.nan
    message = refusal(write_case(tmp_path, labels=labels))
    assert "0.5 (1 voxels)" in message and "nan (1 voxels)" in message


def test_nan_and_infinite_voxels_are_counted(tmp_path: Path) -> None:
    hu = hu_ramp().astype(np.float32)
    hu[0, 0, 0], hu[1, 0, 0], hu[2, 1, 2] = np.nan, np.inf, -np.inf
    assert "3 voxels are NaN or infinite" in refusal(write_case(tmp_path, hu))


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
        cases = ct.find_cases(tmp_path)
    assert [case.number for case in cases] == [2, 10, 31]
    assert cases[0] == ct.Case(2, tmp_path / names[2], tmp_path / names[3])
    assert cases[2].segmentation == tmp_path / names[5]
    assert "2 unlabeled test volumes" in caplog.text


def test_find_cases_follows_links_and_ends_in_a_loop_of_links(tmp_path: Path) -> None:
    write_case(tmp_path / "disk")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "batch").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "up").symlink_to(tmp_path / "root")
    assert len(ct.find_cases(tmp_path / "root")) == 1


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
        ct.find_cases(tmp_path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_missing_folder_and_a_file_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(LitsexpError, match="found nothing"):
        ct.find_cases(tmp_path / "no")
    (tmp_path / "file").touch()
    with pytest.raises(LitsexpError, match="found a file"):
        ct.find_cases(tmp_path / "file")


def test_windows_by_hand() -> None:
    hu = np.array([-46, -45, 30, 105, 106], np.int16)
    shown = ct.apply_window(hu, *ct.WINDOWS["liver"])  # W150 L30: -45 .. 105 HU
    assert shown.dtype == np.float32
    assert shown.tolist() == [0, 0, 0.5, 1, 1]
    assert dict(ct.WINDOWS) == {"liver": (150, 30), "custom": (200, 60), "wide": (400, 40)}
    with pytest.raises(ValueError, match="width_hu"):
        ct.apply_window(hu, 0, 40)
