"""The GPU's free memory, read by a process of its own for as long as others take it.

The driver must not open the device: a CUDA context takes memory until its process ends. The reader's own context
stands from before the first reading, so it counts as taken by somebody else.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from litsexp.data.parallel import die_with_parent
from litsexp.interrupts import hear_interrupts, held_while_starting
from litsexp.spec.errors import LitsexpError

TICK_S = 0.02  # between readings; what torch once took it keeps, so no peak falls in between
STOP_WAIT_S = 5.0

Reader = Callable[[], int]  # free bytes; picklable


def free_on_gpu() -> int:
    """Bytes that are free on the first CUDA device; RuntimeError or AssertionError where there is none."""
    import torch

    return int(torch.cuda.mem_get_info()[0])


class Watch:
    """What the reading process has seen; ``free`` bytes at the beginning."""

    def __init__(self, pipe: Connection):
        self.pipe = pipe
        self.free = self._hear()

    def least(self) -> int:
        """The fewest free bytes since the beginning; LitsexpError where they cannot be read."""
        with contextlib.suppress(OSError):  # a reader that has died is noticed when it is heard
            self.pipe.send("least?")
        return self._hear()

    def _hear(self) -> int:
        try:
            found: int | str = self.pipe.recv()
        except (EOFError, OSError):
            found = "the process that reads it died"
        if isinstance(found, str):
            raise LitsexpError(f"--workers auto: the GPU's free memory is not known: {found}; give a number instead")
        return found


@contextmanager
def watched(reader: Reader = free_on_gpu) -> Iterator[Watch]:
    """Read the free memory again and again inside; the process that does ends with the block.

    Raises:
        LitsexpError: it cannot be read.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_watch, args=(theirs, reader), daemon=True, name="litsexp-gpu-memory")
    try:
        with held_while_starting():
            process.start()
        theirs.close()
        yield Watch(ours)
    finally:
        ours.close()
        if process.pid is not None:
            process.terminate()
            process.join(STOP_WAIT_S)
            if process.is_alive():
                process.kill()
                process.join()


def _watch(pipe: Connection, reader: Reader) -> None:
    """Send the first reading, then the least whenever it is asked for, until the driver closes the pipe or dies."""
    hear_interrupts(signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    die_with_parent()
    with contextlib.suppress(EOFError, OSError):
        try:
            least = reader()
            pipe.send(least)
            while True:
                least = min(least, reader())
                if pipe.poll(TICK_S):
                    pipe.recv()
                    least = min(least, reader())
                    pipe.send(least)
        except (RuntimeError, AssertionError) as error:  # torch's
            pipe.send(next(iter(str(error).splitlines()), type(error).__name__))
