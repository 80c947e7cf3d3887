"""Ctrl-C waits for what must not be cut, and is never lost."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from litsexp.interrupts import unbroken, unbroken_methods
from litsexp.study.ledger import Ledger
from litsexp.study.tracking import Tracking


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """Ctrl-C and a polite kill both interrupt, as the command line has it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) is signal.default_int_handler
        signal.signal(number, handler)


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_waits_until_the_block_is_over(number: int) -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), unbroken():
        interrupt(number)
        steps.append("went on")
    assert steps == ["went on"]


def test_the_second_one_does_not_wait() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), unbroken():
        interrupt()
        steps.append("went on")
        interrupt()
        steps.append("not here")
    assert steps == ["went on"]


def test_blocks_inside_each_other_wait_for_the_outer_one() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), unbroken():
        with unbroken():
            interrupt()
            steps.append("inner")
        steps.append("outer")
    assert steps == ["inner", "outer"]


def test_an_interruption_is_not_lost_to_an_error() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, unbroken():
        interrupt()
        raise ValueError("in the block")
    assert isinstance(caught.value.__context__, ValueError)


def test_an_error_passes_where_nobody_interrupts() -> None:
    with pytest.raises(ValueError, match="in the block"), unbroken():
        raise ValueError("in the block")


def test_who_ignores_interruptions_still_does() -> None:
    """Workers do: Ctrl-C reaches them, too, and the driver decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with unbroken():
        interrupt()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_have_no_say() -> None:
    done = []

    def work() -> None:
        with unbroken():
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [signal.default_int_handler]


def test_every_method_of_a_class_is_whole() -> None:
    @unbroken_methods
    class Book:
        def __init__(self) -> None:
            self.lines: list[str] = []

        def write(self, line: str) -> None:
            """Two lines or none."""
            self.lines.append(line)
            interrupt()
            self.lines.append(line)

    book = Book()
    with pytest.raises(KeyboardInterrupt):
        book.write("a")
    assert book.lines == ["a", "a"]
    assert Book.write.__doc__ == "Two lines or none."


@pytest.mark.parametrize("kind", [Tracking, Ledger])
def test_no_call_of_a_database_is_cut(kind: type) -> None:
    """Their methods go to MLflow and Optuna; each is wrapped, which functools marks."""
    methods = [method for method in vars(kind).values() if callable(method)]
    assert len(methods) > 10
    assert all(hasattr(method, "__wrapped__") for method in methods)
