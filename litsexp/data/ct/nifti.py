"""NIfTI files, read with suspicion: the header, and voxels a few planes at a time."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

import numpy as np
from isal import igzip, igzip_lib
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Header, Nifti2Image
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from litsexp.spec.errors import LitsexpError

_MAX_AXIS, _MAX_VOXELS = 4096, 2**31
_SLAB_BYTES = 2**21  # read at once: what a core's cache holds
_DEFLATE_RATIO = 1032  # the most that zlib's format can expand
_CORRUPT = (EOFError, zlib.error, gzip.BadGzipFile, cast(type[Exception], igzip_lib.IsalError))


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
    pixdim_mm: tuple[float, float, float]  # voxel size as written beside the affine
    placed: bool  # whether an affine was written at all: sform or qform

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels as the header declares them."""
        x, y, z = self.shape
        return x * y * z * self.dtype.itemsize

    @property
    def stored_as(self) -> str:
        """Number type for people: ``int16``, or ``uint16 * 1 - 1024`` where the file scales its values."""
        scaled = (self.slope, self.intercept) != (1, 0)
        return f"{self.dtype.name} * {self.slope:g} {self.intercept:+g}" if scaled else self.dtype.name


def read_header(path: Path) -> Header:
    """Header of one NIfTI-1 or NIfTI-2 file; refuses what cannot be one 3D volume before any voxel is read."""
    with one_line_errors(path), np.errstate(invalid="ignore", over="ignore"):
        raw, zipped = _raw_header(path)
        slope, intercept = raw.get_slope_inter()
        header = Header(
            path=path,
            shape=_shape(path, tuple(int(n) for n in raw.get_data_shape())),
            dtype=_dtype(raw),
            offset=int(raw["vox_offset"]) or raw.single_vox_offset,
            slope=1.0 if slope is None else float(slope),
            intercept=float(intercept or 0.0),
            affine=np.asarray(raw.get_best_affine(), np.float64),
            pixdim_mm=cast(tuple[float, float, float], tuple(float(mm) for mm in raw["pixdim"][1:4])),
            placed=bool(raw["sform_code"] or raw["qform_code"]),
        )
        _check_fields(header, raw)
        _check_size(header, path.stat().st_size, zipped)
    return header


def write_labels(path: Path, labels: NDArray[np.uint8], like: Header) -> None:
    """Labels in a volume's own geometry, as uint8: the volume's header with all that it says of place and direction.

    ``labels`` has the volume's shape; ``path`` ends in .nii.gz, or in .nii. The same labels give the same bytes.
    """
    if labels.shape != like.shape:
        raise ValueError(f"labels {labels.shape} of volume {like.shape}; expected one shape")
    header = _raw_header(like.path)[0]
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = header["vox_offset"] = 0
    kind = Nifti2Image if isinstance(header, Nifti2Header) else Nifti1Image
    kind(labels, None, header).to_filename(path)


