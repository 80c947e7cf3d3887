"""CT cases: read in one orientation, and refused where something is wrong. HU are Hounsfield units."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from nibabel.orientations import ornt2axcodes
from numpy.typing import NDArray

from litsexp.data.ct.geometry import MM_UNKNOWN, geometry, remarks_on
from litsexp.data.ct.labels import as_labels, unknown_labels
from litsexp.data.ct.layout import Case
from litsexp.data.ct.nifti import Header, read_header, slabs, values_of
from litsexp.spec.errors import LitsexpError

_T = TypeVar("_T", bound=np.generic)

HU_MIN, HU_MAX = -1024, 3071  # 12-bit CT; LiTS itself holds -10522 to 27572
MOST_ABOVE = 0.02  # share of the voxels above HU_MAX; metal is far less
LIVER_HU = (-100, 350)  # a liver's median: fatty and unenhanced to contrast at its height


@dataclass(frozen=True)
class Facts:
    """What reading a case showed, for people to judge it by."""

    shape: tuple[int, int, int]  # along RAS
    spacing_mm: tuple[float, float, float]  # along RAS; NaN where the header's is known to be false
    orientation: str  # of storage, where the axes grow to: ``LPS``
    dtype: str  # of the image, as stored: ``int16``
    hu_range: tuple[float, float]  # least and most HU, before clipping
    clipped: int  # voxels that were outside HU_MIN..HU_MAX, padding apart
    padding: int  # voxels outside the field of view that hold the scanner's padding value, below HU_MIN
    remarks: tuple[str, ...]  # what a user should know though the case can be used, a line each


@dataclass(frozen=True, eq=False)
class CtVolume:
    """A case in RAS orientation: x grows to the patient's right, y to anterior, z to superior."""

    hu: NDArray[np.int16]  # (x, y, z), clipped to HU_MIN..HU_MAX
    labels: NDArray[np.uint8]  # (x, y, z): 0 background, 1 liver, 2 tumor
    facts: Facts


@dataclass(frozen=True, eq=False)
class OpenImage:
    """A volume whose header was read; its planes are read when they are asked for.

    A plane is (row, column): rows run along the stored axis nearest to the patient's y, columns along x, both in stored
    direction; ``upright`` turns it as radiologists look at it.
    """

    image: Header
    orientation: NDArray[np.float64]  # nibabel's, of the stored axes
    spacing_mm: tuple[float, float, float]  # along RAS; NaN where unknown

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Planes, rows and columns."""
        x, y, z = (self.image.shape[axis] for axis in self._axes)
        return z, y, x

    def hu_planes(self, tally: Tally) -> Iterator[tuple[int, NDArray[np.int16]]]:
        """z (0 the most inferior plane) and clipped HU of every plane in stored order, each valid until the next.

        Counts into ``tally``; at the end LitsexpError where what was read cannot be CT.
        """
        for z, raw in self._planes(self.image):
            yield z, tally.clip(values_of(self.image, raw))
        tally.check(self.image.path)

    def upright(self, planes: NDArray[_T]) -> NDArray[_T]:
        """Planes (..., row, column) with row 0 anterior and column 0 the patient's right, a view; its own inverse."""
        return flipped(planes, self.flips)

    def as_stored(self, planes: NDArray[_T]) -> NDArray[_T]:
        """Planes (z, row, column) in stored direction, 0 the most inferior, as the file's own voxel array, a view."""
        return (planes if self.upwards else planes[::-1]).transpose(np.argsort(self._axes[::-1]))

    @cached_property
    def flips(self) -> tuple[bool, bool]:
        """Whether rows and columns run backwards in an upright picture: stored towards anterior, towards the right."""
        x, y, _ = self._axes
        return bool(self.orientation[y, 1] > 0), bool(self.orientation[x, 1] > 0)

    @cached_property
    def _axes(self) -> tuple[int, int, int]:
        """The stored axes nearest to the patient's x, y and z."""
        x, y, z = (int(axis) for axis in np.argsort(self.orientation[:, 0]))
        return x, y, z

    @cached_property
    def upwards(self) -> bool:
        """Whether planes are stored from inferior to superior."""
        return bool(self.orientation[self._axes[2], 1] > 0)

    def _planes(self, header: Header) -> Iterator[tuple[int, NDArray[Any]]]:
        """z and raw values of each axial plane. Only where z is not stored last is the whole volume held."""
        x, y, z = self._axes
        last = header.shape[z] - 1
        if z == 2:
            for planes, raw in slabs(header):
                for k, plane in enumerate(raw.transpose(2, y, x), start=planes.start):
                    yield k if self.upwards else last - k, plane
            return
        whole = np.empty(header.shape, header.dtype, order="F")
        for planes, raw in slabs(header):
            whole[:, :, planes] = raw
        for k, plane in enumerate(whole.transpose(z, y, x)):
            yield k if self.upwards else last - k, np.ascontiguousarray(plane)


