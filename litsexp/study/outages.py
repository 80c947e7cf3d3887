"""When a database or MLflow's server is away for a while: a call waits, says so once, and goes on.

What is away answers later with the same command as if nothing had been: a password that is refused, a full disk, a
server that is something else do not, so those end the study at once. All of it in one line.
"""

import errno
import functools
import logging
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FunctionType
from typing import Any, Protocol, TypeVar

import requests
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError

from litsexp.interrupts import breakable
from litsexp.spec.errors import LitsexpError
from litsexp.study.addresses import hidden, is_http, is_postgres, masked

log = logging.getLogger(__name__)
PATIENCE_S = 600.0  # that a call waits for what is away
TIDY_S = 2.0  # the same, where a study is being left: the next driver does what is left undone
PAUSES_S = (0.5, 1.0, 2.0, 5.0)  # between tries; the last one again and again
GOES_ON = "the same command goes on later"
GATEWAYS = (502, 503, 504)  # a server that is starting, or one before it that finds it gone
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
REFUSED = re.compile(  # by PostgreSQL: no waiting helps
    r"password authentication failed|no password supplied|no pg_hba\.conf entry|does not exist|permission denied"
    r"|not permitted|No space left|could not extend file|read-only",
    re.IGNORECASE,
)
LOST = re.compile(  # what a server, or a thread of MLflow's, only tells in words
    r"Connection refused|Connection reset|Connection aborted|RemoteDisconnected|Max retries exceeded|timed out"
    r"|psycopg\.OperationalError|error code 50[234]",
)

_leaving: list[bool] = []
_Class = TypeVar("_Class", bound=type)
_Result = TypeVar("_Result")


class Away(LitsexpError):
    """A database or server that a study needs does not answer, or not as it should; nothing can be written there."""


class Patience:
    """How calls to one address behave while it is away."""

    def __init__(self, option: str, address: str):
        self.address, self.where = address, f"{option} {masked(address)}"
        self.what = "MLflow" if option == "--tracking-uri" else "the database"
        self.gave_up = False  # then nothing waits again: what ends a study would wait for each of its calls

    def __call__(self, call: Callable[[], _Result], again: Callable[[], _Result] | None = None) -> _Result:
        """The call's result, however often it takes; ``again`` is called instead after the first time.

        Away: the address did not answer for ``PATIENCE_S``, or what it answered ends the study. Other errors pass.
        """
        try:
            return call()
        except LitsexpError:
            raise
        except Exception as error:
            if not self.is_away(error):
                self._end(error)
                raise
        with self._said():
            return self._until_back(again or call)

    def is_away(self, error: BaseException) -> bool:
        """Whether the error says that the address does not answer for now."""
        if not is_http(self.address) and not is_postgres(self.address):  # SQLite is a file, and never away
            return False
        causes = list(_chain(error))
        if any(isinstance(one, SQLAlchemyError | MlflowException) and REFUSED.search(str(one)) for one in causes):
            return False
        return any(map(_is_lost, causes))

    def _until_back(self, call: Callable[[], _Result]) -> _Result:
        start_s, tries = time.monotonic(), 0
        try:
            while not self.gave_up and time.monotonic() - start_s < _limit_s():
                with breakable():
                    time.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
                tries += 1
                try:
                    return call()
                except LitsexpError:
                    raise
                except Exception as error:
                    if not self.is_away(error):
                        self._end(error)
                        raise
        except KeyboardInterrupt:
            self.gave_up = True
            raise
        self.gave_up = True
        minutes = f"{(time.monotonic() - start_s) / 60:.0f} min"
        raise Away(f"{self.where}: {self.what} has not answered for {minutes}; see that it runs, and {GOES_ON}")

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Say that it is away, and in the end that it is back; of a driver and its workers only one says so."""
        mark = None if self.gave_up or _leaving else _voice(self.what)
        if mark:
            log.warning("%s: %s does not answer; waiting up to %.0f min …", self.where, self.what, PATIENCE_S / 60)
        start_s = time.monotonic()
        try:
            yield
            if mark:
                log.warning("%s: %s is back after %.0f s", self.where, self.what, time.monotonic() - start_s)
        finally:
            if mark:
                mark.unlink(missing_ok=True)

    def _end(self, error: Exception) -> None:
        """Away, in one line, where an error that is no outage is about disk or database; other errors are the caller's.

        Those are raised as they are: an error that is raised from itself has no end for who follows its causes.
        """
        for one in _chain(error):
            if isinstance(one, OSError) and one.errno in FULL:
                what = f"cannot be written ({one.strerror}); make room there, and {GOES_ON}"
                raise Away(f"{self.where}: {what}") from error
            if isinstance(one, IntegrityError):  # another process was first: no fault of the database
                return
            if isinstance(one, DBAPIError):
                raise Away(f"{self.where}: {reason(one, self.address)}; mend that, and {GOES_ON}") from error


@contextmanager
def leaving() -> Iterator[None]:
    """Inside, calls wait for ``TIDY_S`` and say nothing, and what is away is no error: somebody wants to be gone."""
    _leaving.append(True)
    try:
        with suppress(Away):
            yield
    finally:
        _leaving.pop()


class HasPatience(Protocol):
    """What ``patient_methods`` decorates."""

    patience: Patience


def patient_methods(cls: _Class) -> _Class:
    """Class decorator: its public methods wait while ``self.patience`` finds the address away, and are called again.

    Each must be such that a second call does what the first one left undone. ``__init__`` refuses at once.
    """
    for name, method in list(vars(cls).items()):
        if isinstance(method, FunctionType) and not name.startswith("_"):
            setattr(cls, name, _patient(method))
    return cls


def reason(error: BaseException, address: str) -> str:
    """The first line that says something, without passwords and without SQL."""
    while below := getattr(error, "orig", None) or error.__cause__:
        error = below
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return hidden(lines[0], address)


def _patient(method: FunctionType) -> Callable[..., Any]:
    @functools.wraps(method)
    def called(self: HasPatience, *args: Any, **options: Any) -> Any:
        return self.patience(lambda: method(self, *args, **options))

    return called


def _limit_s() -> float:
    return min(TIDY_S, PATIENCE_S) if _leaving else PATIENCE_S


def _is_lost(error: BaseException) -> bool:
    if isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.Timeout):
        return True
    if isinstance(error, requests.exceptions.HTTPError):
        return error.response is not None and error.response.status_code in GATEWAYS
    if isinstance(error, OperationalError) or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return True
    if isinstance(error, MlflowException):
        return error.get_http_status_code() in GATEWAYS or bool(LOST.search(str(error)))
    return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from, down to the driver's own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__


def _voice(what: str) -> Path | None:
    """The file that says that this process says it; None: a worker of the same driver, or the driver, does already."""
    driver = os.getpid() if multiprocessing.parent_process() is None else os.getppid()
    path = Path(tempfile.gettempdir()) / f"litsexp-{driver}-{what.split()[-1]}-away"
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > PATIENCE_S:  # of one that was killed meanwhile
            path.unlink()
    with suppress(OSError):
        path.touch(exist_ok=False)
        return path
    return None
