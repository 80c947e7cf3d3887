"""The slice store: a cohort's axial slices as int16 HU and uint8 labels of one size, memory-mapped, one index row each.

Pixels are stored before windowing, so that one store serves every arm. A slice is (row, column) as radiologists look
at it: row 0 is anterior, column 0 is the patient's right. Slices run from inferior to superior within a case.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.typing import NDArray

from litsexp.data.ct.layout import Case, find_cases, is_phantom
from litsexp.data.ct.nifti import one_line_errors
from litsexp.data.ct.volume import count_slices
from litsexp.data.parallel import Progress
from litsexp.data.store.convert import COLUMNS, PIXELS, Part, Source, convert_all, new_array, part_path
from litsexp.spec.cohort import DataConfig
from litsexp.spec.errors import LitsexpError
from litsexp.spec.keys import digest

STORE_FORMAT = 2  # raise it when the same input would be stored differently
SAMPLE_BLOCKS, SAMPLE_BYTES = 16, 512  # of an input file, looked at to know it again

logger = logging.getLogger(__name__)


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

    def masks(self, case: int) -> NDArray[np.uint8]:
        """One case's labels, (slices, size, size), read from the file: pages of the map would stay in memory."""
        rows = self.rows_of([case])  # in one run: cases are stored one after the other
        labels, pixels = np.load(self.directory / "labels.npy", mmap_mode="r"), self.size**2
        offset = labels.offset + int(rows[0]) * pixels
        read = np.fromfile(self.directory / "labels.npy", np.uint8, len(rows) * pixels, offset=offset)
        return read.reshape(-1, self.size, self.size)


