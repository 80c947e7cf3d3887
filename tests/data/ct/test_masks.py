"""Masks read, turned and laid on each other."""

import itertools
import math

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from litsexp.data.ct import nifti
from litsexp.data.ct.masks import read_masks
from litsexp.data.ct.pairs import MaskFiles
from litsexp.spec.errors import LitsexpError

SHAPE, SPACING_MM = (5, 6, 7), (0.5, 0.75, 2.0)  # along LPS
AFFINE = np.array([[-0.5, 0, 0, 9], [0, -0.75, 0, 8], [0, 0, 2, -7], [0, 0, 0, 1.0]])
AXES = ["".join(axes) for order in itertools.permutations(["LR", "PA", "SI"]) for axes in itertools.product(*order)]


def labels(seed=0, share=0.2, shape=SHAPE):
    rng = np.random.default_rng(seed)
    found = np.zeros(shape, np.uint8)
    found[1:4, 1:5, 2:6] = rng.choice([0, 1, 2], (3, 4, 4), p=[share, 0.8 - share, 0.2])
    return found


@pytest.fixture
def files(tmp_path):
    """``files(truth, prediction, volume=None)``: images as the files of case 4."""

    def write(truth, prediction, volume=None):
        paths = [tmp_path / "segmentation-4.nii", tmp_path / "liver_4.nii.gz", tmp_path / "volume-4.nii"]
        images = [truth, prediction, *([volume] if volume else [])]
        for image, path in zip(images, paths, strict=False):
            nib.save(image, path)
        return MaskFiles(4, paths[0], paths[1], paths[2] if volume else None)

    return write


def image(array, affine=AFFINE):
    return nib.Nifti1Image(array, affine)


def turned(array, axes):
    """The same voxels, stored along other axes, with the affine that says so."""
    return image(array).as_reoriented(ornt_transform(io_orientation(AFFINE), axcodes2ornt(axes)))


def whole(case, masks):
    """The case's arrays in the whole volume, (z, y, x)."""
    full = np.zeros((2, *case.whole), np.uint8)
    box = np.argwhere(np.maximum(*masks).transpose(2, 1, 0))
    where = tuple(slice(a, b + 1) for a, b in zip(box.min(0), box.max(0), strict=True)) if len(box) else (slice(0),) * 3
    full[0][where], full[1][where] = case.truth, case.prediction
    return full


def test_masks_are_cut_to_their_common_box(files):
    truth, prediction = labels(0), np.roll(labels(1), 1, axis=0)
    case = read_masks(files(image(truth), image(prediction)))
    assert np.array_equal(whole(case, (truth, prediction)), [truth.transpose(2, 1, 0), prediction.transpose(2, 1, 0)])
    assert case.truth.shape == (4, 4, 4) and case.first_slice == 2
    assert (case.whole, case.spacing_mm, case.stored) == ((7, 6, 5), (2.0, 0.75, 0.5), (2, 1, 0))
    assert case.written_mm == (2.0, 0.75, 0.5)
    assert case.remarks == ()


@pytest.mark.parametrize("axes", AXES)
def test_a_prediction_in_any_orientation_is_turned_by_its_affine(files, axes):
    truth, prediction = labels(0), labels(1)
    case = read_masks(files(image(truth), turned(prediction, axes)))
    plain = read_masks(files(image(truth), image(prediction)))
    assert np.array_equal(case.truth, plain.truth) and np.array_equal(case.prediction, plain.prediction)
    assert bool(case.remarks) == (axes != "LPS")
    assert all(f"stored as {axes} and the truth as LPS; it is turned" in remark for remark in case.remarks)


@pytest.mark.parametrize("axes", ["RAS", "SLP", "PIR"])
def test_the_truth_may_be_stored_in_any_orientation(files, axes):
    truth, prediction = labels(0), labels(1)
    case = read_masks(files(turned(truth, axes), turned(prediction, axes)))
    assert case.remarks == ()
    assert (case.whole, case.spacing_mm) == ((7, 6, 5), (2.0, 0.75, 0.5))  # z, y, x all the same
    stored = np.asanyarray(turned(truth, axes).dataobj)
    assert tuple(case.whole[axis] for axis in case.stored) == stored.shape
    assert case.truth.sum() == truth.sum()
    assert np.count_nonzero(case.truth == case.prediction) == np.count_nonzero(
        read_masks(files(image(truth), image(prediction))).truth
        == read_masks(files(image(truth), image(prediction))).prediction
    )


@given(*[hnp.arrays(np.uint8, (3, 4, 5), elements=st.sampled_from([0, 0, 0, 1, 2]))] * 2, st.sampled_from(AXES))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_masks_survive(files, truth, prediction, axes):
    case = read_masks(files(image(truth), turned(prediction, axes)))
    expected = [truth.transpose(2, 1, 0), prediction.transpose(2, 1, 0)]
    assert np.array_equal(whole(case, (truth, prediction)), expected)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_any_number_type_is_read(files, kind):
    truth, prediction = labels(0), labels(1)
    case = read_masks(files(image(truth.astype(kind)), image(prediction.astype(kind))))
    assert np.array_equal(case.prediction, read_masks(files(image(truth), image(prediction))).prediction)


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        (np.uint8, 3, "found label 3 (1 voxels)"),
        (np.int16, -1, "found label -1 (1 voxels)"),
        (np.int16, 256, "found label 256 (1 voxels)"),
        (np.float32, 0.5, "found label 0.5 (1 voxels)"),
        (np.float64, math.nan, "found label nan (1 voxels)"),
        (np.float32, math.inf, "found label inf (1 voxels)"),
    ],
)
def test_other_labels_are_refused(files, kind, value, says):
    prediction = labels(1).astype(kind)
    prediction[0, 0, 0] = value
    with pytest.raises(LitsexpError) as error:
        read_masks(files(image(labels(0)), image(prediction)))
    assert "liver_4.nii.gz: " in str(error.value) and says in str(error.value) and "\n" not in str(error.value)


