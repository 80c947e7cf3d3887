"""Where a cell runs: in the driver (``Inline``), or in spawned worker processes that live as long as the study.

Every cell computes with the same number of threads wherever it runs, so that its bits do not depend on how many run
beside it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Protocol

from litsexp.data.parallel import die_with_parent
from litsexp.interrupts import hear_interrupts, held_while_starting

if TYPE_CHECKING:
    from litsexp.study.cells import Job, Outcome

OnJobEpoch = Callable[["Job", int, dict[str, float]], bool]  # job, epoch, metrics -> go on?
STOP_WAIT_S = 5.0
MOST_WORKERS = 8  # by default: each holds a model, its optimiser and a copy of torch


class Executor(Protocol):
    """Takes jobs while it has room, and gives back one outcome a job."""

    def room(self) -> bool:
        """Whether another job can start now."""

    def busy(self) -> bool:
        """Whether a job is running."""

    def submit(self, job: Job) -> None:
        """Start a job; only where there is room."""

    def wait(self, timeout_s: float) -> tuple[Job, Outcome] | None:
        """The next job that ended, or None when the time is up."""

    def close(self) -> None:
        """Stop everything that still runs."""


class Inline:
    """Runs the one job it holds inside ``wait``, in the driver's own process."""

    def __init__(self, threads: int, on_epoch: OnJobEpoch):
        self.threads, self.on_epoch = threads, on_epoch
        self.job: Job | None = None

    def room(self) -> bool:
        """One job at a time."""
        return self.job is None

    def busy(self) -> bool:
        """Whether a job waits to be run."""
        return self.job is not None

    def submit(self, job: Job) -> None:
        """Hold the job for ``wait``."""
        self.job = job

    def wait(self, timeout_s: float) -> tuple[Job, Outcome] | None:
        """Run the job to its end."""
        job = self.job
        if job is None:
            return None
        from litsexp.study.cells import run_cell  # imports torch and fastai: only when there is something to train

        with _threads(self.threads):
            outcome = run_cell(job, lambda epoch, metrics: self.on_epoch(job, epoch, metrics))
        self.job = None
        return job, outcome

    def close(self) -> None:
        """Nothing runs outside ``wait``."""


@dataclass
class Worker:
    """A worker process, the driver's end of its pipe, and the job it has."""

    process: SpawnProcess
    pipe: Connection
    job: Job | None = None


class Processes:
    """Spawned workers. A worker that dies fails its job and is replaced; workers die with the driver."""

    def __init__(self, workers: int, threads: int, on_epoch: OnJobEpoch):
        self.threads, self.on_epoch = threads, on_epoch
        self.limit = workers
        self.workers: list[Worker] = []

    def room(self) -> bool:
        """Whether a worker is free or may still be started."""
        return len(self.workers) < self.limit or any(worker.job is None for worker in self.workers)

    def busy(self) -> bool:
        """Whether any worker has a job."""
        return any(worker.job is not None for worker in self.workers)

    def submit(self, job: Job) -> None:
        """Send the job to a free worker, or start one."""
        worker = next((worker for worker in self.workers if worker.job is None), None)
        if worker is None:
            worker = _start_worker(self.threads)
            self.workers.append(worker)
        worker.job = job
        with contextlib.suppress(OSError):  # a worker that has just died is noticed by wait
            worker.pipe.send(job)

    def wait(self, timeout_s: float) -> tuple[Job, Outcome] | None:
        """Answer epochs as they come; return the first job that ended."""
        ready = connection.wait([worker.pipe for worker in self.workers if worker.job], timeout_s)
        for worker in [worker for worker in self.workers if worker.pipe in ready]:
            ended = self._hear(worker)
            if ended is not None:
                return ended
        return None

    def close(self) -> None:
        """End the workers at once: all that an idle one did is written, and its own way out takes seconds."""
        for worker in self.workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join(STOP_WAIT_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self.workers = []

    def _hear(self, worker: Worker) -> tuple[Job, Outcome] | None:
        """One message of a worker: an epoch, which is answered, or an outcome; or its death."""
        job = worker.job
        assert job is not None
        try:
            kind, *content = worker.pipe.recv()
            if kind == "epoch":
                worker.pipe.send(self.on_epoch(job, *content))
                return None
            worker.job = None
            return job, content[0]
        except (EOFError, OSError):
            return job, self._bury(worker)

    def _bury(self, worker: Worker) -> Outcome:
        from litsexp.study.cells import Outcome

        worker.process.join(STOP_WAIT_S)
        self.workers.remove(worker)
        code = worker.process.exitcode
        hint = "; out of memory? try fewer --workers or a smaller run.batch_size" if code == -signal.SIGKILL else ""
        return Outcome("failed", reason=f"the worker process died with exit code {code}{hint}")


def make_executor(workers: int | None, threads: int | None, on_epoch: OnJobEpoch) -> Executor:
    """One worker: inline; more: processes. Default: a worker a core, at most 8; on a GPU one worker.

    Threads default to 1 a run whatever the number of workers: sums are split among threads, so their number shows in
    the last bits of the weights.
    """
    workers = workers or default_workers()
    return Inline(threads or 1, on_epoch) if workers == 1 else Processes(workers, threads or 1, on_epoch)


def default_workers() -> int:
    """As many runs at a time as this machine has cores, at most 8; one where a GPU does the work."""
    import torch

    return 1 if torch.cuda.is_available() else min(len(os.sched_getaffinity(0)), MOST_WORKERS)


def _start_worker(threads: int) -> Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, threads), daemon=True, name="litsexp-worker")
    with held_while_starting():
        process.start()
    theirs.close()
    return Worker(process, ours)


def _serve(pipe: Connection, threads: int) -> None:
    """A worker's life: jobs in, epochs and outcomes out, until the driver closes the pipe or dies."""
    hear_interrupts(signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    die_with_parent()
    from litsexp.study.cells import run_cell

    def on_epoch(epoch: int, metrics: dict[str, float]) -> bool:
        try:
            pipe.send(("epoch", epoch, metrics))
            return bool(pipe.recv())
        except (EOFError, OSError):  # the driver is gone: its run is not ours to end
            os._exit(1)

    with _threads(threads), contextlib.suppress(EOFError, OSError):
        while True:
            job = pipe.recv()
            pipe.send(("outcome", run_cell(job, on_epoch)))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """torch computes with ``count`` threads inside."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
