"""What is odd about a whole case that can be read: lines for people to look at, none of them a reason to refuse it.

The bounds are wide of LiTS (liver 1.5 +/- 0.4 L, slices 0.45 to 6 mm, up to 79 lesions): a warning is worth a look.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from litsexp.data.ct.volume import HU_MAX, HU_MIN, CtVolume, Facts

FEWEST_SLICES = 20
THICKEST_MM, COARSEST_MM = 10, 5  # between slices, and in plane (4 mm is a body on 96 pixels)
MOST_ANISOTROPY, MOST_OBLONG = 15, 1.2  # longest by shortest side of a voxel, and of a pixel
LIVER_ML = (400, 5000)
LARGE_PART = 0.05  # of the liver's voxels
MOST_LESIONS = 100
MOST_CLIPPED = 0.001  # of the voxels, above HU_MAX, and far below HU_MIN
NOISE_HU = -1100  # noise in air reaches far below HU_MIN, and means nothing
AIR_HU, BODY_HU, BONE_HU = -800, -500, 300
LEAST_BONE = 0.002  # of the body's voxels, for the spine to be found
SPINE_WIDTH = 0.12  # of the body's, about
MIRRORED = 0.03  # of the body's width: how far the liver lies on the wrong side
BORDERS = (("left", "right"), ("back", "front"), ("lower", "upper"))  # of a volume in RAS orientation


@dataclass(frozen=True)
class Anatomy(Facts):
    """What reading a case showed, and its measures; the liver is label >= 1, as LiTS counts. NaN where unknown."""

    liver_slices: int
    liver_voxels: int
    tumor_voxels: int
    liver_ml: float
    tumor_ml: float
    liver_hu: float  # median of label 1; NaN where there is none
    tumor_hu: float  # median of label 2; NaN where there is none
    lesions: int  # 6-connected components of label 2
    largest_lesion_mm: float  # diameter of the sphere with its volume; NaN without lesion
    liver_box: tuple[slice, slice, slice]  # the smallest around label >= 1; empty where there is none


def warnings(volume: CtVolume, anatomy: Anatomy) -> tuple[str, ...]:
    """One line for each oddity; the reader's remarks first."""
    found = [*anatomy.remarks, *_of_grid(anatomy), *_of_hu(volume, anatomy)]
    if anatomy.liver_voxels:
        found += [*_of_liver(volume, anatomy), *_of_lesions(anatomy), *_of_direction(volume, anatomy)]
    return tuple(found)


def _of_grid(anatomy: Anatomy) -> Iterator[str]:
    x_mm, y_mm, z_mm = anatomy.spacing_mm
    if anatomy.shape[2] < FEWEST_SLICES:
        yield f"only {anatomy.shape[2]} slices; expected at least {FEWEST_SLICES} for a whole liver"
    if z_mm > THICKEST_MM:  # false for NaN, here and below
        yield f"slices {z_mm:.3g} mm apart; expected at most {THICKEST_MM}"
    if max(x_mm, y_mm) > COARSEST_MM:
        yield f"pixels of {max(x_mm, y_mm):.3g} mm; expected at most {COARSEST_MM}"
    if max(x_mm, y_mm) > MOST_OBLONG * min(x_mm, y_mm):
        yield f"pixels of {x_mm:.3g} x {y_mm:.3g} mm; expected squares; is the spacing right?"
    if max(anatomy.spacing_mm) > MOST_ANISOTROPY * min(anatomy.spacing_mm):
        sides = " x ".join(f"{mm:.3g}" for mm in anatomy.spacing_mm)
        yield f"voxels of {sides} mm are very long; is the spacing right?"


