"""One case: what is measured, what is told of it, and what is refused."""

import math
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from litsexp.data.check import folder as check
from litsexp.data.check.folder import check_folder
from litsexp.data.ct.geometry import MM_UNKNOWN

from .conftest import LIVER, MIRRORED, TUMOR, TURNED, Scene, checked


def test_measures_by_hand(scene: Scene, tmp_path: Path) -> None:
    report = checked(scene, tmp_path)
    assert (report.case, report.volume, report.segmentation) == (7, "volume-7.nii", "segmentation-7.nii")
    assert (report.error, report.warnings, report.notes) == ("", (), ())
    anatomy = report.anatomy
    assert anatomy is not None
    assert (anatomy.shape, anatomy.spacing_mm, anatomy.orientation) == ((64, 56, 24), (3, 3, 8), "RAS")
    assert (anatomy.dtype, anatomy.hu_range, anatomy.clipped, anatomy.padding) == ("int16", (-1000, 500), 0, 0)
    assert (anatomy.liver_slices, anatomy.liver_voxels, anatomy.tumor_voxels) == (14, 24 * 26 * 14, 108)
    assert anatomy.liver_ml == pytest.approx(24 * 26 * 14 * 0.072)
    assert anatomy.tumor_ml == pytest.approx(108 * 0.072)
    assert (anatomy.liver_hu, anatomy.tumor_hu, anatomy.lesions) == (110, 60, 1)
    assert math.pi / 6 * anatomy.largest_lesion_mm**3 == pytest.approx(108 * 72)
    assert anatomy.liver_box == LIVER


def test_the_thumbnail_shows_the_largest_liver_slice_upright(scene: Scene, tmp_path: Path) -> None:
    scene.labels[34:58, 20:46, 6:19], scene.hu[:, :, 19] = 1, 33
    scene.labels[30:34, 20:46, 19] = 1  # the largest slice is z = 19
    thumbnail = checked(scene, tmp_path).thumbnail
    assert thumbnail is not None
    assert thumbnail.hu.shape == thumbnail.labels.shape == (check.THUMBNAIL_PX, check.THUMBNAIL_PX)
    assert thumbnail.hu[80, 80] == 33
    rows, columns = np.nonzero(thumbnail.labels)
    pixel = check.THUMBNAIL_PX / 64  # 4 columns of padding before y, none beside x
    assert columns.min() == pytest.approx((64 - 58) * pixel, abs=1)  # the patient's right is on the left
    assert rows.min() == pytest.approx((4 + 56 - 46) * pixel, abs=1)  # anterior is on top
    assert (thumbnail.hu[:8] == -1024).all()


def test_a_volume_larger_than_a_thumbnail_is_shrunk(scene: Scene, tmp_path: Path) -> None:
    scene.hu, scene.labels = (voxels.repeat(4, axis=0).repeat(4, axis=1) for voxels in (scene.hu, scene.labels))
    scene.mm = (0.75, 0.75, 8)
    thumbnail = checked(scene, tmp_path).thumbnail
    assert thumbnail is not None
    assert thumbnail.hu.shape == thumbnail.labels.shape == (check.THUMBNAIL_PX, check.THUMBNAIL_PX)
    assert np.count_nonzero(thumbnail.labels) == pytest.approx(24 * 26 * 2.5**2, rel=0.02)


def no_slices(s: Scene) -> None:
    s.hu, s.labels = s.hu[:, :, 4:22], s.labels[:, :, 4:22]


def thick(s: Scene) -> None:
    s.mm = (3, 3, 10.5)


def coarse(s: Scene) -> None:
    s.mm = (5.5, 5.5, 8)


def oblong(s: Scene) -> None:
    s.mm = (3, 2, 8)


def long_voxels(s: Scene) -> None:
    s.mm = (0.6, 0.6, 9.5)


def eight_bits(s: Scene) -> None:
    s.hu = s.hu.clip(0, 255)


def windowed(s: Scene) -> None:
    s.hu = s.hu.clip(-400, None)


def metal(s: Scene) -> None:
    s.hu[20, 20, 5], s.hu[60:64, :3] = 3100, 3100


def far_below(s: Scene) -> None:
    s.hu[60:64, :3] = -3000


def noise_in_air(s: Scene) -> None:
    s.hu[60:64] = -1090


def small_liver(s: Scene) -> None:
    s.labels[:, :, 13:] = 0


def large_liver(s: Scene) -> None:
    s.mm = (3, 3, 9.9)
    s.labels[4:60, 4:52, 1:23] = 1


def cut_liver(s: Scene) -> None:
    s.labels[LIVER[0], LIVER[1], :8] = 1


def cut_aside(s: Scene) -> None:
    s.labels[50:, 30:56, 14] = 1


def two_parts(s: Scene) -> None:
    s.labels[50:52] = 0


def crumbs(s: Scene) -> None:
    s.labels[10:12, 20, 10] = 1


