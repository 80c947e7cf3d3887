"""CT cases on disk: find them, read them in one orientation, refuse what is wrong, window Hounsfield units (HU)."""

from __future__ import annotations

import gzip
import logging
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.orientations import apply_orientation, io_orientation
from nibabel.spatialimages import HeaderDataError
from numpy.typing import ArrayLike, NDArray

from litsexp.config import LitsexpError

logger = logging.getLogger(__name__)

HU_MIN, HU_MAX = -1024, 3071  # 12-bit CT; LiTS itself holds -10522 to 27572
WINDOWS: Mapping[str, tuple[float, float]] = {  # (width_hu, level_hu)
    "liver": (150.0, 30.0),
    "custom": (200.0, 60.0),
    "wide": (400.0, 40.0),
}

_MAX_AXIS, _MAX_VOXELS = 4096, 2**31
_SPACINGS_MM = (1e-3, 1e3)  # a header beyond that is damaged
_SLAB_BYTES = 2**24  # read at once
_DEFLATE_RATIO = 1032  # the most that zlib's format can expand
_LAYOUTS = "volume-N.nii[.gz] + segmentation-N.nii[.gz], or imagesTr/liver_N.nii.gz + labelsTr/liver_N.nii.gz"
_VOLUME = re.compile(r"/(?:volume-|imagesTr/liver_)(\d+)\.nii(?:\.gz)?$")
_SEGMENTATION = re.compile(r"/(?:segmentation-|labelsTr/liver_)(\d+)\.nii(?:\.gz)?$")
_UNLABELED = re.compile(r"/(?:test-volume-\d+|imagesTs/liver_\d+)\.nii(?:\.gz)?$")


@dataclass(frozen=True)
class Case:
    """One patient's CT volume and its segmentation."""

    number: int
    volume: Path
    segmentation: Path


@dataclass(frozen=True, eq=False)
class CtVolume:
    """A case in RAS orientation: x grows to the patient's right, y to anterior, z to superior."""

    hu: NDArray[np.int16]  # (x, y, z), clipped to HU_MIN..HU_MAX
    labels: NDArray[np.uint8]  # (x, y, z): 0 background, 1 liver, 2 tumor
    spacing_mm: tuple[float, float, float]
    clipped: int  # voxels that were outside HU_MIN..HU_MAX


