"""Building a slice store, or finding it again: identity of the inputs, room on the disk, parts joined to one store."""

import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock

from litsexp.data.ct.layout import Case, find_cases, is_phantom
from litsexp.data.ct.nifti import one_line_errors
from litsexp.data.ct.volume import count_slices
from litsexp.data.parallel import Progress
from litsexp.data.store.convert import Part, convert_all, new_array, part_path
from litsexp.data.store.slices import COLUMNS, PIXELS, STORE_FORMAT, Store
from litsexp.files import whole_folder
from litsexp.spec.cohort import StoreConfig
from litsexp.spec.errors import LitsexpError
from litsexp.spec.keys import digest

SAMPLE_BLOCKS, SAMPLE_BYTES = 16, 512  # of an input file, looked at to know it again

logger = logging.getLogger(__name__)


def prepare(
    root: Path, stores: Path, data: StoreConfig, processes: int | None = None, progress: Progress | None = None
) -> Store:
    """Build the store of all cases under ``root`` in ``stores/<key>/``, or open it where it is there already.

    The key covers ``data.size``, ``data.slices`` and of every input file its relative path, size, modification time and
    some of its bytes, so that no store is used whose inputs changed. ``processes`` defaults to the usable CPUs, at most
    8; ``progress(done, total)`` is called after each case. Slices are chosen before the resize. A case that is done
    survives an interruption, and the next call goes on from there. LitsexpError for refused cases, one without liver if
    ``data.slices`` is liver, and a full disk; nothing but the lock file is left then.
    """
    cases = find_cases(root)
    inputs = [input_of(root, case) for case in cases]
    made_of = {"settings": {"size": data.size, "slices": data.slices}, "phantom": is_phantom(cases)}
    directory = stores / digest({"format": STORE_FORMAT, **made_of, "inputs": inputs})
    if directory.is_dir():
        return Store.open(directory)
    about = {"root": str(root.resolve()), **made_of}
    place = stores / digest(about)  # of the parts: found again though inputs were added or replaced
    try:
        stores.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_suffix(".lock")):
            if not directory.is_dir():  # another process may have built it meanwhile
                _warn_of_changes(stores, about, inputs)
                _build(cases, directory, place.with_suffix(".parts"), {**about, "inputs": inputs}, processes, progress)
    except OSError as error:
        raise LitsexpError(
            f"{stores}: cannot write the slice store ({error.strerror or error}); "
            "expected a folder to write to with enough room; free space, or name another one"
        ) from None
    return Store.open(directory)


def _build(
    cases: Sequence[Case],
    directory: Path,
    parts: Path,
    about: Mapping[str, Any],
    processes: int | None,
    progress: Progress | None,
) -> None:
    """Convert every case to a part, then join them; an interruption, unlike an error, leaves those that are done."""
    settings = about["settings"]
    keys = [digest({"format": STORE_FORMAT, "settings": settings, "input": one}) for one in about["inputs"]]
    parts.mkdir(exist_ok=True)
    for path in parts.iterdir():
        if path.name[:16] not in keys:  # an interrupted run left it, and its file has changed since
            path.unlink()
    try:
        _check_disk(directory.parent, cases, **settings)
        sources = dict(zip(keys, cases, strict=True))
        converted = convert_all(sources, **settings, folder=parts, processes=processes, progress=progress)
        _join(converted, parts, directory, about)
    except (LitsexpError, OSError):
        shutil.rmtree(parts, ignore_errors=True)
        raise
    shutil.rmtree(parts, ignore_errors=True)


def input_of(root: Path, case: Case) -> dict[str, Any]:
    """What identifies a case's files without reading all of them: size, time of change, a digest of some bytes."""
    files = {}
    for path in (case.volume, case.segmentation):
        content = hashlib.sha256()
        with one_line_errors(path), path.open("rb") as file:
            status = path.stat()
            for block in range(SAMPLE_BLOCKS):  # the head, blocks in between, and the tail: gzip's checksum
                file.seek(max(status.st_size - SAMPLE_BYTES, 0) * block // (SAMPLE_BLOCKS - 1))
                content.update(file.read(SAMPLE_BYTES))
        state = [status.st_size, status.st_mtime_ns, content.hexdigest()[:16]]
        files[path.relative_to(root).as_posix()] = state
    return {"case": case.number, "files": files}


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


def _check_disk(stores: Path, cases: Sequence[Case], size: int, slices: str) -> None:
    """All slices of all cases must fit; of liver slices half of that (about a third of LiTS' slices show liver)."""
    counts = [count_slices(case) for case in cases]
    planned = sum(counts) if slices == "all" else sum(counts) / 2
    needed = (planned + max(counts)) * size**2 * 3  # parts are deleted as they are joined: one is there twice
    check_room(stores, needed, "the slice store", "a smaller data.size")


def check_room(folder: Path, needed_bytes: float, what: str, instead: str) -> None:
    """LitsexpError where the disk of ``folder`` has no room for ``what``."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise LitsexpError(
            f"{folder}: {free_bytes / 1e6:.0f} MB free; expected about {needed_bytes / 1e6:.0f} MB for {what}; "
            f"free space, name another folder, or choose {instead}"
        )


def _join(parts: Sequence[Part], folder: Path, directory: Path, about: Mapping[str, Any]) -> None:
    """Stream the parts into one array each, in case order, with index and store.json; all of it or nothing."""
    for left in directory.parent.glob(f".{directory.name}-*"):  # of a killed process
        shutil.rmtree(left, ignore_errors=True)
    try:
        with whole_folder(directory) as temporary:
            _write(parts, folder, temporary, about)
    except OSError:
        if not directory.is_dir():  # else the same files in another folder gave the same store meanwhile
            raise


def _write(parts: Sequence[Part], folder: Path, temporary: Path, about: Mapping[str, Any]) -> None:
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
