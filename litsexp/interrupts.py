"""Ctrl-C where it does no harm: not in the middle of a database call, and not while a worker process starts."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType, FunctionType
from typing import TypeVar

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_Class = TypeVar("_Class", bound=type)
_Handlers = dict[signal.Signals, Callable[[int, FrameType | None], object]]
_held: list[tuple[_Handlers, list[int]]] = []  # of ``unbroken`` blocks, the outermost first: handlers, what waits


@contextmanager
def unbroken() -> Iterator[None]:
    """Ctrl-C, or a polite kill, waits until the block is over; a second one does not. Also decorates a function.

    A database library that is cut in the middle of a query prints a traceback, and may leave half a schema.
    """
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main one
        yield
        return
    handlers: _Handlers = {number: handler for number in _SIGNALS if callable(handler := signal.getsignal(number))}
    waiting: list[int] = []
    _held.append((handlers, waiting))

    def hold(number: int, frame: FrameType | None) -> None:
        if waiting:
            handlers[signal.Signals(number)](number, frame)
        waiting.append(number)

    for number in handlers:
        signal.signal(number, hold)
    try:
        yield
    finally:
        _held.pop()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if waiting:
            handlers[signal.Signals(waiting[0])](waiting[0], None)


@contextmanager
def breakable() -> Iterator[None]:
    """Where an ``unbroken`` block only waits for something: Ctrl-C is heard inside, also one that came before."""
    if not _held or threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = _held[0][0]
    holding = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        signal.signal(number, handler)
    try:
        came = [number for _, waiting in _held for number in waiting]
        for _, waiting in _held:
            waiting.clear()
        if came:
            handlers[signal.Signals(came[0])](came[0], None)
        yield
    finally:
        for number, hold in holding.items():
            signal.signal(number, hold)


def unbroken_methods(cls: _Class) -> _Class:
    """Class decorator: Ctrl-C waits until any method that it defines is over."""
    for name, method in list(vars(cls).items()):
        if isinstance(method, FunctionType):
            setattr(cls, name, unbroken()(method))
    return cls


@contextmanager
def held_while_starting() -> Iterator[None]:
    """Ctrl-C waits until the end; a process that is started inside does not hear it before ``hear_interrupts``.

    Else one that is still importing would print its traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it lifts the mask when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hear_interrupts(handler: signal.Handlers) -> None:
    """To be called in a worker: from now on Ctrl-C does what ``handler`` says."""
    signal.signal(signal.SIGINT, handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
