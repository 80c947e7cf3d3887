"""Files and folders that are written whole or not at all.

What is written goes to a temporary name beside its place and is renamed at the end, so that nobody ever reads half of
it. After any exception, Ctrl-C included, nothing is left, folders above it included. All errors are OSErrors.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path, replace: bool = False) -> Iterator[Path]:
    """A temporary path to write to, which becomes ``path`` at the end, with mode 0644; folders above it are made.

    Raises:
        FileExistsError: something is there and ``replace`` is false; said before the block runs, and after it.
        OSError: there is no place to write in, or no room.
    """
    if not replace:
        _refuse(path)
    suffix = "".join(path.suffixes[-2:])  # .nii.gz as a whole: writers look at it
    stem = path.name.removesuffix(suffix)
    descriptor, name = tempfile.mkstemp(prefix=f".{stem}-", suffix=suffix, dir=_folder_above(path))
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp's own is private
        path.parent.mkdir(parents=True, exist_ok=True)
        if not replace:
            _refuse(path)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to write in, which becomes ``path`` at the end, with mode 0755; folders above it are made.

    An empty folder at ``path`` is filled, not replaced: it may be a mount, or the folder that somebody's shell is in.

    Raises:
        FileExistsError: something else is there; said before the block runs, and after it.
        OSError: there is no place to write in, or no room.
    """
    there = path.is_dir()
    if not there or any(path.iterdir()):
        _refuse(path)
    home = path if there else _folder_above(path)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=home))
    try:
        yield temporary
        if there:
            _fill(path, temporary)
        else:
            temporary.chmod(0o755)  # mkdtemp's own is private
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _folder_above(path: Path) -> Path:
    """The nearest folder above ``path`` that is there; NotADirectoryError where something else is in the way."""
    for parent in path.absolute().parents:
        if parent.is_dir():
            return parent
        if os.path.lexists(parent):
            break
    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent))


def _fill(folder: Path, temporary: Path) -> None:
    """Move all that is in ``temporary``, which lies in ``folder``, up into it; all or none."""
    if any(path != temporary for path in folder.iterdir()):
        _refuse(folder)
    moved: list[Path] = []
    try:
        for path in sorted(temporary.iterdir()):
            moved.append(folder / path.name)
            path.rename(folder / path.name)
    except BaseException:
        for path in moved:
            if os.path.lexists(path):
                path.rename(temporary / path.name)
        raise
