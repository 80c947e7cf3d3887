"""CT cases to slices of one size, in parallel: each case becomes a part on disk, which the store joins."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from litsexp.data.ct.layout import Case
from litsexp.data.ct.volume import HU_MIN, OpenCase, OpenImage, Tally, check_liver, no_liver, open_case
from litsexp.data.parallel import Progress, map_parallel
from litsexp.data.store.resize import Resize, squared
from litsexp.data.store.slices import COLUMNS, PIXELS
from litsexp.files import whole_file
from litsexp.spec.errors import LitsexpError


@dataclass(frozen=True)
class Part:
    """One converted case: ``KEY-hu.npy``, ``KEY-labels.npy`` and, written last, this as ``KEY.json``."""

    case: int
    key: str  # of the case's files
    content: str  # SHA-256 of pixels, labels and rows
    rows: dict[str, list[Any]]  # COLUMNS -> a value a slice
    facts: dict[str, Any]  # of the reading, for people


def convert_all(
    cases: Mapping[str, Case], size: int, slices: str, folder: Path, processes: int | None, progress: Progress | None
) -> list[Part]:
    """Convert the cases (by the key of their files) that have no part in ``folder`` yet.

    All parts in case order, or LitsexpError with the first refusal.
    """
    done = [part for key in cases if (part := _read_part(folder, key))]
    left = [(key, case) for key, case in cases.items() if key not in {part.key for part in done}]
    if progress is not None and done:
        progress(len(done), len(cases))
    counted = progress and (lambda n, _: progress(len(done) + n, len(cases)))
    outcomes = map_parallel(partial(_try_convert, size=size, slices=slices, folder=folder), left, processes, counted)
    refused = dict(outcome for outcome in outcomes if not isinstance(outcome, Part))
    if refused:
        first, *others = sorted(refused)
        also = f" ({len(others)} more refused: {', '.join(map(str, others[:10]))})" if others else ""
        raise LitsexpError(refused[first] + also)
    parts = [*done, *(outcome for outcome in outcomes if isinstance(outcome, Part))]
    return sorted(parts, key=lambda part: part.case)


def chosen_slices(has_liver: NDArray[np.bool_], slices: str) -> NDArray[np.int64]:
    """Which slices (z, ascending) are kept of a case whose slices show liver or not.

    ``liver``: those that do; ``all``; ``liver+N% background``: also N % of the others, rounded half up, spread evenly
    from the lowest to the highest.
    """
    if slices == "all":
        return np.arange(len(has_liver))
    others = np.flatnonzero(~has_liver)
    percent = re.fullmatch(r"liver\+(\d+)% background", slices)
    count = (len(others) * int(percent[1]) + 50) // 100 if percent else 0
    spread = others[((2 * np.arange(count) + 1) * len(others)) // (2 * max(count, 1))]
    return np.sort(np.concatenate([np.flatnonzero(has_liver), spread]))


def part_path(folder: Path, key: str, name: str) -> Path:
    """Where the pixels of a converted case lie; ``name`` is one of PIXELS."""
    return folder / f"{key}-{name}.npy"


def new_array(path: Path, dtype: str, shape: tuple[int, ...]) -> BinaryIO:
    """A .npy file to write pixels to in order: on a full disk, unlike a memory map, that is an error and no crash."""
    file = path.open("wb")
    write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file


def _read_part(folder: Path, key: str) -> Part | None:
    """A part that an interrupted run has finished; ``KEY.json`` is there only if its pixels are."""
    try:
        return Part(**json.loads((folder / f"{key}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _try_convert(source: tuple[str, Case], size: int, slices: str, folder: Path) -> Part | tuple[int, str]:
    """The part, or the case number and why it is refused."""
    try:
        return _convert(*source, size, slices, folder)
    except LitsexpError as error:
        return source[1].number, str(error)


def _convert(key: str, case: Case, size: int, slices: str, folder: Path) -> Part:
    """Read a case plane by plane, resize the slices that are wanted, and write its part."""
    opened = open_case(case)
    resize = Resize(max(opened.shape[1:]), size)
    labels, has_liver = _labels(opened, resize)
    stored = chosen_slices(has_liver, slices)
    if not stored.size:
        raise no_liver(case)
    place = {int(z): row for row, z in enumerate(stored)}
    pixels: dict[str, NDArray[Any]] = {"hu": np.empty((len(stored), size, size), np.int16), "labels": labels[stored]}
    for z, plane in opened.hu_planes(tally := Tally()):
        if z in place:
            pixels["hu"][place[z]] = resized(opened, resize, plane)
    check_liver(case, pixels["hu"][pixels["labels"] > 0])
    rows = _rows(opened, stored, pixels["labels"], size)
    content = hashlib.sha256()
    for name, dtype in PIXELS.items():
        array = np.ascontiguousarray(pixels[name], dtype).data
        content.update(array)
        with new_array(part_path(folder, key, name), dtype, pixels[name].shape) as file:
            file.write(array)
    for name, dtype in COLUMNS.items():
        content.update(np.asarray(rows[name], dtype).tobytes())
    shown = {"clipped_voxels": tally.clipped, "padding_voxels": tally.padding, "remarks": opened.remarks}
    part = Part(case.number, key, content.hexdigest(), rows, shown)
    with whole_file(folder / f"{key}.json", replace=True) as temporary:
        temporary.write_text(json.dumps(vars(part)), encoding="utf-8")
    return part


def resized(opened: OpenImage, resize: Resize, plane: NDArray[np.int16]) -> NDArray[np.int16]:
    """A plane of HU as the store has it: square, resized, upright."""
    return opened.upright(resize.hu(squared(plane, HU_MIN, opened.flips)))


def all_slices(opened: OpenImage, size: int) -> NDArray[np.int16]:
    """Every slice of a volume as a store of this size has it: (z, size, size) HU, from inferior to superior.

    LitsexpError where what is read cannot be CT.
    """
    depth, *sides = opened.shape
    resize, hu = Resize(max(sides), size), np.empty((depth, size, size), np.int16)
    for z, plane in opened.hu_planes(Tally()):
        hu[z] = resized(opened, resize, plane)
    return hu


def slices_of(hu: NDArray[Any], size: int) -> NDArray[np.int16]:
    """Every slice of an upright volume (z, row, column) in HU, of whole numbers or not, as a store of this size has it.

    LitsexpError where there are voxels that are NaN or infinite, or more above the HU of CT than metal explains.
    """
    resize, tally = Resize(max(hu.shape[1:]), size), Tally()
    stored = np.empty((len(hu), size, size), np.int16)
    for z, plane in enumerate(hu):
        stored[z] = resize.hu(squared(tally.clip(plane), HU_MIN))
    if tally.bad or tally.low_hu < tally.high_hu:  # one value everywhere is no CT, but somebody's first try
        tally.check(Path("HU array"))
    return stored


def _labels(opened: OpenCase, resize: Resize) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Every slice's labels (z, size, size), upright, and which slices show liver before the resize."""
    labels = np.zeros((opened.shape[0], resize.size, resize.size), np.uint8)
    has_liver = np.zeros(len(labels), bool)
    for z, plane in opened.label_planes():
        if plane.any():
            has_liver[z] = True
            labels[z] = opened.upright(resize.labels(squared(plane, 0, opened.flips)))
    return labels, has_liver


def _rows(opened: OpenCase, stored: NDArray[np.int64], labels: NDArray[np.uint8], size: int) -> dict[str, list[Any]]:
    """The store's index of one case."""
    scale = max(opened.shape[1:]) / size
    x_mm, y_mm, z_mm = opened.spacing_mm
    columns = [
        [opened.case.number] * len(stored),
        stored.tolist(),
        np.count_nonzero(labels, axis=(1, 2)).tolist(),
        np.count_nonzero(labels == 2, axis=(1, 2)).tolist(),
        *([mm] * len(stored) for mm in (x_mm * scale, y_mm * scale, z_mm)),
    ]
    return dict(zip(COLUMNS, columns, strict=True))