def prepare(
    root: Path,
    stores: Path,
    data: DataConfig,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Store:
    """Build the store of all cases under ``root`` in ``stores/<key>/``, or open it where it is there already.

    The key covers ``data.size``, ``data.slices`` and of every input file its relative path, size, modification time and
    some of its bytes, so that no store is used whose inputs changed. ``processes`` defaults to the usable CPUs, at most
    8; ``progress(done, total)`` is called after each case. Slices are chosen before the resize. A case that is done
    survives an interruption, and the next call goes on from there. LitsexpError for refused cases, one without liver if
    ``data.slices`` is liver, and a full disk; nothing but the lock file is left then.
    """
    cases = find_cases(root)
    settings = {"size": data.size, "slices": data.slices}
    inputs = [_input(root, case) for case in cases]
    phantom = is_phantom(cases)
    key = digest({"format": STORE_FORMAT, "settings": settings, "phantom": phantom, "inputs": inputs})
    directory = stores / key
    if directory.is_dir():
        return Store.open(directory)
    about = {"root": str(root.resolve()), "settings": settings, "phantom": phantom}
    place = digest(about)  # of the parts: found again though inputs were added or replaced
    keys = [digest({"format": STORE_FORMAT, "settings": settings, "input": one}) for one in inputs]
    try:
        stores.mkdir(parents=True, exist_ok=True)
        with FileLock(stores / f"{place}.lock"):
            if not directory.is_dir():  # another process may have built it meanwhile
                _warn_of_changes(stores, about, inputs)
                parts = _parts_folder(stores / f"{place}.parts", keys)
                try:
                    _check_disk(stores, cases, data)
                    sources = [Source(case, key) for case, key in zip(cases, keys, strict=True)]
                    converted = convert_all(sources, data, parts, processes, progress)
                    _join(converted, parts, directory, {**about, "inputs": inputs})
                except (LitsexpError, OSError):  # not an interruption: what is done stays
                    shutil.rmtree(parts, ignore_errors=True)
                    raise
                shutil.rmtree(parts, ignore_errors=True)
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
        files[path.relative_to(root).as_posix()] = [status.st_size, status.st_mtime_ns, _sample(path, status.st_size)]
    return {"case": case.number, "files": files}


def _sample(path: Path, size: int) -> str:
    """A digest of some of a file's bytes: its head, its tail (gzip's checksum) and blocks in between."""
    content = hashlib.sha256()
    with one_line_errors(path), path.open("rb") as file:
        for block in range(SAMPLE_BLOCKS):
            file.seek(max(size - SAMPLE_BYTES, 0) * block // (SAMPLE_BLOCKS - 1))
            content.update(file.read(SAMPLE_BYTES))
    return content.hexdigest()[:16]


def _warn_of_changes(stores: Path, about: dict[str, Any], inputs: list[dict[str, Any]]) -> None:
    """Say which files of an older store of this folder have changed: it is not used."""
    now = {name: state for one in inputs for name, state in one["files"].items()}
    for path in sorted(stores.glob("*/store.json")):
        try:
            old = json.loads(path.read_text(encoding="utf-8"))
            then = {name: state for one in old["inputs"] for name, state in one["files"].items()}
            same = old["root"] == about["root"] and old["settings"] == about["settings"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        if same and changed:
            logger.warning(
                "%s: %d files changed since %s was built (%s first); it is not used, a new store is built",
                *(about["root"], len(changed), path.parent, changed[0]),
            )


def _parts_folder(folder: Path, keys: Collection[str]) -> Path:
    """The folder of an interrupted run's parts, without those of files that are not as they were."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name[:16] not in keys:
            path.unlink()
    return folder


def _check_disk(stores: Path, cases: Sequence[Case], data: DataConfig) -> None:
    """All slices of all cases must fit; of liver slices half of that (about a third of LiTS' slices show liver)."""
    slices = [count_slices(case) for case in cases]
    planned = sum(slices) if data.slices == "all" else sum(slices) / 2
    needed = (planned + max(slices)) * data.size**2 * 3  # parts are deleted as they are joined: one is there twice
    free = shutil.disk_usage(stores).free
    if needed > free:
        raise LitsexpError(
            f"{stores}: {free / 1e6:.0f} MB free; expected about {needed / 1e6:.0f} MB for the slice store; "
            "free space, name another folder, or choose a smaller data.size"
        )


def _join(parts: Sequence[Part], folder: Path, directory: Path, about: dict[str, Any]) -> None:
    """Stream the parts into one array each, in case order, with index and store.json; all of it or nothing."""
    temporary = directory.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process
    try:
        temporary.mkdir()
        _write(parts, folder, temporary, about)
        temporary.rename(directory)
    except OSError:
        if not directory.is_dir():  # else the same files in another folder gave the same store meanwhile
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(parts: Sequence[Part], folder: Path, temporary: Path, about: dict[str, Any]) -> None:
    settings = about["settings"]
    index = pd.DataFrame(
        {name: np.concatenate([np.asarray(p.rows[name], dtype) for p in parts]) for name, dtype in COLUMNS.items()}
    )
    shape = (len(index), settings["size"], settings["size"])
    one_header = threading.Lock()  # np.load parses it as Python; CPython 3.11 counts the parser's depth for all threads

    def join(name: str) -> None:
        with new_array(temporary / f"{name}.npy", PIXELS[name], shape) as joined:
            for part in parts:
                path = part_path(folder, part.key, name)
                with one_header:
                    pixels = np.load(path, mmap_mode="r")
                joined.write(pixels)
                (folder / f"{part.key}.json").unlink(missing_ok=True)  # from here on it is not whole
                path.unlink()

    with ThreadPoolExecutor(len(PIXELS)) as threads:
        list(threads.map(join, PIXELS))
    index.to_parquet(temporary / "slices.parquet", index=False)
    content_of = {
        "format": STORE_FORMAT,
        "fingerprint": digest({"settings": settings, "parts": [part.content for part in parts]}),
        "slices": len(index),
        "cases": [{"case": part.case, "slices": len(part.rows["z"]), **part.facts} for part in parts],
        **about,
        "versions": {package: version(package) for package in ("numpy", "nibabel", "isal", "pandas", "pyarrow")},
    }
    (temporary / "store.json").write_text(json.dumps(content_of, indent=1) + "\n", encoding="utf-8")
