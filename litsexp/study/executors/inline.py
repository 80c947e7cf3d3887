"""Cells one after the other, in the driver's own process."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from litsexp.study.jobs import Executor, Job, OnEpoch, Outcome


def inline(workers: int, threads: int) -> Executor:
    """The executor ``inline``; it has one worker, whatever ``workers`` says."""

    def run(jobs: Iterable[Job], on_epoch: OnEpoch) -> Generator[tuple[Job, Outcome]]:
        for job in jobs:
            from litsexp.study.cells import run_cell  # imports torch: only when there is something to do

            with torch_threads(threads):
                outcome = run_cell(job, partial(on_epoch, job))
            yield job, outcome

    return run


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """torch computes with ``count`` threads inside."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
