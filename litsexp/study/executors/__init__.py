"""Executors: where cells run. One is a generator of (job, outcome); ``executor_of`` makes the one that is asked for."""

from litsexp.data.parallel import usable_cpus
from litsexp.spec.catalog import EXECUTORS
from litsexp.spec.tables import resolve
from litsexp.study.jobs import Executor


def executor_of(name: str | None, workers: int | None, threads: int | None) -> Executor:
    """The executor of this name; without one, inline for one worker and processes for more.

    Threads default to 1 a run whatever the number of workers: sums are split among threads, so their number shows in
    the last bits of the weights.

    Raises:
        LitsexpError: an unknown name.
    """
    workers = workers or (1 if name == "inline" else default_workers())
    executor: Executor = resolve(EXECUTORS[name or ("inline" if workers == 1 else "processes")].make)(
        workers, threads or 1
    )
    return executor


def default_workers() -> int:
    """As many runs at a time as this machine has cores, at most 8; one where a GPU does the work."""
    import torch

    return 1 if torch.cuda.is_available() else usable_cpus()
