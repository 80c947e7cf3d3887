"""One driver a study. SQLite: a file's lock beside the database. PostgreSQL: an advisory lock in the database itself.

The latter belongs to a session, so it is held on a connection of its own: when the driver is killed, or its machine is
gone, the server ends the session and the lock is free. A server that was restarted has forgotten it: ``Lock.check``
takes it again, or says who was faster. It does not hold through PgBouncer's transaction mode, where sessions are not
one's own.
"""

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from filelock import FileLock, Timeout
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from litsexp.spec.errors import LitsexpError
from litsexp.study.addresses import CONNECT_S, KEEPALIVES, database_url, hidden, is_postgres, masked
from litsexp.study.outages import Away, reason

APPLICATION = "litsexp"  # how PostgreSQL's pg_stat_activity names the holder: this, its pid, since when, its host
NAME_LENGTH = 63  # characters of it that PostgreSQL keeps
ENDS = "wait until it ends, or stop it first"
TRY = text("SELECT pg_try_advisory_lock(:key)")
KNOWN = text("SELECT 1 FROM studies WHERE study_name = :name")
HOLDER = text(
    "SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory' AND granted "
    "AND objsubid = 1 AND ((classid::bigint << 32) | objid::bigint) = :key "
    "AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class Taken(Away):
    """Another driver has the study now: nothing of it is ours to put right."""


class Lock(Protocol):
    """What a driver holds of its study."""

    def check(self) -> None:
        """Raises Taken where it is lost and another driver has it; an SQLAlchemyError where nothing answers."""


@contextmanager
def one_driver(storage_url: str, name: str, fallback: Path) -> Iterator[Lock]:
    """Hold the study's lock; LitsexpError says which driver has it. A killed driver's lock frees itself.

    A database that is neither SQLite's nor PostgreSQL's has its lock in ``fallback``.
    """
    storage_url = database_url(storage_url)
    if is_postgres(storage_url):
        lock = SessionLock(storage_url, name)
        try:
            yield lock
        finally:
            lock.close()
        return
    try:
        url = make_url(storage_url)
    except ArgumentError as error:
        raise no_database(storage_url, error) from None
    directory = Path(url.database).parent if url.drivername.startswith("sqlite") and url.database else fallback
    with _file_lock(directory, name) as held:
        yield held


class SessionLock:
    """An advisory lock of PostgreSQL, on a connection of its own."""

    def __init__(self, url: str, name: str):
        self.url, self.study, self.key = url, name, key_of(name)
        self.since = int(time.time())
        try:
            self.connection = self._taken()
        except (SQLAlchemyError, ImportError) as error:
            raise no_database(url, error) from None

    def check(self) -> None:
        """Take the lock again where its connection was lost; Taken where another driver has it by now."""
        with suppress(SQLAlchemyError):
            self.connection.execute(text("SELECT 1"))
            return
        self.close()
        self.connection = self._taken()

    def close(self) -> None:
        """Free it."""
        with suppress(SQLAlchemyError):
            self.connection.invalidate()  # closes the session, not only the transaction
            self.connection.close()

    def _taken(self) -> Connection:
        """A connection that holds the lock."""
        name = f"{APPLICATION} {os.getpid()} {self.since} {socket.gethostname()}"[:NAME_LENGTH]
        asked = {"application_name": name, "connect_timeout": CONNECT_S, **KEEPALIVES}
        engine = create_engine(self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=asked)
        connection = engine.connect()
        try:
            if (connection.dialect.server_version_info or (0,)) >= (14,):
                connection.execute(text("SET idle_session_timeout = 0"))
            if connection.execute(TRY, {"key": self.key}).scalar():
                return connection
            holder = connection.execute(HOLDER, {"key": self.key}).scalar()
        except BaseException:
            connection.close()
            raise
        connection.close()
        raise Taken(f"study {self.study}: {told(holder)}; {ENDS}")


def key_of(name: str) -> int:
    """A study's number among the database's advisory locks: 64 bits with a sign."""
    return int.from_bytes(hashlib.sha256(f"litsexp {name}".encode()).digest()[:8], "big", signed=True)


def told(holder: str | None) -> str:
    """``process 123 on HOST is running it since 10:31``, from an application's name.

    With the date where that was not today; by the holder's clock, in this machine's time zone.
    """
    words = (holder or "").split(" ", 3)
    if len(words) != 4 or words[0] != APPLICATION:
        return "another process is running it"
    when = _since(int(words[2])) if words[2].isdecimal() else ""
    return f"process {words[1]} on {words[3]} is running it{when}"


def _since(began_s: float) -> str:
    then = time.localtime(began_s)
    today = time.strftime("%Y-%m-%d", then) == time.strftime("%Y-%m-%d")
    return " since " + time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", then)


def driver_of(storage_url: str, name: str, fallback: Path) -> str | None:
    """Who runs this study: ``process 123 on HOST is running it since 10:31``; empty for nobody. Nothing is written.

    None where it cannot be told: the database does not answer, or has no such study, as it is another one than the
    driver's. Of a file's lock it is what the driver wrote beside it; that its process is gone shows on its host alone.
    """
    try:
        storage_url = database_url(storage_url)
        url = make_url(storage_url)
        if url.drivername.startswith("sqlite"):
            return _file_holder(Path(url.database or ""), name)
        if not is_postgres(storage_url):
            return _told_by_file(fallback, name)
        engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_S})
        with engine.connect() as connection:
            if not connection.execute(KNOWN, {"name": name}).scalar():
                return None
            holder = connection.execute(HOLDER, {"key": key_of(name)}).scalar()
        return told(holder) if holder else ""
    except (SQLAlchemyError, LitsexpError, ImportError):
        return None