def test_other_shapes_are_refused(files):
    with pytest.raises(LitsexpError, match=r"liver_4.nii.gz: shape \(5, 6, 6\) differs from the truth's \(5, 6, 7\)"):
        read_masks(files(image(labels()), image(labels()[..., :6])))
    with pytest.raises(LitsexpError, match=r"shape \(7, 6, 4\), \(4, 6, 7\) along the truth's axes, differs"):
        read_masks(files(image(labels()), turned(labels()[:4], "SPL")))
    with pytest.raises(LitsexpError, match=r"segmentation-4.nii: shape .* differs from its volume's .*volume-4.nii"):
        read_masks(files(image(labels()), image(labels()), image(np.zeros((5, 6, 8), np.int16))))


def test_without_an_affine_masks_are_compared_as_stored(files):
    truth, prediction = labels(0), labels(1)
    bare = nib.Nifti1Image(prediction, None)
    assert (bare.header["sform_code"], bare.header["qform_code"]) == (0, 0)
    case = read_masks(files(image(truth), bare))
    assert np.array_equal(case.prediction, read_masks(files(image(truth), image(prediction))).prediction)
    assert case.remarks == ("liver_4.nii.gz has neither sform nor qform; compared as stored",)


def test_an_affine_that_nobody_filled_in_is_named(files):
    case = read_masks(files(image(labels(0)), image(labels(1)[::-1, ::-1], np.eye(4))))
    turn, sizes = case.remarks
    assert turn.endswith("turned by its affine, which is the identity, as if nobody had filled it in")
    assert sizes.startswith("the prediction's affine says voxels of 1 x 1 x 1 mm, the truth's 0.5 x 0.75 x 2")
    assert np.array_equal(case.prediction, read_masks(files(image(labels(0)), image(labels(1)))).prediction)


def test_the_volume_decides_orientation_and_millimetres(files):
    truth, prediction = labels(0), labels(1)
    wrong = np.diag([1.0, 1.0, 1.0, 1.0])
    hu = np.arange(truth.size).reshape(SHAPE).astype(np.int16)
    case = read_masks(files(image(truth, wrong), image(prediction), image(hu)))
    assert case.spacing_mm == (2.0, 0.75, 0.5) and case.written_mm == (1.0, 1.0, 1.0)
    assert case.remarks == ("the segmentation's affine differs from the volume's, which is used for both",)
    z, y, x = np.nonzero(case.truth[case.truth_box])
    assert case.hu.shape == case.truth[case.truth_box].shape
    own = tuple(slice(a.min(), a.max() + 1) for a in np.nonzero(truth.transpose(2, 1, 0)))
    assert np.array_equal(case.hu, hu.transpose(2, 1, 0)[own])
    assert len(z) == len(y) == len(x) == np.count_nonzero(truth)


def test_hu_are_rounded_clipped_and_finite(files):
    truth, hu = labels(0), np.full(SHAPE, 60.6, np.float32)
    truth[2, 2, 3], hu[2, 2, 3] = 1, 30000
    case = read_masks(files(image(truth), image(truth), image(hu)))
    assert set(case.hu.ravel().tolist()) == {61, 3071}
    hu[2, 2, 3] = math.nan
    with pytest.raises(LitsexpError, match=r"volume-4.nii: voxels in the liver's box are NaN or infinite"):
        read_masks(files(image(truth), image(truth), image(hu)))


def test_an_unfilled_header_has_no_millimetres(files):
    bare = nib.Nifti1Image(labels(), np.eye(4))
    case = read_masks(files(bare, bare))
    assert all(math.isnan(mm) for mm in case.spacing_mm)
    assert any("millimetres are unknown" in remark for remark in case.remarks)


def test_nothing_at_all_is_an_empty_box(files):
    empty = np.zeros(SHAPE, np.uint8)
    case = read_masks(files(image(empty), image(empty), image(empty.astype(np.int16))))
    assert case.truth.size == case.prediction.size == case.hu.size == 0
    assert case.whole == (7, 6, 5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_planes_are_kept_when_the_next_ones_are_read(files, monkeypatch, dtype):
    truth, prediction = labels(0), labels(1)
    written = files(image(truth.astype(dtype)), image(prediction.astype(dtype)))
    monkeypatch.setattr(nifti, "_SLAB_BYTES", 1)  # a plane at a time, all in one buffer
    both = whole(read_masks(written), (truth, prediction))
    np.testing.assert_array_equal(both[0], truth.transpose(2, 1, 0))
    np.testing.assert_array_equal(both[1], prediction.transpose(2, 1, 0))
