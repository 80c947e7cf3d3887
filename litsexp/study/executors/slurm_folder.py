"""The folder ``mlruns/slurm/RUN_ID`` of a job, as the driver writes and removes it; slurm_job.py is its other side.

Its file ``name`` is there before sbatch is called: who finds the folder of a killed driver knows what to cancel. A job
alone is called litsexp-RUN_ID. The tasks of an array share a name, and each is known by its index, too; sbatch's
``--output`` knows no more than that index, so ``mlruns/slurm/.NAME/INDEX`` are links to the tasks' folders, through
which Slurm writes their logs.
"""

import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from litsexp.files import whole_file
from litsexp.spec.errors import LitsexpError
from litsexp.study.executors.elsewhere import checkout
from litsexp.study.executors.slurm_commands import Name
from litsexp.study.executors.slurm_job import JOB, LOG, SCRIPT

NAME = "name"


def job_name(run_id: str) -> str:
    """What the job of this MLflow run is called in the queue, where it is sent alone."""
    return f"litsexp-{run_id}"


def write(folder: Path, order: str, name: Name) -> None:
    """What a job needs before its script; LitsexpError where the folder cannot be written."""
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)  # a network file system may keep a removed one for a while
        (folder / JOB).write_text(order)
        with whole_file(folder / NAME, replace=True) as temporary:
            temporary.write_text(f"{name}\n")
        if name.index is not None:
            _link(folder, name).parent.mkdir(0o700, exist_ok=True)
            _link(folder, name).symlink_to(Path("..", folder.name))
    except OSError as error:
        raise unwritable(folder, error) from None


def write_script(folders: Sequence[Path]) -> Path:
    """What sbatch is given, and copies, in the first of these folders; LitsexpError where it cannot be written."""
    path = folders[0] / SCRIPT
    try:
        path.write_text(script(folders))
    except OSError as error:
        raise unwritable(folders[0], error) from None
    return path


def unwritable(folder: Path, error: OSError) -> LitsexpError:
    """What is said of a folder that cannot be written."""
    return LitsexpError(f"{folder}: cannot be written ({error.strerror}); name another with --mlruns")


def name_of(folder: Path) -> Name:
    """What the job of this folder is called in the queue."""
    with suppress(OSError, ValueError):
        return Name.read((folder / NAME).read_text())
    return Name(job_name(folder.name))  # its driver was killed before it sent anything


def remove(folder: Path) -> None:
    """The folder of a job that has ended, and its link, if it was a task of an array."""
    name = name_of(folder)
    if name.index is not None:
        with suppress(OSError):
            _link(folder, name).unlink()
        with suppress(OSError):  # the last one's
            _link(folder, name).parent.rmdir()
    shutil.rmtree(folder, ignore_errors=True)


def log_of(folder: Path, name: Name) -> str:
    """Where Slurm writes what the job prints, as sbatch's ``--output``; of an array, the one pattern for all tasks."""
    if name.index is None:
        return _literal(folder / LOG)
    return f"{_literal(_link(folder, name).parent)}/%a/{LOG}"


def script(folders: Sequence[Path]) -> str:
    """The driver's own Python runs the job in this folder; of several, task N of the array runs the N-th."""
    package = checkout()
    lines = ["#!/bin/sh"]
    if package:
        lines.append(f'export PYTHONPATH={shlex.quote(str(package))}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    python = ["exec", sys.executable, "-P", "-m", "litsexp.study.executors.slurm_job"]
    if len(folders) == 1:
        return "\n".join([*lines, shlex.join([*python, str(folders[0])]), ""])
    tasks = [f"{index}) {shlex.join([*python, str(folder)])} ;;" for index, folder in enumerate(folders)]
    return "\n".join([*lines, 'case "$SLURM_ARRAY_TASK_ID" in', *tasks, "esac", "exit 1", ""])


def _link(folder: Path, name: Name) -> Path:
    return folder.parent / f".{name.name}" / str(name.index)


def _literal(path: Path) -> str:
    """Without anything that sbatch would fill in."""
    return str(path).replace("%", "%%")
