"""The slice store: a cohort's axial slices as int16 HU and uint8 labels of one size, memory-mapped, one index row each.

Pixels are stored before windowing, so that one store serves every arm. A slice is (row, column) as radiologists look
at it: row 0 is anterior, column 0 is the patient's right. Slices run from inferior to superior within a case.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from litsexp.config import DataConfig, LitsexpError, digest
from litsexp.data.ct import HU_MIN, Case, count_slices, find_cases, read_case

logger = logging.getLogger(__name__)

STORE_FORMAT = 1  # raise it when the same input would be stored differently
COLUMNS: Mapping[str, str] = {  # of the index; liver_pixels counts label >= 1, tumor_pixels label 2, as stored
    "case": "<i8",
    "z": "<i8",  # slice number in RAS orientation, 0 the most inferior one of the volume
    "liver_pixels": "<i8",
    "tumor_pixels": "<i8",
    "spacing_x_mm": "<f8",  # between columns, after the resize
    "spacing_y_mm": "<f8",  # between rows, after the resize
    "spacing_z_mm": "<f8",
}
_PIXELS: Mapping[str, str] = {"hu": "<i2", "labels": "|u1"}
_BATCH = 16  # slices resized at once
_MOST_PROCESSES = 8  # each holds a volume: up to 0.8 GB in LiTS
_T = TypeVar("_T", bound=np.generic)
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, eq=False)
class Store:
    """An opened store; pickles as its directory, so that other processes map the same files."""

    directory: Path
    fingerprint: str  # 16 hex digits over settings, pixels, labels and index: the same data anywhere
    index: pd.DataFrame  # a row a slice: COLUMNS
    hu: NDArray[np.int16]  # (slices, size, size), read-only memory map
    labels: NDArray[np.uint8]  # (slices, size, size), read-only memory map: 0 background, 1 liver, 2 tumor

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open what ``prepare`` wrote; LitsexpError where a file is missing, damaged or of another shape."""
        try:
            about = json.loads((directory / "store.json").read_text(encoding="utf-8"))
            index = pd.read_parquet(directory / "slices.parquet")
            arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in _PIXELS}
            _check(about, index, arrays)
            return cls(directory, str(about["fingerprint"]), index, arrays["hu"], arrays["labels"])
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


@dataclass(frozen=True)
class _Part:
    """One converted case: its pixels lie in ``case-N-hu.npy`` and ``case-N-labels.npy`` until they are joined."""

    case: int
    rows: dict[str, list[int] | list[float]]
    clipped_voxels: int


_Outcome = _Part | tuple[int, str]  # or the case number and why it is refused


