"""A mask and its truth as one case: read a few planes at a time, kept where they are foreground, laid on each other.

The orientation and the millimetres are those of the CT volume where it is there (a label's affine may be wrong), else
the truth's. A prediction that is stored otherwise is turned by its own affine.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import ornt2axcodes, ornt_transform
from numpy.typing import NDArray

from litsexp.data.ct.geometry import MM_UNKNOWN, geometry, remarks_on
from litsexp.data.ct.labels import as_labels, unknown_labels
from litsexp.data.ct.layout import Case
from litsexp.data.ct.nifti import Header, read_header, slabs, values_of
from litsexp.data.ct.pairs import MaskFiles
from litsexp.data.ct.volume import HU_MAX, HU_MIN
from litsexp.spec.errors import LitsexpError

Triple = tuple[int, int, int]
Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Mask:
    """The labels of one file in the box of their foreground, along its voxel axes."""

    labels: NDArray[np.uint8]  # (i, j, k), C order not promised
    origin: Triple  # of the box in the file
    shape: Triple  # of the file


@dataclass(frozen=True, eq=False)
class MaskCase:
    """Truth and prediction in the box of what is foreground in either; axes nearest to the patient's z, y and x.

    Axes run in the direction in which the truth is stored.
    """

    truth: NDArray[np.uint8]  # (z, y, x)
    prediction: NDArray[np.uint8]  # the same shape
    first_slice: int  # of the box in the volume
    whole: Triple  # (z, y, x) of the volume
    spacing_mm: Spacing  # (z, y, x); NaN where unknown
    written_mm: Spacing  # (z, y, x), as the truth's header says beside its affine, right or not
    stored: Triple  # the axis of these arrays of each voxel axis of the truth's file
    truth_box: tuple[slice, slice, slice]  # of these arrays: all of the truth's foreground
    hu: NDArray[np.int16] | None  # of ``truth_box``, clipped to HU_MIN..HU_MAX; None where there is no volume
    remarks: tuple[str, ...]


def read_masks(files: MaskFiles) -> MaskCase:
    """Read one case.

    Memory: the boxes of the foreground, and a few planes. Raises LitsexpError, in one line, for a file that is no 3D
    NIfTI, truncated or corrupt, shapes that do not fit, labels other than 0, 1 and 2, and HU that are NaN.
    """
    label, predicted = read_header(files.truth), read_header(files.prediction)
    image = read_header(files.volume) if files.volume else label
    if image.shape != label.shape:
        found = f"shape {label.shape} differs from its volume's {image.shape} ({image.path.name})"
        raise LitsexpError(f"{label.path}: {found}; expected one label a voxel; see that both are of one case")
    orientation, _ = geometry(image)
    turned, remarks = _turn_of(predicted, image, orientation)
    _check_shape(predicted, label, turned)
    truth, prediction = read_mask(label), _turned(read_mask(predicted), turned)
    known = remarks_on(Case(files.case, image.path, label.path), image, label)
    x, y, z = (int(axis) for axis in np.argsort(orientation[:, 0]))
    spacing_mm = _zyx(tuple(round(float(mm), 6) for mm in voxel_sizes(image.affine)), (z, y, x))
    box = _union(truth, prediction)
    return MaskCase(
        truth=_laid(truth, box).transpose(z, y, x),
        prediction=_laid(prediction, box).transpose(z, y, x),
        first_slice=box[z].start,
        whole=_zyx(label.shape, (z, y, x)),
        spacing_mm=(math.nan,) * 3 if MM_UNKNOWN in known else spacing_mm,
        written_mm=_zyx(label.pixdim_mm, (z, y, x)),
        stored=((z, y, x).index(0), (z, y, x).index(1), (z, y, x).index(2)),
        truth_box=_zyx(_within(truth, box), (z, y, x)),
        hu=_hu(image, truth).transpose(z, y, x) if files.volume else None,
        remarks=(*known, *remarks),
    )


def read_mask(header: Header) -> Mask:
    """The labels of a file, cut to their box; LitsexpError where one is none of 0, 1 and 2."""
    unknown: Counter[float] = Counter()
    planes: list[tuple[int, NDArray[np.uint8]]] = []  # those with foreground
    for where, raw in slabs(header):
        values = values_of(header, raw).transpose(2, 1, 0)  # (k, j, i), as the file lies
        for k, plane in zip(range(where.start, where.stop), values, strict=True):
            if not plane.any():
                continue
            labels = as_labels(plane, unknown)
            if not unknown:
                planes.append((k, labels.copy()))  # the slab is read over
    if unknown:
        raise unknown_labels(header.path, unknown, "")
    return _cut(planes, header.shape)


def _cut(planes: list[tuple[int, NDArray[np.uint8]]], shape: Triple) -> Mask:
    """Planes (j, i) with foreground, ascending, as one mask in its box."""
    if not planes:
        return Mask(np.zeros((0, 0, 0), np.uint8), (0, 0, 0), shape)
    shown = np.zeros(planes[0][1].shape, np.uint8)
    for _, plane in planes:
        np.bitwise_or(shown, plane, out=shown)
    (top, bottom), (left, right) = (np.flatnonzero(shown.any(axis=axis))[[0, -1]].tolist() for axis in (1, 0))
    first, last = planes[0][0], planes[-1][0]
    cut = np.zeros((last - first + 1, bottom - top + 1, right - left + 1), np.uint8)
    for k, plane in planes:
        cut[k - first] = plane[top : bottom + 1, left : right + 1]
    return Mask(cut.transpose(2, 1, 0), (left, top, first), shape)


def _turn_of(
    predicted: Header, image: Header, orientation: NDArray[np.float64]
) -> tuple[NDArray[np.float64] | None, list[str]]:
    """How the prediction's voxel axes are turned into the truth's, nibabel's (3, 2) array; None: they are the same."""
    for header in (predicted, image):
        if not header.placed:
            said = f"{header.path.name} has neither sform nor qform; compared as stored"
            return None, [said] if header is predicted else []
    own, _ = geometry(predicted)
    remarks = _other_sizes(predicted, image)
    if np.array_equal(own, orientation):
        return None, remarks
    axes, wanted = ("".join(ornt2axcodes(one)) for one in (own, orientation))
    turned: NDArray[np.float64] = ornt_transform(own, orientation)
    said = f"the prediction is stored as {axes} and the truth as {wanted}; it is turned by its affine"
    if np.array_equal(predicted.affine, np.eye(4)):
        said += ", which is the identity, as if nobody had filled it in"
    return turned, [said, *remarks]


