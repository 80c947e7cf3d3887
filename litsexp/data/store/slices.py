"""The slice store: a cohort's axial slices as int16 HU and uint8 labels of one size, memory-mapped, one index row each.

Pixels are stored before windowing, so that one store serves every arm. A slice is (row, column) as radiologists look
at it: row 0 is anterior, column 0 is the patient's right. Slices run from inferior to superior within a case.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from litsexp.spec.errors import LitsexpError, one_line

STORE_FORMAT = 2  # raise it when the same input would be stored differently
COLUMNS: Mapping[str, str] = {  # of the index; liver_pixels counts label >= 1, tumor_pixels label 2, as stored
    "case": "<i8",
    "z": "<i8",  # slice number in RAS orientation, 0 the most inferior one of the volume
    "liver_pixels": "<i8",
    "tumor_pixels": "<i8",
    "spacing_x_mm": "<f8",  # between columns, after the resize; NaN where unknown, as are the next two
    "spacing_y_mm": "<f8",  # between rows, after the resize
    "spacing_z_mm": "<f8",
}
PIXELS: Mapping[str, str] = {"hu": "<i2", "labels": "|u1"}


@dataclass(frozen=True, eq=False)
class Store:
    """An opened store; pickles as its directory, so that other processes map the same files."""

    directory: Path
    fingerprint: str  # 16 hex digits over settings, pixels, labels and index: the same data anywhere
    index: pd.DataFrame  # a row a slice: COLUMNS; those of a case lie together, cases in ascending order
    hu: NDArray[np.int16]  # (slices, size, size), read-only memory map
    labels: NDArray[np.uint8]  # (slices, size, size), read-only memory map: 0 background, 1 liver, 2 tumor
    phantom: bool  # a synthetic cohort: wherever results are shown, they have to say so

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open what ``prepare`` wrote; LitsexpError where a file is missing, damaged or of another shape."""
        try:
            about = _read_about(directory)
            index = pd.read_parquet(directory / "slices.parquet")
            arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in PIXELS}
            _check(about, index, arrays)
            return cls(directory, str(about["fingerprint"]), index, **arrays, phantom=bool(about["phantom"]))
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            todo = "remove this folder and run again to rebuild it"
            raise LitsexpError(f"{directory}: not a whole slice store ({one_line(error)}); {todo}") from None

    def __reduce__(self) -> tuple[Callable[[Path], Store], tuple[Path]]:
        return Store.open, (self.directory,)

    @property
    def size(self) -> int:
        """Pixels a side."""
        return int(self.hu.shape[1])

    @property
    def cases(self) -> list[int]:
        """Case numbers, sorted."""
        return sorted(int(case) for case in self.index["case"].unique())

    @property
    def has_tumor(self) -> dict[int, bool]:
        """Of each case, whether any stored pixel is tumor: what ``make_splits`` takes."""
        pixels = self.index.groupby("case")["tumor_pixels"].sum()
        return {case: bool(pixels[case] > 0) for case in self.cases}

    def about(self) -> dict[str, Any]:
        """What ``store.json`` says: settings, inputs, versions, and of each case what reading it showed."""
        return _read_about(self.directory)

    def masks(self, case: int) -> NDArray[np.uint8]:
        """One case's labels (slices, size, size), read from the file as an array of its own.

        Walking over a whole store like that, unlike through the memory map, keeps no more than one case in memory.
        LitsexpError for a case that is not stored.
        """
        rows = self.rows_of([case])
        path = self.directory / "labels.npy"
        pixels = self.size**2
        start = path.stat().st_size - self.labels.nbytes + int(rows[0]) * pixels
        return np.fromfile(path, np.uint8, len(rows) * pixels, offset=start).reshape(-1, self.size, self.size)

    def rows_of(self, cases: Collection[int]) -> NDArray[np.int64]:
        """Row numbers of all slices of these cases, ascending; LitsexpError for a case that is not stored."""
        missing = sorted(set(cases) - set(self.cases))
        if missing:
            raise LitsexpError(f"{self.directory}: case {missing[0]} is not stored; expected cases of {self.cases}")
        return np.flatnonzero(self.index["case"].isin(list(cases)).to_numpy())


def _read_about(directory: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((directory / "store.json").read_text(encoding="utf-8"))
    return about


def _check(about: dict[str, Any], index: pd.DataFrame, arrays: Mapping[str, NDArray[Any]]) -> None:
    """ValueError unless the files of a store belong together."""
    if about["format"] != STORE_FORMAT:
        raise ValueError(f"format {about['format']}, expected {STORE_FORMAT}")
    if list(index.columns) != list(COLUMNS):
        raise ValueError(f"index columns {list(index.columns)}, expected {list(COLUMNS)}")
    expected = (int(about["slices"]), int(about["settings"]["size"]), int(about["settings"]["size"]))
    if len(index) != expected[0]:
        raise ValueError(f"{len(index)} index rows, expected {expected[0]}")
    for name, dtype in PIXELS.items():
        array = arrays[name]
        if array.shape != expected or array.dtype != np.dtype(dtype):
            raise ValueError(f"{name}.npy holds {array.shape} {array.dtype}, expected {expected} {np.dtype(dtype)}")
    if not index["case"].is_monotonic_increasing:
        raise ValueError("index rows of a case do not lie together")
    if len(str(about["fingerprint"])) != 16:
        raise ValueError(f"fingerprint {about['fingerprint']!r}")