def _file_holder(database: Path, name: str) -> str | None:
    if not database.is_file():
        return None
    engine = create_engine(f"sqlite:///file:{quote(str(database))}?mode=ro&uri=true", poolclass=NullPool)
    with engine.connect() as connection:
        known = connection.execute(KNOWN, {"name": name}).scalar()
    return _told_by_file(database.parent, name) if known else None


def _told_by_file(directory: Path, name: str) -> str:
    found = _written(directory / f"{name}.driver.json")
    if found is None:
        return ""
    who, host, pid = found
    try:
        if host == socket.gethostname():
            os.kill(pid, 0)  # asks whether it is there
    except ProcessLookupError:
        return ""
    except PermissionError:  # another user's
        pass
    return who


def _written(holder: Path) -> tuple[str, str, int] | None:
    """``process 123 on HOST is running it since 10:31``, host and process, as the driver wrote them beside its lock."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(holder.read_text())
        pid, host = int(found["pid"]), str(found["host"])
        return f"process {pid} on {host} is running it{_since(found['since'])}", host, pid
    return None


class _FileHeld:
    """A file's lock is held until its process ends."""

    def check(self) -> None:
        """Nothing to check."""


@contextmanager
def _file_lock(directory: Path, name: str) -> Iterator[Lock]:
    lock, holder = FileLock(directory / f"{name}.lock"), directory / f"{name}.driver.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}))
    except Timeout:
        who = (_written(holder) or ["another process is running it"])[0]
        raise LitsexpError(f"study {name}: {who}; {ENDS}") from None
    except OSError as error:
        lock.release()
        what = f"cannot be written ({error.strerror}); expected a folder for databases and results"
        raise LitsexpError(f"{directory}: {what}; name another with --mlruns") from None
    try:
        yield _FileHeld()
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def no_database(storage_url: str, error: Exception) -> LitsexpError:
    """One line for a database that cannot be opened."""
    if isinstance(error, RuntimeError) and "table schema" in str(error):  # Optuna's own words give two advices
        found = "found the tables of another version of Optuna; expected those of the one that is installed here"
        return LitsexpError(f"--storage {masked(storage_url)}: {found}; upgrade one: optuna storage upgrade, or pip")
    first, expected = str(error).splitlines()[0], "expected a database URL such as sqlite:///optuna.db"
    if is_postgres(storage_url):
        first, expected = reason(error, storage_url), "see that it runs there, and its name, user and password"
    said = hidden(first, storage_url)
    return LitsexpError(f"--storage {masked(storage_url)}: cannot be opened ({said}); {expected}")