def slabs(header: Header) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Raw values, a few planes of the last voxel axis at a time; a slab is valid until the next is asked for.

    At the end the file's length and, of gzip, its checksum have been compared.
    """
    x, y, z = header.shape
    plane_bytes = x * y * header.dtype.itemsize
    step = max(1, _SLAB_BYTES // plane_bytes)
    buffer = memoryview(bytearray(min(step, z) * plane_bytes))
    with one_line_errors(header.path), _open(header.path) as file:
        file.seek(header.offset)
        for start in range(0, z, step):
            planes = min(step, z - start)
            wanted = buffer[: planes * plane_bytes]
            done = file.readinto(wanted)
            if done < len(wanted):
                raise EOFError(f"plane {start + done // plane_bytes} of {z} is missing")
            yield slice(start, start + planes), np.frombuffer(wanted, header.dtype).reshape((x, y, planes), order="F")
        if file.read(1):  # read to the end, gzip compares its checksum
            raise LitsexpError(_too_long(header))


def values_of(header: Header, raw: NDArray[Any]) -> NDArray[Any]:
    """Values slope * raw + intercept: whole numbers stay integers, the rest is float64."""
    slope, intercept = header.slope, header.intercept
    small = header.dtype.kind in "iu" and header.dtype.itemsize <= 2
    if (slope, intercept) == (1, 0) and (small or header.dtype.kind == "f"):
        return raw
    if small and slope.is_integer() and intercept.is_integer() and max(abs(slope), abs(intercept)) < 2**14:
        return raw.astype(np.int32) * int(slope) + int(intercept)
    with np.errstate(over="ignore", invalid="ignore"):
        return raw.astype(np.float64) * slope + intercept


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Turn what reading a bad file raises into one line that says what to do."""
    again = "download or copy the file again"
    try:
        yield
    except _CORRUPT as error:
        raise LitsexpError(
            f"{path}: truncated or corrupt ({_line(error)}); expected a whole .nii.gz; {again}"
        ) from None
    except (HeaderDataError, ValueError, OverflowError) as error:  # an impossible quaternion, an infinite offset
        raise LitsexpError(f"{path}: bad NIfTI header ({_line(error)}); expected a 3D NIfTI file; {again}") from None
    except OSError as error:
        raise LitsexpError(f"{path}: cannot be read ({error.strerror or _line(error)}); {again}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _open(path: Path) -> BufferedIOBase:
    """Open by content, because a .nii may be gzip inside and a .nii.gz may have been unpacked."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return cast(BufferedIOBase, igzip.IGzipFile(path, "rb")) if zipped else path.open("rb")


def _raw_header(path: Path) -> tuple[Nifti1Header, bool]:
    """nibabel's header as it stands in the file, and whether that is gzip; LitsexpError for another kind of file."""
    with _open(path) as file:
        block = file.read(540)
        zipped = isinstance(file, gzip.GzipFile)
    kind = Nifti2Header if block[4:8] == b"n+2\0" else Nifti1Header
    size = kind.template_dtype.itemsize
    if len(block) < size or (kind is Nifti1Header and block[344:348] != b"n+1\0"):
        raise LitsexpError(f"{path}: not a NIfTI file; expected a CT volume as .nii or .nii.gz; download it again")
    raw = kind(block[:size], check=False)  # its checks repair in silence, and log
    if raw["pixdim"][0] == 0:
        raw["pixdim"][0] = 1  # what the standard says it means
    return raw, zipped


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


def _dtype(raw: Nifti1Header) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(raw.get_data_dtype())
    except KeyError as error:
        raise HeaderDataError(f"data type code {error} is none of NIfTI's") from None
    return dtype


def _check_fields(header: Header, raw: Nifti1Header) -> None:
    """Fields that say the same thing twice have to agree."""
    if header.dtype.kind not in "iuf":
        raise LitsexpError(
            f"{header.path}: voxels of type {header.dtype}; expected integers or floats; convert the file"
        )
    for name, expected in (("sizeof_hdr", raw.sizeof_hdr), ("bitpix", 8 * header.dtype.itemsize)):
        if int(raw[name]) != expected:
            raise HeaderDataError(f"{name} is {int(raw[name])}, not {expected}")
    if header.offset < raw.single_vox_offset:
        raise HeaderDataError(f"vox_offset is {header.offset}, inside the header")


def _check_size(header: Header, file_bytes: int, zipped: bool) -> None:
    declared = header.offset + header.nbytes
    if declared > (file_bytes * _DEFLATE_RATIO if zipped else file_bytes):
        raise LitsexpError(
            f"{header.path}: truncated: {file_bytes} bytes cannot hold the {declared} bytes that "
            f"the header declares (shape {header.shape}, {header.dtype}); download or copy the file again"
        )
    if not zipped and file_bytes > declared:
        raise LitsexpError(_too_long(header))


def _too_long(header: Header) -> str:
    return (
        f"{header.path}: holds more than the {header.offset + header.nbytes} bytes that the header declares "
        f"(shape {header.shape}, {header.dtype}); expected exactly these; download or copy the file again"
    )