@dataclass(frozen=True, eq=False)
class OpenCase(OpenImage):
    """A volume and its segmentation, whose headers fit together; the image's orientation counts for both files."""

    case: Case
    label: Header
    remarks: tuple[str, ...]

    def label_planes(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """z and labels of every plane in stored order; at the end LitsexpError where one was not 0, 1 or 2."""
        unknown: Counter[float] = Counter()
        for z, raw in self._planes(self.label):
            labels = as_labels(values_of(self.label, raw), unknown)
            if not unknown:
                yield z, labels
        if unknown:
            raise unknown_labels(self.label.path, unknown, "leave the case out")


@dataclass
class Tally:
    """What goes by while HU are read and clipped to HU_MIN..HU_MAX."""

    low_hu: float = math.inf
    high_hu: float = -math.inf
    clipped: int = 0
    padding: int = 0
    voxels: int = 0
    above: int = 0  # voxels above HU_MAX
    bad: int = 0  # voxels that are NaN or infinite
    _padding_hu: float | None = None

    def clip(self, values: NDArray[Any]) -> NDArray[np.int16]:
        """One plane, rounded and clipped; the volume's first voxel, where it is below HU_MIN, is its padding value."""
        if self._padding_hu is None:
            self._padding_hu = float(values.flat[0])
        self.voxels += values.size
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            if not finite.all():
                self.bad += values.size - int(np.count_nonzero(finite))
                values = np.where(finite, values, HU_MIN)
            values = np.rint(values)
        low_hu, high_hu = float(values.min()), float(values.max())
        self.low_hu, self.high_hu = min(self.low_hu, low_hu), max(self.high_hu, high_hu)
        if low_hu >= HU_MIN and high_hu <= HU_MAX:
            return values.astype(np.int16, copy=False)
        padding = int(np.count_nonzero(values == self._padding_hu)) if self._padding_hu < HU_MIN else 0
        above = int(np.count_nonzero(values > HU_MAX))
        self.padding += padding
        self.above += above
        self.clipped += above + int(np.count_nonzero(values < HU_MIN)) - padding
        return np.asarray(np.clip(values, HU_MIN, HU_MAX), np.int16)

    def check(self, path: Path) -> None:
        """LitsexpError where what was read cannot be CT."""
        if self.bad:
            raise LitsexpError(
                f"{path}: {self.bad} voxels are NaN or infinite; expected finite HU; "
                f"replace them (air is {HU_MIN}), or leave the case out"
            )
        if self.low_hu == self.high_hu:
            raise LitsexpError(f"{path}: every voxel is {self.low_hu:g}; expected a CT volume; download it again")
        if self.above > MOST_ABOVE * self.voxels:
            raise LitsexpError(
                f"{path}: {100 * self.above / self.voxels:.0f} % of the voxels are above {HU_MAX}; expected Hounsfield "
                f"units (air is -1000); check the file's number type ({self.high_hu:g} at most), slope and intercept"
            )


def flipped(planes: NDArray[_T], flips: tuple[bool, bool]) -> NDArray[_T]:
    """Planes (..., row, column) with rows and columns reversed where told, a view; its own inverse."""
    rows, columns = flips
    return planes[..., :: -1 if rows else 1, :: -1 if columns else 1]


def open_image(path: Path) -> OpenImage:
    """Read a volume's header; LitsexpError, in one line, for a file that is not a 3D NIfTI with three directions."""
    image = read_header(path)
    return OpenImage(image, *geometry(image))


def open_case(case: Case) -> OpenCase:
    """Read both headers; LitsexpError, in one line, for a file that is not a 3D NIfTI, or shapes that differ."""
    image, label = read_header(case.volume), read_header(case.segmentation)
    if image.shape != label.shape:
        raise LitsexpError(
            f"{label.path}: shape {label.shape} differs from its volume's {image.shape} ({image.path.name}); "
            "expected one label a voxel; download both files of this case again, or leave the case out"
        )
    orientation, spacing_mm = geometry(image)
    remarks = remarks_on(case, image, label)
    if MM_UNKNOWN in remarks:
        spacing_mm = (math.nan, math.nan, math.nan)
    return OpenCase(image, orientation, spacing_mm, case, label, remarks)


def read_case(case: Case) -> CtVolume:
    """Read a whole case; the image's affine decides the voxel flips of both files, because label affines may be wrong.

    Memory: the result (3 bytes a voxel) and a few planes, or one file more where z is not stored last. Raises
    LitsexpError, in one line, for a file that is not NIfTI, truncated, corrupt or too long, not 3D, empty or too large,
    shapes that differ, voxels that are NaN or infinite or cannot be HU, and labels other than 0, 1 and 2.
    """
    opened, tally = open_case(case), Tally()
    hu, labels = np.empty(opened.shape, np.int16), np.empty(opened.shape, np.uint8)
    for z, label_plane in opened.label_planes():
        labels[z] = label_plane
    for z, hu_plane in opened.hu_planes(tally):
        hu[z] = hu_plane
    check_liver(case, hu[labels > 0])
    facts = Facts(
        shape=opened.shape[::-1],
        spacing_mm=opened.spacing_mm,
        orientation="".join(ornt2axcodes(opened.orientation)),
        dtype=opened.image.stored_as,
        hu_range=(tally.low_hu, tally.high_hu),
        clipped=tally.clipped,
        padding=tally.padding,
        remarks=opened.remarks,
    )
    return CtVolume(_ras(opened.upright(hu)), _ras(opened.upright(labels)), facts)


def _ras(pictures: NDArray[_T]) -> NDArray[_T]:
    """Upright slices (z, row, column) as RAS voxels (x, y, z), a view."""
    return pictures.transpose(2, 1, 0)[::-1, ::-1]


def no_liver(case: Case) -> LitsexpError:
    """What is said of a case that gives no slice."""
    return LitsexpError(
        f"{case.segmentation}: case {case.number} has no liver; expected label 1 or 2 in some slice; "
        "leave the case out, or take all slices (data.slices or --slices: all)"
    )


def check_liver(case: Case, liver_hu: NDArray[np.int16]) -> None:
    """LitsexpError where the liver's median is no Hounsfield number of a liver, whatever the contrast phase."""
    low, high = LIVER_HU
    if liver_hu.size and not low <= (median := float(np.median(liver_hu))) <= high:
        raise LitsexpError(
            f"{case.volume}: the labeled liver has a median of {median:g}; expected Hounsfield units, {low} to {high} "
            "in a liver; check the intercept (often -1024), and that the segmentation belongs to this volume"
        )


def count_slices(case: Case) -> int:
    """Axial slices of a case, from the header alone; 0 where that is refused: reading the case will say why."""
    try:
        header = read_header(case.volume)
        return header.shape[int(np.argmax(geometry(header)[0][:, 0]))]
    except LitsexpError:
        return 0