def _of_hu(volume: CtVolume, anatomy: Anatomy) -> Iterator[str]:
    low_hu, high_hu = anatomy.hu_range
    percent = 100 / math.prod(anatomy.shape)
    if (low_hu, high_hu) == (0, 255):
        yield "HU run from 0 to 255 exactly: gray values of an 8-bit picture, not Hounsfield units?"
    elif low_hu > AIR_HU:
        yield f"no voxel below {AIR_HU} HU, not even air (least: {low_hu:g}): windowed or cropped?"
    above = int(np.count_nonzero(volume.hu == HU_MAX)) if high_hu > HU_MAX else 0
    below = anatomy.clipped - above if low_hu < NOISE_HU else 0
    if above * percent > 100 * MOST_CLIPPED:
        yield f"{above * percent:.2g} % of the voxels lie above {HU_MAX} HU and are clipped: metal, or damage?"
    if below * percent > 100 * MOST_CLIPPED:
        share = f"{below * percent:.2g} % of the voxels"
        yield f"{share} lie below {HU_MIN} HU, down to {low_hu:g}, and are clipped: damage?"


def _of_liver(volume: CtVolume, anatomy: Anatomy) -> Iterator[str]:
    low_ml, high_ml = LIVER_ML
    if anatomy.liver_ml < low_ml or anatomy.liver_ml > high_ml:
        yield f"a liver of {anatomy.liver_ml:.0f} ml; expected {low_ml} to {high_ml}"
    touched = [
        name
        for side, length, names in zip(anatomy.liver_box, anatomy.shape, BORDERS, strict=True)
        for name, touches in zip(names, (side.start == 0, side.stop == length), strict=True)
        if touches
    ]
    if touched:
        yield f"the liver reaches the volume's border ({', '.join(touched)}): is it cut off?"
    labels = volume.labels[anatomy.liver_box]
    parts, _ = ndimage.label(labels)  # 6-connected
    large = int(np.count_nonzero(np.bincount(parts.ravel())[1:] > LARGE_PART * anatomy.liver_voxels))
    if large > 1:
        yield f"the liver is in {large} large parts; expected one"
    with_liver = np.bincount(parts[labels == 1], minlength=parts.max() + 1) > 0
    alone = int(np.count_nonzero(~with_liver[parts[labels == 2]]))
    if alone:
        yield f"{alone} tumor voxels belong to lesions that touch no liver"


def _of_lesions(anatomy: Anatomy) -> Iterator[str]:
    if anatomy.lesions > MOST_LESIONS:
        yield f"{anatomy.lesions} lesions; expected at most {MOST_LESIONS}: noise in the labels?"
    if anatomy.tumor_hu > anatomy.liver_hu:
        yield f"the tumor is brighter than the liver: {anatomy.tumor_hu:g} HU against {anatomy.liver_hu:g}"


def _of_direction(volume: CtVolume, anatomy: Anatomy) -> Iterator[str]:
    """Two signs that an affine lies: the spine is not at the back, or the liver is not on the right.

    Both look at the slices that show liver, seen from below. The spine is where most bone lies close together.
    """
    hu, labels = (voxels[:, :, anatomy.liver_box[2]] for voxels in (volume.hu, volume.labels))
    body, bone = (np.count_nonzero(hu > least_hu, axis=2) for least_hu in (BODY_HU, BONE_HU))
    if not body.any():
        return
    width = math.sqrt(np.count_nonzero(body))
    centre = ndimage.center_of_mass(body)
    if bone.sum() > LEAST_BONE * body.sum():
        density = ndimage.uniform_filter(bone.astype(np.float64), max(1, round(SPINE_WIDTH * width)), mode="constant")
        to_right, to_front = np.subtract(centre, np.unravel_index(density.argmax(), density.shape))
        if to_front < abs(to_right):  # the body's middle lies more beside the spine than before it
            yield "the spine is not at the back: the header's orientation may be wrong, the picture turned"
            return
    if ndimage.center_of_mass(np.count_nonzero(labels, axis=2))[0] - centre[0] < -MIRRORED * width:
        yield "the liver lies on the patient's left: the header's orientation may be wrong (or situs inversus)"
