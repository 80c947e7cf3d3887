"""The slice store: a cohort's axial slices as int16 HU and uint8 labels of one size, memory-mapped, one index row each.

Pixels are stored before windowing, so that one store serves every arm. A slice is (row, column) as radiologists look
at it: row 0 is anterior, column 0 is the patient's right. Slices run from inferior to superior within a case.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.typing import NDArray

from litsexp.config import DataConfig, LitsexpError, digest
from litsexp.data.cohort import PHANTOM_FILE
from litsexp.data.convert import COLUMNS, PIXELS, Part, convert_all, new_array, part_path
from litsexp.data.ct import Case, count_slices, find_cases
from litsexp.data.parallel import Progress

STORE_FORMAT = 2  # raise it when the same input would be stored differently


@dataclass(frozen=True, eq=False)
class Store:
    """An opened store; pickles as its directory, so that other processes map the same files."""

    directory: Path
    fingerprint: str  # 16 hex digits over settings, pixels, labels and index: the same data anywhere
    index: pd.DataFrame  # a row a slice: COLUMNS
    hu: NDArray[np.int16]  # (slices, size, size), read-only memory map
    labels: NDArray[np.uint8]  # (slices, size, size), read-only memory map: 0 background, 1 liver, 2 tumor
    phantom: bool  # a synthetic cohort: wherever results are shown, they have to say so

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open what ``prepare`` wrote; LitsexpError where a file is missing, damaged or of another shape."""
        try:
            about = json.loads((directory / "store.json").read_text(encoding="utf-8"))
            index = pd.read_parquet(directory / "slices.parquet")
            arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in PIXELS}
            _check(about, index, arrays)
            return cls(
                directory, str(about["fingerprint"]), index, arrays["hu"], arrays["labels"], bool(about["phantom"])
            )
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            found = " ".join(f"{type(error).__name__}: {error}".split())
            raise LitsexpError(
                f"{directory}: not a whole slice store ({found}); remove this folder and run again to rebuild it"
            ) from None

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

    def rows_of(self, cases: Collection[int]) -> NDArray[np.int64]:
        """Row numbers of all slices of these cases, ascending; LitsexpError for a case that is not stored."""
        missing = sorted(set(cases) - set(self.cases))
        if missing:
            raise LitsexpError(f"{self.directory}: case {missing[0]} is not stored; expected cases of {self.cases}")
        rows: NDArray[np.int64] = np.flatnonzero(self.index["case"].isin(list(cases)).to_numpy())
        return rows


def prepare(
    root: Path,
    stores: Path,
    data: DataConfig,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Store:
    """Build the store of all cases under ``root`` in ``stores/<key>/``, or open it where it is there already.

    The key covers ``data.size``, ``data.slices`` and every input file's relative path, size and modification time.
    ``processes`` defaults to the usable CPUs, at most 8; ``progress(done, total)`` is called after each case. Slices
    are chosen before the resize. LitsexpError for refused cases, one without liver if ``data.slices`` is liver, and
    a full disk; nothing but the lock file is left then.
    """
    cases = find_cases(root)
    settings = {"size": data.size, "slices": data.slices}
    inputs = [_input(root, case) for case in cases]
    key = digest({"format": STORE_FORMAT, "settings": settings, "inputs": inputs})
    directory, temporary = stores / key, stores / f"{key}.tmp"
    if directory.is_dir():
        return Store.open(directory)
    try:
        stores.mkdir(parents=True, exist_ok=True)
        with FileLock(stores / f"{key}.lock"):
            if not directory.is_dir():  # another process may have built it meanwhile
                shutil.rmtree(temporary, ignore_errors=True)  # of a killed process: the lock is ours
                try:
                    temporary.mkdir()
                    _check_disk(stores, cases, data)
                    parts = convert_all(cases, data, temporary, processes, progress)
                    _join(parts, temporary, settings, inputs, (root / PHANTOM_FILE).is_file())
                    temporary.rename(directory)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise LitsexpError(
            f"{stores}: cannot write the slice store ({error.strerror or error}); "
            "expected a folder to write to with enough room; free space, or name another one"
        ) from None
    return Store.open(directory)


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
    if len(str(about["fingerprint"])) != 16:
        raise ValueError(f"fingerprint {about['fingerprint']!r}")


def _input(root: Path, case: Case) -> dict[str, Any]:
    """What identifies a case's files without reading them."""
    files = {}
    for path in (case.volume, case.segmentation):
        try:
            status = path.stat()
        except OSError as error:
            raise LitsexpError(f"{path}: cannot be read ({error.strerror}); download or copy the file again") from None
        files[path.relative_to(root).as_posix()] = [status.st_size, status.st_mtime_ns]
    return {"case": case.number, "files": files}


def _check_disk(stores: Path, cases: Sequence[Case], data: DataConfig) -> None:
    """All slices of all cases must fit; of liver slices half of that (about a third of LiTS' slices show liver)."""
    slices = [_slices_or_none(case) for case in cases]
    planned = sum(slices) if data.slices == "all" else sum(slices) / 2
    needed = (planned + max(slices)) * data.size**2 * 3  # parts are deleted as they are joined: one is there twice
    free = shutil.disk_usage(stores).free
    if needed > free:
        raise LitsexpError(
            f"{stores}: {free / 1e6:.0f} MB free; expected about {needed / 1e6:.0f} MB for the slice store; "
            "free space, name another folder, or choose a smaller data.size"
        )


def _slices_or_none(case: Case) -> int:
    try:
        return count_slices(case)
    except LitsexpError:
        return 0  # its conversion will say what is wrong, together with the other cases


def _join(
    parts: Sequence[Part], temporary: Path, settings: dict[str, Any], inputs: list[dict[str, Any]], phantom: bool
) -> None:
    """Stream the parts into one array each, in case order, and write the index and store.json."""
    index = pd.DataFrame(
        {name: np.concatenate([np.asarray(p.rows[name], dtype) for p in parts]) for name, dtype in COLUMNS.items()}
    )
    content = hashlib.sha256(json.dumps({"settings": settings, "slices": len(index)}, sort_keys=True).encode())
    for name, dtype in PIXELS.items():
        shape = (len(index), settings["size"], settings["size"])
        with new_array(temporary / f"{name}.npy", dtype, shape) as joined:
            for part in parts:
                path = part_path(temporary, part.case, name)
                pixels = np.load(path, mmap_mode="r")
                joined.write(pixels)
                content.update(pixels)
                path.unlink()
    for name, dtype in COLUMNS.items():
        content.update(index[name].to_numpy(np.dtype(dtype)).tobytes())
    index.to_parquet(temporary / "slices.parquet", index=False)
    about = {
        "format": STORE_FORMAT,
        "fingerprint": content.hexdigest()[:16],
        "phantom": phantom,
        "settings": settings,
        "slices": len(index),
        "cases": [{"case": p.case, "slices": len(p.rows["z"]), "clipped_voxels": p.clipped_voxels} for p in parts],
        "inputs": inputs,
        "versions": {package: version(package) for package in ("numpy", "nibabel", "pandas", "pyarrow")},
    }
    (temporary / "store.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