@dataclass(frozen=True, eq=False)
class _Header:
    """What a NIfTI header says about the voxels: value = raw * slope + intercept."""

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int  # bytes
    slope: float
    intercept: float
    affine: NDArray[np.float64]

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels as the header declares them."""
        x, y, z = self.shape
        return x * y * z * self.dtype.itemsize


def find_cases(root: Path) -> list[Case]:
    """Every labeled case under ``root``, by number, in any subfolders (symbolic links are followed).

    Raises LitsexpError for an empty or missing folder, a volume without segmentation or the reverse, and a number
    that occurs twice. Unlabeled official test volumes are left out, and their count is logged.
    """
    volumes: dict[int, Path] = {}
    segmentations: dict[int, Path] = {}
    unlabeled = others = 0
    for path in _files(root):
        name = f"/{path.as_posix()}"
        if match := _VOLUME.search(name):
            _add(volumes, int(match[1]), path)
        elif match := _SEGMENTATION.search(name):
            _add(segmentations, int(match[1]), path)
        else:
            unlabeled += bool(_UNLABELED.search(name))
            others += name.endswith((".nii", ".nii.gz"))
    if unlabeled:
        logger.info("%s: %d unlabeled test volumes are left out", root, unlabeled)
    if not volumes and not segmentations:
        raise LitsexpError(f"{root}: found no labeled CT case ({others} other .nii files); expected {_LAYOUTS}")
    _check_pairs(root, volumes, segmentations)
    return [Case(number, volumes[number], segmentations[number]) for number in sorted(volumes)]


def read_case(case: Case) -> CtVolume:
    """Read a case; the image's affine decides the voxel flips of both files, because label affines may be wrong.

    Memory: the result (3 bytes a voxel) and one slab of planes. Raises LitsexpError, in one line, for a file that is
    not NIfTI, truncated or corrupt, not 3D, empty or too large, shapes that differ, voxels that are NaN or infinite,
    and labels other than 0, 1 and 2.
    """
    image, label = _read_header(case.volume), _read_header(case.segmentation)
    if image.shape != label.shape:
        raise LitsexpError(
            f"{label.path}: shape {label.shape} differs from its volume's {image.shape} ({image.path.name}); "
            "expected one label a voxel; download both files of this case again, or leave the case out"
        )
    orientation, spacing_mm = _geometry(image)
    hu, clipped = _read_hu(image)
    return CtVolume(
        hu=apply_orientation(hu, orientation),
        labels=apply_orientation(_read_labels(label), orientation),
        spacing_mm=spacing_mm,
        clipped=clipped,
    )


def count_slices(case: Case) -> int:
    """Axial slices of a case, from the header alone; LitsexpError where the header is refused."""
    header = _read_header(case.volume)
    return header.shape[int(np.argmax(_geometry(header)[0][:, 0]))]


def apply_window(hu: ArrayLike, width_hu: float, level_hu: float) -> NDArray[np.float32]:
    """Map level - width/2 .. level + width/2 HU to 0..1 and clip; same shape as ``hu``."""
    if not width_hu > 0:
        raise ValueError(f"width_hu = {width_hu}; expected more than 0")
    lowest_hu = level_hu - width_hu / 2
    scaled: NDArray[np.float32] = (np.asarray(hu, np.float32) - np.float32(lowest_hu)) / np.float32(width_hu)
    return scaled.clip(0, 1)


def _files(root: Path) -> Iterator[Path]:
    """All files under a folder in sorted order, each real folder once."""
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise LitsexpError(f"{root}: found {found}; expected a folder with {_LAYOUTS}")
    seen: set[str] = set()
    with _one_line_errors(root):
        for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_raise):
            real = os.path.realpath(folder)
            if real in seen:
                subfolders.clear()
                continue
            seen.add(real)
            subfolders.sort()
            yield from (Path(folder, name) for name in sorted(names))


def _raise(error: OSError) -> None:
    raise error  # os.walk would pass over a folder that cannot be read, and its patients would be lost in silence


def _add(found: dict[int, Path], number: int, path: Path) -> None:
    if number in found:
        raise LitsexpError(
            f"{path}: case {number} is there twice, also as {found[number]}; expected each number once; remove one"
        )
    found[number] = path


def _check_pairs(root: Path, volumes: dict[int, Path], segmentations: dict[int, Path]) -> None:
    unpaired = sorted(volumes.keys() ^ segmentations.keys())
    if not unpaired:
        return
    first = unpaired[0]
    path, missing = (volumes[first], "segmentation") if first in volumes else (segmentations[first], "volume")
    others = f" ({len(unpaired) - 1} other cases are incomplete too)" if len(unpaired) > 1 else ""
    raise LitsexpError(
        f"{path}: found no {missing} with number {first} under {root}{others}; "
        "expected both files of each case; add it, or move this file away"
    )


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Turn what reading a bad file raises into one line that says what to do."""
    again = "download or copy the file again"
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LitsexpError(
            f"{path}: truncated or corrupt ({_line(error)}); expected a whole .nii.gz; {again}"
        ) from None
    except (HeaderDataError, ValueError) as error:  # ValueError: an impossible quaternion
        raise LitsexpError(f"{path}: bad NIfTI header ({_line(error)}); expected a 3D NIfTI file; {again}") from None
    except OSError as error:
        raise LitsexpError(f"{path}: cannot be read ({error.strerror or _line(error)}); {again}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _open(path: Path) -> BinaryIO:
    """Open by content, because a .nii may be gzip inside and a .nii.gz may have been unpacked."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb")) if zipped else path.open("rb")


def _read_header(path: Path) -> _Header:
    """Header of one NIfTI-1 or NIfTI-2 file; refuses what cannot be one 3D volume before any voxel is read."""
    with _one_line_errors(path):
        with _open(path) as file:
            block = file.read(540)
            zipped = isinstance(file, gzip.GzipFile)
        kind, magic = (Nifti2Header, block[4:8]) if block[4:6] == b"n+" else (Nifti1Header, block[344:348])
        size = kind.template_dtype.itemsize
        if len(block) < size or not magic.startswith(b"n+"):
            raise LitsexpError(f"{path}: not a NIfTI file; expected a CT volume as .nii or .nii.gz; download it again")
        raw = kind(block[:size])
        slope, intercept = raw.get_slope_inter()
        header = _Header(
            path=path,
            shape=_shape(path, tuple(int(n) for n in raw.get_data_shape())),
            dtype=raw.get_data_dtype(),
            offset=max(int(raw.get_data_offset()), raw.single_vox_offset),
            slope=1.0 if slope is None else float(slope),
            intercept=float(intercept or 0.0),
            affine=np.asarray(raw.get_best_affine(), np.float64),
        )
        _check_size(header, path.stat().st_size, zipped)
    return header


def _shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        what = "one time point" if len(shape) > 3 else "x, y and z"
        raise LitsexpError(f"{path}: found {len(shape)}D, shape {shape}; expected a 3D volume; keep {what} only")
    if min(shape) < 1:
        raise LitsexpError(f"{path}: empty, shape {shape}; expected at least one voxel an axis; download it again")
    if max(shape) > _MAX_AXIS or shape[0] * shape[1] * shape[2] > _MAX_VOXELS:
        limit = f"at most {_MAX_AXIS} voxels an axis and {_MAX_VOXELS} in all"
        raise LitsexpError(f"{path}: header declares shape {shape}; expected {limit}; download it again")
    return shape


def _check_size(header: _Header, file_bytes: int, zipped: bool) -> None:
    if header.dtype.kind not in "iuf":
        raise LitsexpError(
            f"{header.path}: voxels of type {header.dtype}; expected integers or floats; convert the file"
        )
    most = file_bytes * _DEFLATE_RATIO if zipped else file_bytes
    if header.offset + header.nbytes > most:
        raise LitsexpError(
            f"{header.path}: truncated: {file_bytes} bytes cannot hold the {header.offset + header.nbytes} bytes that "
            f"the header declares (shape {header.shape}, {header.dtype}); download or copy the file again"
        )


def _geometry(header: _Header) -> tuple[NDArray[np.float64], tuple[float, float, float]]:
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


def _slabs(header: _Header) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Values slope * raw + intercept, a few planes of the last voxel axis at a time, so that memory stays bounded."""
    x, y, z = header.shape
    plane_bytes = x * y * header.dtype.itemsize
    step = max(1, _SLAB_BYTES // plane_bytes)
    integers = header.dtype.kind in "iu" and header.dtype.itemsize <= 2 and (header.slope, header.intercept) == (1, 0)
    with _one_line_errors(header.path), _open(header.path) as file:
        file.seek(header.offset)
        for start in range(0, z, step):
            planes = min(step, z - start)
            block = file.read(planes * plane_bytes)
            if len(block) < planes * plane_bytes:
                raise EOFError(f"plane {start + len(block) // plane_bytes} of {z} is missing")
            raw = np.frombuffer(block, header.dtype).reshape((x, y, planes), order="F")
            with np.errstate(over="ignore", invalid="ignore"):
                values = raw.astype(np.int32) if integers else raw.astype(np.float64) * header.slope + header.intercept
            yield slice(start, start + planes), values
        while isinstance(file, gzip.GzipFile) and file.read(_SLAB_BYTES):
            pass  # gzip compares its checksum at the end of the file


def _read_hu(header: _Header) -> tuple[NDArray[np.int16], int]:
    """Rounded and clipped HU in voxel order, and how many voxels were clipped."""
    hu = np.empty(header.shape, np.int16, order="F")
    clipped = bad = 0
    for planes, values in _slabs(header):
        bad += values.size - int(np.count_nonzero(np.isfinite(values)))
        if bad:
            continue
        rounded = values if values.dtype.kind == "i" else np.rint(values)
        clipped += int(np.count_nonzero((rounded < HU_MIN) | (rounded > HU_MAX)))
        hu[:, :, planes] = np.clip(rounded, HU_MIN, HU_MAX)
    if bad:
        raise LitsexpError(
            f"{header.path}: {bad} voxels are NaN or infinite; expected finite HU; "
            f"replace them (air is {HU_MIN}), or leave the case out"
        )
    return hu, clipped


def _read_labels(header: _Header) -> NDArray[np.uint8]:
    """Labels in voxel order, each 0, 1 or 2."""
    labels = np.empty(header.shape, np.uint8, order="F")
    unknown: Counter[float] = Counter()
    for planes, values in _slabs(header):
        wrong = ~np.isin(values, (0, 1, 2))
        if wrong.any():
            found, counts = np.unique(values[wrong], return_counts=True)
            unknown.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        else:
            labels[:, :, planes] = values
    if unknown:
        named = ", ".join(f"{value:g} ({count} voxels)" for value, count in unknown.most_common(3))
        others = f" and {len(unknown) - 3} other values" if len(unknown) > 3 else ""
        raise LitsexpError(
            f"{header.path}: found label {named}{others}; expected only 0 background, 1 liver, 2 tumor; "
            "map the labels to these, or leave the case out"
        )
    return labels
