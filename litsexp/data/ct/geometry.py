"""What a CT header says about directions and millimetres, and how far it can be believed."""

import math

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from litsexp.data.ct.layout import Case
from litsexp.data.ct.nifti import Header
from litsexp.spec.errors import LitsexpError

MM_UNKNOWN = "the header says 1 x 1 x 1 mm as if nobody had filled it in; millimetres are unknown"
LITS_UNIT_CASES = range(28, 48)  # they say 1 mm, and are not
TILT_DEGREES = 2
_SPACINGS_MM = (0.01, 100.0)  # a header beyond that is damaged, or not in millimetres


def geometry(header: Header) -> tuple[NDArray[np.float64], tuple[float, float, float]]:
    """For each voxel axis its RAS axis and its direction, nibabel's (3, 2) array; and the spacing in mm along RAS."""
    with np.errstate(over="ignore", invalid="ignore"):
        sizes_mm = voxel_sizes(header.affine)
    if sizes_mm.min() > _SPACINGS_MM[0] and sizes_mm.max() < _SPACINGS_MM[1]:  # false for NaN
        orientation: NDArray[np.float64] = io_orientation(header.affine)
        if np.isfinite(orientation).all():
            x, y, z = (round(float(sizes_mm[axis]), 6) for axis in np.argsort(orientation[:, 0]))
            return orientation, (x, y, z)
    raise LitsexpError(
        f"{header.path}: the affine's voxel sizes are {sizes_mm.tolist()} mm; expected three directions of "
        f"{_SPACINGS_MM[0]:g} to {_SPACINGS_MM[1]:g} mm; repair the header's sform, or leave the case out"
    )


def tilt_degrees(header: Header) -> tuple[float, float]:
    """The largest angle between a voxel axis and the nearest body axis, and how far voxel axes are from orthogonal."""
    axes = header.affine[:3, :3] / voxel_sizes(header.affine)
    oblique = math.degrees(math.acos(min(1.0, float(np.abs(axes).max(axis=0).min()))))
    products = np.abs(np.triu(axes.T @ axes, 1)).max()
    return oblique, math.degrees(math.asin(min(1.0, float(products))))


def remarks_on(case: Case, image: Header, label: Header) -> tuple[str, ...]:
    """Known quirks of headers with which a case can be used all the same."""
    found = []
    sizes_mm = voxel_sizes(image.affine)
    is_unit = np.allclose(np.sort(np.abs(image.affine[:3, :3]), axis=None), [0] * 6 + [1] * 3, atol=1e-6)
    unfilled = not image.affine[:3, 3].any() or not image.placed
    if is_unit and (unfilled or case.number in LITS_UNIT_CASES):
        found.append(MM_UNKNOWN)
    elif not np.allclose(sizes_mm, image.pixdim_mm, rtol=0.01):
        written, used = (" x ".join(f"{mm:.3g}" for mm in sizes) for sizes in (image.pixdim_mm, sizes_mm))
        found.append(f"pixdim says {written} mm, the affine {used}; the affine is used")
    if image.slope != 1:
        found.append(f"values are scaled by {image.slope:g}, which CT rarely is; see that its HU are right")
    if not image.placed:
        found.append("neither sform nor qform is set; the orientation is NIfTI's default, and may be wrong")
    oblique, sheared = tilt_degrees(image)
    if oblique > TILT_DEGREES:
        found.append(f"oblique by {oblique:.0f} degrees; the voxel axes are taken for the nearest body axes")
    if sheared > TILT_DEGREES:
        found.append(f"axes {sheared:.0f} degrees from orthogonal (gantry tilt); planes are taken as they are")
    if not np.allclose(image.affine, label.affine, rtol=0.001, atol=0.01):
        found.append("the segmentation's affine differs from the volume's, which is used for both")
    return tuple(found)
