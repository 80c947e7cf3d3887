"""Reading CT: one orientation out of all 48, every layout, and each bad case refused in one line."""

import itertools
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from litsexp.data.ct import volume as ct
from litsexp.data.ct.geometry import MM_UNKNOWN
from litsexp.spec.errors import LitsexpError

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


def remarks_of(tmp_path: Path, affine: np.ndarray, number: int = 7, label_affine: np.ndarray | None = None) -> ct.Facts:
    case = ct.Case(number, tmp_path / "v.nii", tmp_path / "s.nii")
    write(case.volume, hu_ramp(), affine)
    write(case.segmentation, label_ramp(), affine if label_affine is None else label_affine)
    return ct.read_case(case).facts


def test_an_affine_that_nobody_filled_in_gives_no_millimetres(tmp_path: Path) -> None:
    facts = remarks_of(tmp_path, np.eye(4))
    assert np.isnan(facts.spacing_mm).all() and facts.remarks == (MM_UNKNOWN,)


@pytest.mark.parametrize(("number", "known"), [(27, True), (28, False), (47, False), (48, True)])
def test_one_millimetre_is_not_believed_of_lits_cases_28_to_47(tmp_path: Path, number: int, known: bool) -> None:
    affine = np.diag([-1.0, -1, 1, 1])
    affine[:3, 3] = (170, 160, -300)
    facts = remarks_of(tmp_path, affine, number)
    assert facts.spacing_mm == (1, 1, 1) if known else np.isnan(facts.spacing_mm).all()
    assert facts.remarks == (() if known else (MM_UNKNOWN,))


def test_a_real_spacing_is_believed_of_lits_cases_28_to_47(tmp_path: Path) -> None:
    assert remarks_of(tmp_path, RAS, 30).spacing_mm == (0.7, 0.8, 2.5)


def test_a_label_affine_that_differs_is_reported(tmp_path: Path) -> None:
    moved = RAS.copy()
    moved[2, 3] += 5
    (remark,) = remarks_of(tmp_path, RAS, label_affine=moved).remarks
    assert "affine differs" in remark
    assert remarks_of(tmp_path, RAS, label_affine=RAS + 1e-5).remarks == ()


def test_tilted_and_sheared_axes_are_reported(tmp_path: Path) -> None:
    turn, shear = np.eye(4), np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    shear[1, 2] = np.tan(np.radians(15))
    assert [r.split(";")[0] for r in remarks_of(tmp_path, turn @ RAS).remarks] == ["oblique by 11 degrees"]
    assert any("15 degrees from orthogonal (gantry tilt)" in r for r in remarks_of(tmp_path, shear @ RAS).remarks)


def edit_header(path: Path, form: str, offset: int, *values: float) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(content)


def test_pixdim_and_affine_that_disagree_are_reported(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    edit_header(case.volume, "<f", 88, 5.0)  # pixdim[3]: slices
    facts = ct.read_case(case).facts
    assert facts.spacing_mm == (0.7, 0.8, 2.5)
    assert facts.remarks == ("pixdim says 0.7 x 0.8 x 5 mm, the affine 0.7 x 0.8 x 2.5; the affine is used",)


def test_a_volume_that_was_never_placed_is_reported(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    edit_header(case.volume, "<hh", 252, 0, 0)  # qform_code, sform_code
    facts = ct.read_case(case).facts
    assert any("neither sform nor qform" in remark for remark in facts.remarks)
    assert facts.spacing_mm == (0.7, 0.8, 2.5)


@pytest.mark.parametrize(("slope", "intercept", "dtype"), [(1, -1024, "<u2"), (2, 10, "<i2"), (0.5, -0.25, "<i4")])
def test_slope_and_intercept_are_applied_and_named(tmp_path: Path, slope: float, intercept: float, dtype: str) -> None:
    wanted = (2 * hu_ramp()).astype(np.float64)
    case = write_case(tmp_path, np.ceil((wanted - intercept) / slope).astype(dtype))
    edit_header(case.volume, "<ff", 112, slope, intercept)
    volume = ct.read_case(case)
    assert np.abs(volume.hu - wanted).max() <= slope / 2 + 0.5
    assert volume.facts.dtype == f"{np.dtype(dtype).name} * {slope:g} {intercept:+g}"


def test_padding_outside_the_field_of_view_is_counted_apart(tmp_path: Path) -> None:
    hu = hu_ramp()
    hu[0], hu[1, 0, 0] = -2048, -1500
    volume = ct.read_case(write_case(tmp_path, hu))
    assert (volume.facts.padding, volume.facts.clipped, volume.facts.hu_range[0]) == (12, 1, -2048)
    assert (volume.hu[0] == -1024).all()


def test_what_cannot_be_hounsfield_units_is_refused(tmp_path: Path) -> None:
    assert "median of 1010" in refusal(write_case(tmp_path / "a", hu_ramp() + np.int16(1000)))
    assert "every voxel is 7" in refusal(write_case(tmp_path / "b", np.full(SHAPE, 7, np.int16)))
    assert "are above 3071" in refusal(write_case(tmp_path / "c", hu_ramp().astype(np.uint16)))  # -200 becomes 65336
