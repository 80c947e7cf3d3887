"""CT cases to slices of one size, in parallel: each case becomes a part, which the store joins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from litsexp.config import DataConfig, LitsexpError
from litsexp.data.ct import HU_MIN, Case, read_case
from litsexp.data.parallel import Progress, map_parallel
from litsexp.data.resize import resize_hu, resize_labels

COLUMNS: Mapping[str, str] = {  # of the store's index; liver_pixels counts label >= 1, tumor_pixels label 2, as stored
    "case": "<i8",
    "z": "<i8",  # slice number in RAS orientation, 0 the most inferior one of the volume
    "liver_pixels": "<i8",
    "tumor_pixels": "<i8",
    "spacing_x_mm": "<f8",  # between columns, after the resize
    "spacing_y_mm": "<f8",  # between rows, after the resize
    "spacing_z_mm": "<f8",
}
PIXELS: Mapping[str, str] = {"hu": "<i2", "labels": "|u1"}
_BATCH = 16  # slices resized at once
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class Part:
    """One converted case: its pixels lie in ``case-N-hu.npy`` and ``case-N-labels.npy`` until they are joined."""

    case: int
    rows: dict[str, list[int] | list[float]]  # COLUMNS -> a value a slice
    clipped_voxels: int


_Outcome = Part | tuple[int, str]  # or the case number and why it is refused


def convert_all(
    cases: Sequence[Case],
    data: DataConfig,
    temporary: Path,
    processes: int | None,
    progress: Progress | None,
) -> list[Part]:
    """Convert every case, then raise the first refusal by case number, or return the parts in case order."""
    convert = partial(_try_convert, size=data.size, slices=data.slices, temporary=temporary)
    outcomes = map_parallel(convert, cases, processes, progress)
    refused = dict(outcome for outcome in outcomes if not isinstance(outcome, Part))
    if refused:
        first, *others = sorted(refused)
        also = f" ({len(others)} more refused: {', '.join(map(str, others[:10]))})" if others else ""
        raise LitsexpError(refused[first] + also)
    return [outcome for outcome in outcomes if isinstance(outcome, Part)]


def _try_convert(case: Case, size: int, slices: str, temporary: Path) -> _Outcome:
    try:
        return _convert(case, size, slices, temporary)
    except LitsexpError as error:
        return case.number, str(error)


def _convert(case: Case, size: int, slices: str, temporary: Path) -> Part:
    """Read, orient, pad, resize and write one case."""
    volume = read_case(case)
    stored = np.arange(volume.hu.shape[2])
    if slices == "liver":
        stored = np.flatnonzero(volume.labels.max(axis=(0, 1)))
        if not stored.size:
            raise LitsexpError(
                f"{case.segmentation}: case {case.number} has no liver; expected label 1 or 2 in some slice; "
                "leave the case out, or set data.slices to all"
            )
    shape = (len(stored), size, size)
    liver_pixels: list[int] = []
    tumor_pixels: list[int] = []
    hu_path, labels_path = (part_path(temporary, case.number, name) for name in PIXELS)
    with (
        new_array(hu_path, PIXELS["hu"], shape) as hu_file,
        new_array(labels_path, PIXELS["labels"], shape) as labels_file,
    ):
        for start in range(0, len(stored), _BATCH):
            batch = stored[start : start + _BATCH]
            hu_file.write(resize_hu(_pictures(volume.hu, batch, HU_MIN), size).astype(PIXELS["hu"]).data)
            labels = resize_labels(_pictures(volume.labels, batch, 0), size)
            labels_file.write(labels.data)
            liver_pixels += np.count_nonzero(labels, axis=(1, 2)).tolist()
            tumor_pixels += np.count_nonzero(labels == 2, axis=(1, 2)).tolist()
    scale = max(volume.hu.shape[:2]) / size
    spacing_mm = (volume.facts.spacing_mm[0] * scale, volume.facts.spacing_mm[1] * scale, volume.facts.spacing_mm[2])
    columns: list[list[int] | list[float]] = [
        [case.number] * len(stored),
        stored.tolist(),
        liver_pixels,
        tumor_pixels,
        *([mm] * len(stored) for mm in spacing_mm),
    ]
    return Part(case.number, dict(zip(COLUMNS, columns, strict=True)), volume.facts.clipped)


def part_path(temporary: Path, case: int, name: str) -> Path:
    """Where the pixels of a converted case lie; ``name`` is one of PIXELS."""
    return temporary / f"case-{case}-{name}.npy"


def new_array(path: Path, dtype: str, shape: tuple[int, ...]) -> BinaryIO:
    """A .npy file to write pixels to in order: on a full disk, unlike a memory map, that is an error and no crash."""
    file = path.open("wb")
    write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file


def _pictures(voxels: NDArray[_T], stored: NDArray[np.int64], fill: int) -> NDArray[_T]:
    """RAS voxels (x, y, z) to square slices (n, row, column): anterior on top, the patient's right on the left."""
    slices = voxels[::-1, ::-1, stored].transpose(2, 1, 0)
    side = max(slices.shape[1:])
    before = [(side - n) // 2 for n in slices.shape[1:]]
    padding = [(0, 0), *((b, side - n - b) for b, n in zip(before, slices.shape[1:], strict=True))]
    return np.pad(slices, padding, constant_values=fill)
