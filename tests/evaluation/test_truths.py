"""Segmentations as they are kept for native scoring: the same scores as whole masks give, read once, never half."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from litsexp.data.ct.layout import Case, find_cases
from litsexp.data.ct.volume import open_case
from litsexp.evaluation import truths
from litsexp.evaluation.cases import CaseMasks
from litsexp.evaluation.truths import keep_truths, read_truth, truth_of
from litsexp.evaluation.volumes import lesion_contrasts, score_volume
from litsexp.spec.errors import LitsexpError

SHAPE = (30, 26, 9)


def write_case(root: Path, number: int = 7, axes: str = "RAS", liver: bool = True) -> Case:
    """A liver with two tumors of 30 and 60 HU less, stored in any orientation."""
    rng = np.random.default_rng(number)
    labels = np.zeros(SHAPE, np.uint8)
    if liver:
        labels[4:22, 5:20, 1:8] = 1
        labels[6:10, 7:11, 2:4], labels[14:18, 9:14, 5:7] = 2, 2
    hu = rng.integers(-50, 20, SHAPE).astype(np.int16) + np.int16(100) * (labels > 0) + 0
    hu[6:10, 7:11, 2:4] -= 30
    hu[14:18, 9:14, 5:7] -= 60
    root.mkdir(parents=True, exist_ok=True)
    affine = np.diag([0.8, 0.9, 2.5, 1])
    affine[:3, 3] = 5  # or it would pass for one that nobody filled in
    wanted = nib.orientations.axcodes2ornt(axes)
    for name, array in (("volume", hu.astype(np.int16)), ("segmentation", labels)):
        nib.save(nib.Nifti1Image(array, affine).as_reoriented(wanted), root / f"{name}-{number}.nii.gz")
    return find_cases(root)[0]


def whole(case: Case) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float], bool]:
    """Labels and HU as planes 0 the most inferior, spacing, and whether that is how they are stored."""
    opened = open_case(case)
    labels, hu = np.empty(opened.shape, np.uint8), np.empty(opened.shape, np.int16)
    for z, plane in opened.label_planes():
        labels[z] = plane
    from litsexp.data.ct.volume import Tally

    for z, plane_hu in opened.hu_planes(Tally()):
        hu[z] = plane_hu
    x, y, z_mm = opened.spacing_mm
    return labels, hu, (z_mm, y, x), opened.upwards


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAI", "PIR", "SAL"])
@pytest.mark.parametrize("kind", ["random", "empty", "all", "elsewhere", "truth"])
def test_a_box_scores_as_the_whole_volume_does(tmp_path: Path, axes: str, kind: str) -> None:
    case = write_case(tmp_path, axes=axes)
    labels, hu, spacing_mm, upwards = whole(case)
    prediction = np.zeros_like(labels)
    if kind == "random":
        prediction = np.random.default_rng(0).integers(0, 3, labels.shape).astype(np.uint8)
    elif kind == "all":
        prediction[:] = 2
    elif kind == "elsewhere":
        prediction[-1, -2:, -2:] = 1
    elif kind == "truth":
        prediction = labels.copy()
    step = 1 if upwards else -1
    masks = CaseMasks(7, labels[::step], prediction[::step], spacing_mm, np.arange(len(labels)))
    expected = score_volume(masks, lesion_contrasts(labels[::step], hu[::step]), surface_mm=1.0)
    truth = truth_of(case)
    assert truth.labels.size < labels.size
    found = score_volume(truth.beside(prediction), truth.contrast_hu, surface_mm=1.0)
    assert repr(found) == repr(expected)  # NaN among the numbers
    if kind == "truth":
        assert (found["dice_tumor"], found["lesions_detected"], found["lesions_false"]) == (1, 2, 0)
        assert (found["lesions_true_20to40hu"], found["lesions_true_gt40hu"]) == (1, 1)


def test_a_prediction_of_another_shape_is_refused(tmp_path: Path) -> None:
    truth = truth_of(write_case(tmp_path))
    with pytest.raises(ValueError, match=r"case 7: prediction \(9, 26, 29\); expected \(9, 26, 30\)"):
        truth.beside(np.zeros((9, 26, 29), np.uint8))


def test_a_case_without_foreground_is_kept_too(tmp_path: Path) -> None:
    truth = truth_of(write_case(tmp_path, liver=False))
    prediction = np.zeros(truth.shape, np.uint8)
    prediction[3, 4:6, 4:6] = 2
    scores = score_volume(truth.beside(prediction), truth.contrast_hu)
    assert (scores["fp_tumor"], scores["lesions_false"], scores["lesions_true"]) == (4, 1, 0)
    assert scores["tn_liver"] == prediction.size - 4


def test_what_is_kept_reads_as_it_was_and_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, folder = tmp_path / "ct", tmp_path / "kept"
    for number in (3, 5):
        write_case(root, number, "LPS")
    paths = keep_truths(root, find_cases(root), folder, processes=1)
    assert list(paths) == [3, 5]
    for case in find_cases(root):
        kept, fresh = read_truth(paths[case.number]), truth_of(case)
        assert {k: v for k, v in vars(kept).items() if k not in ("labels", "contrast_hu")} == {
            k: v for k, v in vars(fresh).items() if k not in ("labels", "contrast_hu")
        }
        np.testing.assert_array_equal(kept.labels, fresh.labels)
        np.testing.assert_array_equal(kept.contrast_hu, fresh.contrast_hu)
    monkeypatch.setattr(truths, "truth_of", lambda _case: pytest.fail("read again"))
    assert keep_truths(root, find_cases(root), folder, processes=1) == paths


def test_a_case_that_is_done_survives_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, folder = tmp_path / "ct", tmp_path / "kept"
    for number in (3, 5):
        write_case(root, number)

    def interrupted(case: Case) -> Any:
        if case.number == 5:
            raise KeyboardInterrupt
        return truth_of(case)

    with monkeypatch.context() as patched:
        patched.setattr(truths, "truth_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            keep_truths(root, find_cases(root), folder, processes=1)
    assert len(list(folder.iterdir())) == 1
    assert all(path.is_file() for path in keep_truths(root, find_cases(root), folder, processes=1).values())


def test_a_changed_file_is_read_again_and_a_damaged_one_refused(tmp_path: Path) -> None:
    root, folder = tmp_path / "ct", tmp_path / "kept"
    write_case(root, 3)
    first = keep_truths(root, find_cases(root), folder, processes=1)[3]
    write_case(root, 3, liver=False)
    second = keep_truths(root, find_cases(root), folder, processes=1)[3]
    assert first != second and not read_truth(second).labels.size
    second.write_bytes(second.read_bytes()[:100])
    with pytest.raises(LitsexpError, match=r"not whole .*; remove it, and it is made again"):
        read_truth(second)
