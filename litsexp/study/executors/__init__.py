"""Executors: where cells run. One is a generator of (job, outcome); ``executor_of`` makes the one that is asked for."""

from collections.abc import Sequence
from typing import Literal

from litsexp.data.parallel import usable_cpus
from litsexp.spec.catalog import EXECUTORS
from litsexp.spec.errors import LitsexpError
from litsexp.spec.tables import resolve
from litsexp.study.jobs import Executor
from litsexp.study.places import Places

AUTO: Literal["auto"] = "auto"  # as many runs at a time as a GPU's memory holds


def executor_of(
    name: str | None,
    workers: int | None,
    threads: int | None,
    options: Sequence[str] = (),
    places: Places | None = None,
) -> Executor:
    """The executor of this name; without one, inline for one worker and processes for more.

    Threads default to 1 a run whatever the number of workers: sums are split among threads, so their number shows in
    the last bits of the weights. ``options``, ``KEY=VALUE`` or ``KEY``, are handed to an engine of other machines;
    ``places`` are the study's, where it is a study that runs.

    Raises:
        LitsexpError: an unknown name; options for an engine that has none, and what the engine says of its own.
    """
    workers = workers or runs_at_a_time(name, workers)
    name = name or ("inline" if workers == 1 else "processes")
    row = EXECUTORS[name]
    if not row.elsewhere:
        if options:
            takers = ", ".join(other for other, its in EXECUTORS.items() if its.elsewhere)
            raise LitsexpError(f"--executor-option {options[0]}: {name} has none; expected --executor {takers}")
        own: Executor = resolve(row.make)(workers, threads or 1)
        return own
    if places is None:
        raise LitsexpError(f"executor {name}: a rehearsal runs on this machine alone; expected inline or processes")
    executor: Executor = resolve(row.make)(workers, threads or 1, options, places)
    return executor


def runs_at_a_time(name: str | None, workers: int | None) -> int:
    """How many run beside each other, or wait in a cluster's queue."""
    if name == "inline":
        return 1
    return workers or (name and EXECUTORS[name].workers) or default_workers()


def workers_of(name: str | None, asked: int | str | None) -> tuple[int | None, bool]:
    """The number of workers that was asked for, None for the default; and whether it has to be measured on a GPU.

    ``auto`` is the default where torch sees no GPU, and with the executor ``inline``.

    Raises:
        LitsexpError: neither a number from 1 on nor ``auto``; ``auto`` for an engine that places runs itself.
    """
    if asked is None:
        return None, False
    if asked != AUTO:
        if not (str(asked).isdecimal() and int(asked) > 0):
            raise LitsexpError(f"--workers: found {asked!r}; expected a number from 1 on, or {AUTO}")
        return int(asked), False
    if runs_elsewhere(name):
        raise LitsexpError(
            f"--workers {AUTO}: {name} places runs itself; expected a number; let runs share a GPU with "
            "--executor-option num_gpus=0.5 (Ray) or gres=shard:1 (Slurm)"
        )
    import torch

    return None, name != "inline" and torch.cuda.is_available()


def runs_elsewhere(name: str | None) -> bool:
    """Whether cells run on other machines, whose pace this one cannot tell."""
    return name is not None and EXECUTORS[name].elsewhere


def default_workers() -> int:
    """As many runs at a time as this machine has cores, at most 8; one where a GPU does the work."""
    import torch

    return 1 if torch.cuda.is_available() else usable_cpus()
