"""NIfTI files, read with suspicion: header, orientation, and voxels a few planes at a time."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.orientations import io_orientation
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from litsexp.config import LitsexpError

_MAX_AXIS, _MAX_VOXELS = 4096, 2**31
_SPACINGS_MM = (1e-3, 1e3)  # a header beyond that is damaged
_SLAB_BYTES = 2**24  # read at once
_DEFLATE_RATIO = 1032  # the most that zlib's format can expand


@dataclass(frozen=True, eq=False)
class Header:
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


def read_header(path: Path) -> Header:
    """Header of one NIfTI-1 or NIfTI-2 file; refuses what cannot be one 3D volume before any voxel is read."""
    with one_line_errors(path):
        with _open(path) as file:
            block = file.read(540)
            zipped = isinstance(file, gzip.GzipFile)
        kind, magic = (Nifti2Header, block[4:8]) if block[4:6] == b"n+" else (Nifti1Header, block[344:348])
        size = kind.template_dtype.itemsize
        if len(block) < size or not magic.startswith(b"n+"):
            raise LitsexpError(f"{path}: not a NIfTI file; expected a CT volume as .nii or .nii.gz; download it again")
        raw = kind(block[:size])
        slope, intercept = raw.get_slope_inter()
        header = Header(
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


def slabs(header: Header) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Values slope * raw + intercept, a few planes of the last voxel axis at a time, so that memory stays bounded."""
    x, y, z = header.shape
    plane_bytes = x * y * header.dtype.itemsize
    step = max(1, _SLAB_BYTES // plane_bytes)
    integers = header.dtype.kind in "iu" and header.dtype.itemsize <= 2 and (header.slope, header.intercept) == (1, 0)
    with one_line_errors(header.path), _open(header.path) as file:
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


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
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


def _check_size(header: Header, file_bytes: int, zipped: bool) -> None:
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