def lone_tumor(s: Scene) -> None:
    s.labels[10:12, 40:42, 10] = 2


def many_lesions(s: Scene) -> None:
    for voxels, value in ((s.labels, 2), (s.hu, 60)):
        voxels[36:46:2, 20:46:2, 16:20:2] = value


def bright_tumor(s: Scene) -> None:
    s.hu[TUMOR] = 111


def mirrored(s: Scene) -> None:
    s.hu, s.labels = s.hu[::-1], s.labels[::-1]


def turned(s: Scene) -> None:
    s.hu, s.labels = s.hu.transpose(1, 0, 2), s.labels.transpose(1, 0, 2)


def upside_down(s: Scene) -> None:
    s.hu, s.labels = s.hu[:, ::-1], s.labels[:, ::-1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_slices, ["only 18 slices; expected at least 20 for a whole liver"]),
        (thick, ["slices 10.5 mm apart; expected at most 10"]),
        (coarse, ["pixels of 5.5 mm; expected at most 5"]),
        (oblong, ["pixels of 3 x 2 mm; expected squares; is the spacing right?"]),
        (
            long_voxels,
            [
                "voxels of 0.6 x 0.6 x 9.5 mm are very long; is the spacing right?",
                "a liver of 30 ml; expected 400 to 5000",
            ],
        ),
        (eight_bits, ["HU run from 0 to 255 exactly: gray values of an 8-bit picture, not Hounsfield units?"]),
        (windowed, ["no voxel below -800 HU, not even air (least: -400): windowed or cropped?"]),
        (metal, ["0.34 % of the voxels lie above 3071 HU and are clipped: metal, or damage?"]),
        (far_below, ["0.33 % of the voxels lie below -1024 HU, down to -3000, and are clipped: damage?"]),
        (noise_in_air, []),
        (small_liver, ["a liver of 314 ml; expected 400 to 5000"]),
        (large_liver, ["a liver of 5269 ml; expected 400 to 5000"]),
        (cut_liver, ["the liver reaches the volume's border (lower): is it cut off?"]),
        (cut_aside, ["the liver reaches the volume's border (right, front): is it cut off?"]),
        (two_parts, ["the liver is in 2 large parts; expected one"]),
        (crumbs, []),
        (lone_tumor, ["4 tumor voxels belong to lesions that touch no liver"]),
        (many_lesions, ["131 lesions; expected at most 100: noise in the labels?"]),
        (bright_tumor, ["the tumor is brighter than the liver: 111 HU against 110"]),
        (mirrored, [MIRRORED]),
        (turned, [TURNED]),
        (upside_down, [TURNED]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_oddity_is_told_and_no_other(
    scene: Scene, tmp_path: Path, change: Callable[[Scene], None], said: list[str]
) -> None:
    change(scene)
    report = checked(scene, tmp_path)
    assert report.error == ""
    assert list(report.warnings) == said


def test_a_liver_without_tumor_is_worth_a_note(scene: Scene, tmp_path: Path) -> None:
    scene.labels[TUMOR] = 1
    report = checked(scene, tmp_path)
    assert (report.error, report.warnings, report.notes) == ("", (), ("no tumor",))
    assert report.anatomy is not None and report.anatomy.lesions == 0
    assert math.isnan(report.anatomy.tumor_hu) and math.isnan(report.anatomy.largest_lesion_mm)


def test_a_case_without_liver_is_refused_but_shown(scene: Scene, tmp_path: Path) -> None:
    scene.labels[:] = 0
    report = checked(scene, tmp_path)
    assert "segmentation-7.nii: case 7 has no liver; expected label 1 or 2 in some slice" in report.error
    assert report.thumbnail is not None and report.anatomy is not None
    assert (report.anatomy.liver_ml, report.warnings, report.notes) == (0, (), ())


def test_a_liver_that_is_all_tumor(scene: Scene, tmp_path: Path) -> None:
    scene.labels[LIVER] = 2
    report = checked(scene, tmp_path)
    assert report.anatomy is not None and math.isnan(report.anatomy.liver_hu)
    assert report.warnings == ("8736 tumor voxels belong to lesions that touch no liver",)


def test_unknown_millimetres_are_nan_and_cause_no_other_warning(scene: Scene, tmp_path: Path) -> None:
    scene.write(tmp_path, 7)
    for kind, voxels in (("volume", scene.hu), ("segmentation", scene.labels)):
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{kind}-7.nii")
    (report,) = check_folder(tmp_path, processes=1).cases
    assert report.warnings == (MM_UNKNOWN,)
    assert report.anatomy is not None
    measures = (*report.anatomy.spacing_mm, report.anatomy.liver_ml, report.anatomy.tumor_ml)
    assert all(map(math.isnan, (*measures, report.anatomy.largest_lesion_mm)))
    assert report.anatomy.lesions == 1
