"""Work on many cases in processes of their own: what is told, and who is left, when a worker dies."""

import multiprocessing
import os
import signal
import sys
import time
from functools import partial

import pytest

from litsexp.data.parallel import map_parallel
from litsexp.spec.errors import LitsexpError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


def die(number: int, here: int, how: int) -> int:
    """A worker's first item kills it; this process, ``here``, takes its time, so that some work is still cancelled."""
    if os.getpid() != here and number == 0:
        os.kill(os.getpid(), how)
    time.sleep(0.3 if os.getpid() == here else 0.05)
    return number


def test_a_worker_that_dies_is_one_line_and_leaves_nobody() -> None:
    with pytest.raises(LitsexpError, match="one of 3 processes that work on CT volumes died"):
        map_parallel(partial(die, here=os.getpid(), how=signal.SIGKILL), range(200), 3)
    left = multiprocessing.active_children()
    for process in left:
        process.join(timeout=10)
    assert [process.exitcode for process in left] == [-signal.SIGTERM] * len(left)


def test_a_worker_that_ctrl_c_has_ended_is_an_interruption() -> None:
    """Also where this process did not hear it."""
    with pytest.raises(KeyboardInterrupt):
        map_parallel(partial(die, here=os.getpid(), how=signal.SIGINT), range(200), 2)


def test_results_come_in_the_order_of_the_items() -> None:
    told: list[tuple[int, int]] = []
    assert map_parallel(abs, [-3, 2, -1, 0], 2, lambda *call: told.append(call)) == [3, 2, 1, 0]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
