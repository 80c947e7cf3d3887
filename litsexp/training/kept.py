"""What a costly encoding makes of a store's slices: made once, kept beside the store, memory-mapped as the store is.

A file ``STORE/encoded/jpeg-90-notebook-KEY.npy`` holds every slice of the store as uint8 (slices, channels, row,
column). Its key covers the store's fingerprint, encoding, window, and the versions of Pillow and libjpeg, so that a
file never answers for pixels that would be decoded otherwise today.
"""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import features

from litsexp.data.parallel import usable_cpus
from litsexp.data.store import Store
from litsexp.data.store.build import check_room
from litsexp.data.store.convert import new_array
from litsexp.files import whole_file
from litsexp.spec.catalog import ENCODINGS, WINDOWS
from litsexp.spec.errors import LitsexpError, one_line
from litsexp.spec.keys import digest
from litsexp.spec.run import RunConfig
from litsexp.training.inputs import encoder_of

KEPT_FORMAT = 1  # raise it when the same slices would be encoded differently
_BATCH = 32  # slices encoded at once

logger = logging.getLogger(__name__)


def kept_images(store: Store, run: RunConfig) -> NDArray[np.uint8]:
    """Every slice of the store as the arm's encoding makes it, (slices, channels, size, size), read-only.

    Workers that want it at once wait for the one that makes it. Where it cannot be written, as in a store on a
    read-only disk, it is made in memory instead, by every run anew, and a warning says so.

    Raises:
        LitsexpError: no room on the disk; a file that is there but not whole; an encoding that makes something else.
    """
    path = kept_path(store, run)
    try:
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.is_file():  # another worker may have made it meanwhile
                    _write(store, run, path)
    except OSError as error:
        logger.warning(
            "%s: cannot be written (%s); %s is made in memory, by every run anew", path, error.strerror, run.encoding
        )
        made = np.concatenate(list(_encoded(store, run)))
        made.setflags(write=False)
        return made
    return _opened(path, store)


def kept_path(store: Store, run: RunConfig) -> Path:
    """Where the slices of a store lie as this arm's encoding and window make them."""
    made_of = {
        "data": store.fingerprint,
        "encoding": run.encoding,
        "registered": ENCODINGS.source(run.encoding),
        "window": [run.window, *(view if isinstance(view, str) else list(view) for view in WINDOWS[run.window].views)],
        "versions": [PIL.__version__, features.version("jpg"), features.version("libjpeg_turbo")],
    }
    name = f"{run.encoding.replace(':', '-')}-{run.window}-{digest({'format': KEPT_FORMAT, **made_of})}.npy"
    return store.directory / "encoded" / name


def _write(store: Store, run: RunConfig, path: Path) -> None:
    """All slices to one file, whole or not at all."""
    for left in path.parent.glob(f".{path.stem}-*"):  # of a killed process
        left.unlink(missing_ok=True)
    most_channels = len(WINDOWS[run.window].views)
    check_room(path.parent, store.labels.nbytes * most_channels, "encoded slices", "a smaller data.size")
    with whole_file(path) as temporary:
        parts = _encoded(store, run)
        first = next(parts)
        with new_array(temporary, "|u1", (len(store.index), *first.shape[1:])) as file:
            file.write(first.data)
            for part in parts:
                file.write(part.data)
            file.flush()
            os.fsync(file.fileno())  # renamed before it is on the disk, it could be there and empty after a crash


def _encoded(store: Store, run: RunConfig) -> Iterator[NDArray[np.uint8]]:
    """The slices in the store's order, some at a time, several batches at once."""
    encode = encoder_of(run)

    def batch(start: int) -> NDArray[np.uint8]:
        made = encode(torch.from_numpy(np.array(store.hu[start : start + _BATCH])))
        if made.dtype != torch.uint8 or made.ndim != 4:
            raise LitsexpError(
                f"run.encoding = {run.encoding}: made {made.dtype} {tuple(made.shape)}; "
                "expected of an encoding that is kept uint8 (B, C, H, W)"
            )
        return np.ascontiguousarray(made.numpy())

    with ThreadPoolExecutor(usable_cpus()) as threads:
        yield from threads.map(batch, range(0, len(store.index), _BATCH))


def _opened(path: Path, store: Store) -> NDArray[np.uint8]:
    try:
        images: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        shape = (len(store.index), store.size, store.size)
        if images.dtype != np.uint8 or images.ndim != 4 or (images.shape[0], *images.shape[2:]) != shape:
            raise ValueError(f"{images.dtype} {images.shape}, expected slices, channels and pixels of {shape}")
    except (OSError, EOFError, ValueError) as error:
        raise LitsexpError(f"{path}: not whole ({one_line(error)}); remove it, and it is made again") from None
    return images
