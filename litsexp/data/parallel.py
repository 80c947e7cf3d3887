"""Work on many cases at once, in processes of their own: what check, prepare, export and the phantom share."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import TypeVar

from litsexp.interrupts import hear_interrupts, held_while_starting
from litsexp.spec.errors import LitsexpError

Progress = Callable[[int, int], None]  # items done, items in all
_MOST_PROCESSES = 8  # each may hold a volume: up to 0.8 GB in LiTS
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_parallel(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    processes: int | None = None,
    progress: Progress | None = None,
) -> list[_Result]:
    """``function`` of every item, in the items' order; ``progress`` is called in this process after each.

    ``processes`` defaults to the usable CPUs, at most 8, and never exceeds the items. This process is one of them and
    works from the end of the items; the others are spawned and work from their beginning: ``function`` has to be
    importable then, and a script needs ``if __name__ == "__main__"``. Ctrl-C, and an exception of ``function``, end
    the workers and are raised here.

    Raises:
        LitsexpError: a worker died, which is mostly for lack of memory.
    """
    count = min(processes or usable_cpus(), len(items))
    results: dict[int, _Result] = {}

    def done(number: int, result: _Result) -> None:
        results[number] = result
        if progress is not None:
            progress(len(results), len(items))

    if count <= 1:
        for number, item in enumerate(items):
            done(number, function(item))
        return list(results.values())
    pool = ProcessPoolExecutor(count - 1, multiprocessing.get_context("spawn"), _start_worker)
    others = {process.pid for process in multiprocessing.active_children()}
    workers: list[BaseProcess] = []
    try:
        with _one_thread_each(), held_while_starting():
            futures = {pool.submit(function, item): number for number, item in enumerate(items)}
            workers += [process for process in multiprocessing.active_children() if process.pid not in others]
        for future, number in reversed(list(futures.items())):
            if not future.cancel():  # a worker has it: all before it are done, or being done
                break
            del futures[future]
            done(number, function(items[number]))
        for future in as_completed(futures):
            done(futures[future], future.result())
    except BrokenProcessPool:
        interrupted = any(worker.exitcode == -signal.SIGINT for worker in workers)
        for worker in workers:  # Python 3.11 leaves them alive where a pool breaks with cancelled work
            worker.terminate()
        if interrupted:  # and not heard here: what is raised in a destructor goes no further
            raise KeyboardInterrupt from None
        raise LitsexpError(
            f"one of {count} processes that work on CT volumes died, perhaps for lack of memory; run with fewer"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return [results[number] for number in range(len(items))]


def usable_cpus() -> int:
    """CPUs that this process may use, at most 8."""
    return min(all_usable_cpus(), _MOST_PROCESSES)


def all_usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def die_with_parent() -> None:
    """To be called in a worker: a killed parent cannot stop it, so a thread watches the parent, and ends the worker."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _start_worker() -> None:
    """Ctrl-C ends a worker at once and in silence; the parent cleans up."""
    hear_interrupts(signal.SIG_DFL)
    die_with_parent()


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
