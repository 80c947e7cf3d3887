"""Cells in spawned worker processes, which live as long as the study and die with the driver.

Every cell computes with the same number of threads wherever it runs, so that its bits do not depend on how many run
beside it.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from litsexp.data.parallel import die_with_parent
from litsexp.interrupts import hear_interrupts, held_while_starting
from litsexp.spec.errors import LitsexpError
from litsexp.study.executors.inline import torch_threads
from litsexp.study.jobs import Executor, Job, OnEpoch, Outcome

STOP_WAIT_S = 5.0
TICK_S = 0.5  # between looks at the workers: Ctrl-C is heard in between


def processes(workers: int, threads: int) -> Executor:
    """The executor ``processes``: so many workers at a time; one that dies fails its job and is replaced."""

    def run(jobs: Iterable[Job], on_epoch: OnEpoch) -> Generator[tuple[Job, Outcome]]:
        crew, queue = Crew(threads), iter(jobs)
        try:
            while True:
                while crew.jobs() < workers and (job := next(queue, None)) is not None:
                    crew.give(job)
                if not crew.jobs():
                    return
                yield from crew.hear(on_epoch)
        finally:
            crew.end()

    return run


@dataclass
class Worker:
    """A worker process, the driver's end of its pipe, and the job it has."""

    process: SpawnProcess
    pipe: Connection
    job: Job | None = None


class Crew:
    """The workers."""

    def __init__(self, threads: int):
        self.threads = threads
        self.workers: list[Worker] = []

    def jobs(self) -> int:
        """How many workers have a job."""
        return sum(worker.job is not None for worker in self.workers)

    def give(self, job: Job) -> None:
        """Send the job to a free worker, or start one."""
        worker = next((worker for worker in self.workers if worker.job is None), None)
        if worker is None:
            _check_importable(job)
            worker = _start_worker(self.threads)
            self.workers.append(worker)
        worker.job = job
        with contextlib.suppress(OSError):  # a worker that has just died is noticed when it is heard
            worker.pipe.send(job)

    def hear(self, on_epoch: OnEpoch) -> Iterator[tuple[Job, Outcome]]:
        """Answer epochs as they come; give back the jobs that ended."""
        ready = connection.wait([worker.pipe for worker in self.workers if worker.job], TICK_S)
        for worker in [worker for worker in self.workers if worker.pipe in ready]:
            job = worker.job
            assert job is not None
            try:
                kind, *content = worker.pipe.recv()
            except (EOFError, OSError):
                yield job, self._bury(worker)
                continue
            if kind == "epoch":
                go_on = on_epoch(job, *content)  # what fails in there is the driver's, not the worker's
                with contextlib.suppress(OSError):
                    worker.pipe.send(go_on)
            else:
                worker.job = None
                yield job, content[0]

    def end(self) -> None:
        """End the workers at once: all that an idle one did is written, and its own way out takes seconds."""
        for worker in self.workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self.workers:
            _ended(worker.process)
        self.workers = []

    def _bury(self, worker: Worker) -> Outcome:
        """A worker that is heard no more is ended where it still lives: its job may be given to another one."""
        by_itself = _ended(worker.process)
        self.workers.remove(worker)
        code = worker.process.exitcode
        hint = "; out of memory? try fewer --workers or a smaller run.batch_size" if code == -signal.SIGKILL else ""
        if not by_itself:
            return Outcome("failed", reason="the worker process was silent, and was ended", died=True)
        return Outcome("failed", reason=f"the worker process died with exit code {code}{hint}", died=True)


def _ended(process: SpawnProcess) -> bool:
    """Wait until a process has ended, which is forced after a while; whether it ended by itself."""
    process.join(STOP_WAIT_S)
    if not process.is_alive():
        return True
    process.kill()
    process.join()
    return False


def _check_importable(job: Job) -> None:
    """A worker process knows the rows of modules that it can import; of a notebook's cells it knows nothing."""
    if "__main__" in job.modules and not hasattr(sys.modules["__main__"], "__file__"):
        raise LitsexpError(
            "rows were registered in a notebook, which worker processes cannot import; "
            "put them into a module and import it, or run with workers=1"
        )


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

    with torch_threads(threads), contextlib.suppress(EOFError, OSError):
        while True:
            job = pipe.recv()
            pipe.send(("outcome", run_cell(job, on_epoch)))