def _other_sizes(predicted: Header, image: Header) -> list[str]:
    """A remark where the sizes of the voxels are not the truth's, whatever their order."""
    sizes_mm = [np.sort(voxel_sizes(header.affine)) for header in (predicted, image)]
    if np.allclose(sizes_mm[0], sizes_mm[1], rtol=0.01):
        return []
    its, wanted = (" x ".join(f"{mm:.3g}" for mm in sizes) for sizes in sizes_mm)
    return [f"the prediction's affine says voxels of {its} mm, the truth's {wanted}; compared voxel by voxel"]


def _check_shape(predicted: Header, label: Header, turned: NDArray[np.float64] | None) -> None:
    shape = predicted.shape if turned is None else _permuted(predicted.shape, turned)
    if shape != label.shape:
        how = "" if turned is None else f", {shape} along the truth's axes,"
        found = f"shape {predicted.shape}{how} differs from the truth's {label.shape} ({label.path.name})"
        raise LitsexpError(f"{predicted.path}: {found}; expected one label a voxel; resample it to the CT's own grid")


def _permuted(values: tuple[Any, ...], turned: NDArray[np.float64]) -> tuple[Any, ...]:
    order = [int(axis) for axis in np.argsort(turned[:, 0])]
    return tuple(values[axis] for axis in order)


def _turned(mask: Mask, turned: NDArray[np.float64] | None) -> Mask:
    """The mask along the truth's voxel axes."""
    if turned is None:
        return mask
    flips = turned[:, 1] < 0
    ends = zip(mask.origin, mask.labels.shape, mask.shape, flips, strict=True)
    origin = tuple(whole - first - n if flip else first for first, n, whole, flip in ends)
    labels = mask.labels[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    order = tuple(int(axis) for axis in np.argsort(turned[:, 0]))
    i, j, k = _permuted(origin, turned)
    shape_i, shape_j, shape_k = _permuted(mask.shape, turned)
    return Mask(labels.transpose(order), (i, j, k), (shape_i, shape_j, shape_k))


def _union(*masks: Mask) -> tuple[slice, slice, slice]:
    """The box around all that is foreground; empty where nothing is."""
    shown = [mask for mask in masks if mask.labels.size]
    if not shown:
        return slice(0, 0), slice(0, 0), slice(0, 0)
    starts = np.min([mask.origin for mask in shown], axis=0)
    stops = np.max([np.add(mask.origin, mask.labels.shape) for mask in shown], axis=0)
    i, j, k = (slice(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))
    return i, j, k


def _within(mask: Mask, box: tuple[slice, ...]) -> tuple[slice, ...]:
    """Where a mask lies in a box that holds it."""
    if not mask.labels.size:
        return slice(0, 0), slice(0, 0), slice(0, 0)
    where = zip(mask.origin, mask.labels.shape, box, strict=True)
    return tuple(slice(first - outer.start, first - outer.start + n) for first, n, outer in where)


def _laid(mask: Mask, box: tuple[slice, ...]) -> NDArray[np.uint8]:
    """A mask in a box that holds it, (i, j, k); planes of k lie together."""
    i, j, k = (part.stop - part.start for part in box)
    if mask.labels.shape == (i, j, k):
        return mask.labels
    result = np.zeros((k, j, i), np.uint8).transpose(2, 1, 0)
    result[_within(mask, box)] = mask.labels
    return result


def _hu(image: Header, mask: Mask) -> NDArray[np.int16]:
    """HU of the mask's box, (i, j, k), rounded and clipped; the whole file is read, and its end compared."""
    i, j, k = (slice(first, first + n) for first, n in zip(mask.origin, mask.labels.shape, strict=True))
    hu = np.empty(mask.labels.shape[::-1], np.int16).transpose(2, 1, 0)
    for where, raw in slabs(image):
        first, last = max(where.start, k.start), min(where.stop, k.stop)
        if first >= last:
            continue
        values = values_of(image, raw[i, j, first - where.start : last - where.start])
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            expected = f"expected finite HU; replace them (air is {HU_MIN}), or move the volume away"
            raise LitsexpError(f"{image.path}: voxels in the liver's box are NaN or infinite; {expected}")
        hu[:, :, first - k.start : last - k.start] = np.rint(np.clip(values, HU_MIN, HU_MAX))
    return hu


def _zyx(values: tuple[Any, ...], axes: Triple) -> tuple[Any, Any, Any]:
    """Values of the voxel axes in the order of these axes."""
    return values[axes[0]], values[axes[1]], values[axes[2]]