def prepare(
    root: Path,
    stores: Path,
    data: DataConfig,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
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
                    parts = _convert_all(cases, data, temporary, processes or _usable_cpus(), progress)
                    _join(parts, temporary, settings, inputs)
                    temporary.rename(directory)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise LitsexpError(
            f"{stores}: cannot write the slice store ({error.strerror or error}); "
            "expected a folder to write to with enough room; free space, or name another one"
        ) from None
    return Store.open(directory)


def resize_weights(size_in: int, size_out: int) -> NDArray[np.float64]:
    """Weights (size_out, size_in) of a resize along one axis: whole numbers, every row with the same sum.

    Shrinking is exact area averaging: the overlap of output and input pixels, in units of 1/size_out input pixel.
    Enlarging is linear between pixel centres. Whole numbers make every sum exact in float64, so results do not
    depend on the processor or its libraries.
    """
    output, input_ = np.arange(size_out)[:, None], np.arange(size_in)[None, :]
    if size_out <= size_in:
        left = np.maximum(output * size_in, input_ * size_out)
        right = np.minimum((output + 1) * size_in, (input_ + 1) * size_out)
        return np.asarray(np.maximum(right - left, 0), np.float64)
    center = np.clip((2 * output + 1) * size_in - size_out, 0, 2 * size_out * (size_in - 1))
    return np.asarray(np.maximum(2 * size_out - np.abs(center - 2 * size_out * input_), 0), np.float64)


def resize_hu(images: NDArray[np.int16], size: int) -> NDArray[np.int16]:
    """Square slices (n, side, side) in HU to (n, size, size): weighted means, rounded half to even."""
    weights = resize_weights(images.shape[-1], size)
    return np.asarray(np.rint(_weighted(images, weights) / weights[0].sum() ** 2), np.int16)


def resize_labels(labels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Square slices (n, side, side) of labels 0, 1, 2 to (n, size, size): the label with the largest area wins.

    Ties go to the higher label, so that a tumor pixel is lost only where another label really covers more of it.
    """
    weights = resize_weights(labels.shape[-1], size)
    liver, tumor = _weighted(labels == 1, weights), _weighted(labels == 2, weights)
    background = weights[0].sum() ** 2 - liver - tumor
    rest = np.where(liver >= background, 1, 0)
    return np.where(tumor >= np.maximum(liver, background), 2, rest).astype(np.uint8)


def _weighted(images: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = weights @ images.astype(np.float64) @ weights.T
    return result


def _check(about: dict[str, Any], index: pd.DataFrame, arrays: Mapping[str, NDArray[Any]]) -> None:
    """ValueError unless the files of a store belong together."""
    if about["format"] != STORE_FORMAT:
        raise ValueError(f"format {about['format']}, expected {STORE_FORMAT}")
    if list(index.columns) != list(COLUMNS):
        raise ValueError(f"index columns {list(index.columns)}, expected {list(COLUMNS)}")
    expected = (int(about["slices"]), int(about["settings"]["size"]), int(about["settings"]["size"]))
    if len(index) != expected[0]:
        raise ValueError(f"{len(index)} index rows, expected {expected[0]}")
    for name, dtype in _PIXELS.items():
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


def _usable_cpus() -> int:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, _MOST_PROCESSES)


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


def _convert_all(
    cases: Sequence[Case],
    data: DataConfig,
    temporary: Path,
    processes: int,
    progress: Callable[[int, int], None] | None,
) -> list[_Part]:
    """Convert every case, then raise the first refusal by case number, or return the parts in case order."""
    convert = partial(_try_convert, size=data.size, slices=data.slices, temporary=temporary)
    parts: list[_Part] = []
    refused: dict[int, str] = {}
    with closing(_outcomes(cases, convert, min(processes, len(cases)))) as outcomes:
        for done, outcome in enumerate(outcomes, start=1):
            if isinstance(outcome, _Part):
                parts.append(outcome)
            else:
                refused[outcome[0]] = outcome[1]
            if progress is not None:
                progress(done, len(cases))
    if refused:
        first, *others = sorted(refused)
        also = f" ({len(others)} more refused: {', '.join(map(str, others[:10]))})" if others else ""
        raise LitsexpError(refused[first] + also)
    return sorted(parts, key=lambda part: part.case)


def _outcomes(
    cases: Sequence[Case], convert: Callable[[Case], _Outcome], processes: int
) -> Generator[_Outcome, None, None]:
    """Results in any order, inline or from spawned processes."""
    if processes <= 1:
        yield from map(convert, cases)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_die_on_interrupt)
    try:
        with _one_thread_each():
            futures = [pool.submit(convert, case) for case in cases]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise LitsexpError(
            f"a process that converts CT volumes died, perhaps for lack of memory; found {processes} processes; "
            "run with fewer"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _die_on_interrupt() -> None:
    """Ctrl-C ends a worker at once and in silence; the parent cleans up."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started here use one BLAS thread each: they are as many as the CPUs already."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _try_convert(case: Case, size: int, slices: str, temporary: Path) -> _Outcome:
    try:
        return _convert(case, size, slices, temporary)
    except LitsexpError as error:
        return case.number, str(error)


def _convert(case: Case, size: int, slices: str, temporary: Path) -> _Part:
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
    hu_path, labels_path = (_part(temporary, case.number, name) for name in _PIXELS)
    with _new(hu_path, _PIXELS["hu"], shape) as hu_file, _new(labels_path, _PIXELS["labels"], shape) as labels_file:
        for start in range(0, len(stored), _BATCH):
            batch = stored[start : start + _BATCH]
            hu_file.write(resize_hu(_pictures(volume.hu, batch, HU_MIN), size).astype(_PIXELS["hu"]).data)
            labels = resize_labels(_pictures(volume.labels, batch, 0), size)
            labels_file.write(labels.data)
            liver_pixels += np.count_nonzero(labels, axis=(1, 2)).tolist()
            tumor_pixels += np.count_nonzero(labels == 2, axis=(1, 2)).tolist()
    scale = max(volume.hu.shape[:2]) / size
    spacing_mm = (volume.spacing_mm[0] * scale, volume.spacing_mm[1] * scale, volume.spacing_mm[2])
    columns: list[list[int] | list[float]] = [
        [case.number] * len(stored),
        stored.tolist(),
        liver_pixels,
        tumor_pixels,
        *([mm] * len(stored) for mm in spacing_mm),
    ]
    return _Part(case.number, dict(zip(COLUMNS, columns, strict=True)), volume.clipped)


def _part(temporary: Path, case: int, name: str) -> Path:
    return temporary / f"case-{case}-{name}.npy"


def _new(path: Path, dtype: str, shape: tuple[int, ...]) -> BinaryIO:
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


def _join(parts: Sequence[_Part], temporary: Path, settings: dict[str, Any], inputs: list[dict[str, Any]]) -> None:
    """Stream the parts into one array each, in case order, and write the index and store.json."""
    index = pd.DataFrame(
        {name: np.concatenate([np.asarray(p.rows[name], dtype) for p in parts]) for name, dtype in COLUMNS.items()}
    )
    content = hashlib.sha256(json.dumps({"settings": settings, "slices": len(index)}, sort_keys=True).encode())
    for name, dtype in _PIXELS.items():
        shape = (len(index), settings["size"], settings["size"])
        with _new(temporary / f"{name}.npy", dtype, shape) as joined:
            for part in parts:
                path = _part(temporary, part.case, name)
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
        "settings": settings,
        "slices": len(index),
        "cases": [{"case": p.case, "slices": len(p.rows["z"]), "clipped_voxels": p.clipped_voxels} for p in parts],
        "inputs": inputs,
        "versions": {package: version(package) for package in ("numpy", "nibabel", "pandas", "pyarrow")},
    }
    (temporary / "store.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
