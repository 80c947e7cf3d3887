"""What waits and what does not, and what is said of it; no server is needed."""

import errno
import logging
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DatabaseError, OperationalError

from litsexp.interrupts import unbroken
from litsexp.spec.errors import LitsexpError
from litsexp.study import outages
from litsexp.study.outages import Away, Patience, patient_methods

POSTGRES = "postgresql+psycopg://me@host/db"
FILE = "sqlite:////a.db"
SERVER = "http://host:5000"


def lost(words: str = "server closed the connection unexpectedly") -> OperationalError:
    return OperationalError("SELECT 1", {}, Exception(words))


def wrapped(outer: Exception, inner: Exception) -> Exception:
    try:
        raise outer from inner
    except Exception as error:
        return error


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "PAUSES_S", (0.01,))


def failing(times: int, error: Exception) -> tuple[Callable[[], str], list[int]]:
    """A call that fails so often, then answers; and how often it was made."""
    made: list[int] = []

    def call() -> str:
        made.append(len(made))
        if len(made) <= times:
            raise error
        return "answer"

    return call, made


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (POSTGRES, lost()),
        (POSTGRES, lost("the database system is starting up")),
        (POSTGRES, wrapped(StorageInternalError("An exception is raised during the commit."), lost())),
        (SERVER, requests.exceptions.ConnectionError("Connection refused")),
        (SERVER, MlflowException("API request to x failed with exception Max retries exceeded with url: /y")),
        (SERVER, MlflowException("API request to endpoint x failed with error code 503 != 200")),
        (SERVER, MlflowException("(psycopg.OperationalError) connection failed")),
    ],
)
def test_a_call_waits_and_says_so_once(address: str, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    call, made = failing(3, error)
    with caplog.at_level(logging.WARNING):
        assert Patience("--storage", address)(call) == "answer"
    assert len(made) == 4
    away, back = [record.message for record in caplog.records]
    assert away == f"--storage {address}: the database does not answer; waiting up to 10 min …"
    assert back == f"--storage {address}: the database is back after 0 s"


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        (POSTGRES, lost('FATAL: password authentication failed for user "me"'), "password authentication failed"),
        (POSTGRES, lost("could not extend file: No space left on device"), "No space left"),
        (FILE, OperationalError("x", {}, sqlite3.OperationalError("database or disk is full")), "disk is full"),
        (FILE, wrapped(StorageInternalError("commit"), lost("attempt to write a readonly database")), "readonly"),
        (POSTGRES, DatabaseError("x", {}, Exception("cannot execute INSERT in a read-only transaction")), "read-only"),
        (SERVER, OSError(errno.ENOSPC, "No space left on device"), "cannot be written (No space left on device)"),
    ],
)  # fmt: skip
def test_what_no_waiting_helps_ends_the_study_in_one_line(address: str, error: Exception, said: str) -> None:
    call, made = failing(1, error)
    with pytest.raises(Away) as caught:
        Patience("--storage", address)(call)
    assert len(made) == 1
    assert str(caught.value).startswith(f"--storage {address}: ")
    assert said in str(caught.value)
    assert str(caught.value).endswith("and the same command goes on later")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [ValueError("wrong"), LitsexpError("ours"), MlflowException("no such run")])
def test_other_errors_pass(error: Exception) -> None:
    call, made = failing(1, error)
    with pytest.raises(type(error), match=str(error)):
        Patience("--tracking-uri", SERVER)(call)
    assert len(made) == 1


def test_another_error_keeps_its_cause() -> None:
    error = wrapped(MlflowException("it exists already"), ValueError("twice the same name"))
    with pytest.raises(MlflowException) as caught:
        Patience("--tracking-uri", FILE)(failing(1, error)[0])
    assert isinstance(caught.value.__cause__, ValueError)  # not itself: whoever follows the causes would never end
    assert outages.reason(caught.value, FILE) == "twice the same name"


def test_after_it_gave_up_nothing_waits_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "PATIENCE_S", 0.05)
    patience = Patience("--storage", POSTGRES)
    with pytest.raises(Away, match="the database has not answered for 0 min; see that it runs, and the same command"):
        patience(failing(1000, lost())[0])
    call, made = failing(1000, lost())
    with pytest.raises(Away):
        patience(call)
    assert len(made) == 1


def test_who_leaves_a_study_does_not_wait_for_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outages, "TIDY_S", 0.05)
    begun_s = time.monotonic()
    with outages.leaving():
        Patience("--storage", POSTGRES)(failing(100_000, lost())[0])
        raise AssertionError("the call has not failed")
    assert time.monotonic() - begun_s < 5
    assert not caplog.records
    assert Patience("--storage", POSTGRES)(failing(20, lost())[0]) == "answer"  # and afterwards as ever


def test_the_second_call_may_be_another(caplog: pytest.LogCaptureFixture) -> None:
    assert Patience("--tracking-uri", SERVER)(failing(1, lost())[0], lambda: "found again") == "found again"


def test_ctrl_c_ends_the_waiting_inside_of_a_call_that_must_not_be_cut() -> None:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    patience = Patience("--storage", POSTGRES)
    timer = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt), unbroken(), unbroken():
            patience(failing(100_000, lost())[0])
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with pytest.raises(Away):  # what puts right does not wait
            patience(failing(1000, lost())[0])
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def test_public_methods_are_called_again_and_init_is_not() -> None:
    @patient_methods
    class Book:
        def __init__(self) -> None:
            self.patience, self.calls = Patience("--storage", POSTGRES), 0

        def read(self, word: str) -> str:
            """Fails once."""
            self.calls += 1
            if self.calls == 1:
                raise lost()
            return word

        def _inner(self) -> Any:
            raise lost()

    book = Book()
    assert book.read("word") == "word"
    assert Book.read.__doc__ == "Fails once."
    with pytest.raises(OperationalError):
        book._inner()


def test_of_a_drivers_workers_one_says_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(outages.multiprocessing, "parent_process", lambda: object())
    monkeypatch.setattr(outages.tempfile, "gettempdir", lambda: str(tmp_path))
    first = outages._voice("MLflow")
    assert first is not None
    assert outages._voice("MLflow") is None
    assert outages._voice("the database") is not None
    os.utime(first, (0, 0))  # of one that was killed long ago
    assert outages._voice("MLflow") == first
