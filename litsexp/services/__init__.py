"""A PostgreSQL and an MLflow server of one's own in one folder, on 127.0.0.1 and with a password: to try, and to test.

``up`` starts what does not run, ``down`` ends what the folder's pid files name. A lab's own servers do the same job:
a study only knows two addresses.
"""

import json
import secrets
import shlex
import socket
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from litsexp.files import whole_file
from litsexp.services import postgres, tracking_server
from litsexp.services.daemons import HOST, Daemon
from litsexp.spec.errors import LitsexpError

USER = "litsexp"  # in both
PORTS = "services.json"  # which were taken last time: the same addresses again
NEEDED = {"psycopg": "psycopg", "flask_wtf": "flask-wtf"}  # module -> package of the extra ``services``


@dataclass(frozen=True)
class Services:
    """Where a folder's servers are."""

    folder: Path
    postgres_port: int
    mlflow_port: int

    @property
    def tracking_uri(self) -> str:
        """For ``--tracking-uri``."""
        return f"http://{HOST}:{self.mlflow_port}"

    @property
    def storage_url(self) -> str:
        """For ``--storage``."""
        return postgres.url(self.postgres_port, USER, "litsexp")

    @property
    def password(self) -> Path:
        """The file that holds the password of both, for this user's eyes."""
        return self.folder / "password"

    @property
    def environment(self) -> Path:
        """A file for a shell's ``.`` that sets the variables which a study takes the password from."""
        return self.folder / "env"

    def variables(self) -> dict[str, str]:
        """What the environment of a study's command has to hold."""
        secret = self.password.read_text().strip()
        return {"PGPASSWORD": secret, "MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": secret}


def up(folder: Path, postgres_port: int | None = None, mlflow_port: int | None = None, fsync: bool = True) -> Services:
    """Start both servers, or those that do not run; the same folder goes on with the same data.

    Args:
        folder: made where it is missing; of databases, artifacts, logs, pid files and the password.
        postgres_port: default: that of last time, else a free one.
        mlflow_port: likewise.
        fsync: whether PostgreSQL waits for the disk; without, a machine that dies loses data. For tests.

    Raises:
        LitsexpError: a program or package is missing, a port is taken, or a server does not start; in one line. What
            this call started is ended again then, and at Ctrl-C.
    """
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise LitsexpError(
            f'services: {", ".join(missing)} is missing; install it with pip install "litsexp[services]"'
        )
    folder = folder.resolve()
    programs = postgres.programs(folder / "postgres")  # before anything is made
    with _alone(folder, make=True):
        services = _services(folder, postgres_port, mlflow_port)
        database, server = daemons(folder)
        _keep_password(services)
        begun: list[Daemon] = []
        try:
            if not database.pid():
                begun.append(database)
                postgres.start(database, programs, services.postgres_port, USER, services.password, fsync)
            if not server.pid():
                begun.append(server)
                tracking_server.start(server, services.mlflow_port, services.postgres_port, USER, services.password)
        except BaseException:
            for daemon in reversed(begun):
                daemon.stop()
            raise
        return services


def down(folder: Path) -> list[str]:
    """End the folder's servers, MLflow first; the names of those that ran. Nothing else is touched.

    Raises:
        LitsexpError: no such folder.
    """
    folder = folder.resolve()
    if not (folder / PORTS).is_file():
        raise LitsexpError(f"{folder}: found no services; expected a folder that litsexp services up has made")
    with _alone(folder):
        return [daemon.name for daemon in reversed(daemons(folder)) if daemon.stop()]


def daemons(folder: Path) -> tuple[Daemon, Daemon]:
    """The folder's two servers: PostgreSQL, MLflow."""
    return postgres.daemon(folder), tracking_server.daemon(folder)


def _services(folder: Path, postgres_port: int | None, mlflow_port: int | None) -> Services:
    """The ports: as asked, as last time, or free ones.

    LitsexpError: a running server has another port than asked; a port that is taken, or asked for both.
    """
    file = folder / PORTS
    last = json.loads(file.read_text()) if file.is_file() else {}
    found: list[int] = []
    for daemon, key, asked in zip(daemons(folder), ("postgres", "mlflow"), (postgres_port, mlflow_port), strict=True):
        runs = daemon.pid() is not None
        if runs and asked not in (None, last.get(key)):
            raise LitsexpError(f"--{key}-port {asked}: {daemon.name} runs on {last.get(key)} already; end it first")
        port = asked or last.get(key) or _free_port(found)
        if port in found:
            raise LitsexpError(f"--{key}-port {port}: found the port of PostgreSQL; expected another one")
        if not runs and not _is_free(port):
            raise LitsexpError(f"--{key}-port {port}: taken by another program; name another port with --{key}-port")
        found.append(port)
    with whole_file(file, replace=True) as part:
        part.write_text(json.dumps({"postgres": found[0], "mlflow": found[1]}))
    return Services(folder, *found)


def _keep_password(services: Services) -> None:
    """A password that nobody has to think of, and a file that a shell reads."""
    if not services.password.is_file():
        _private(services.password, secrets.token_urlsafe(24) + "\n")
    quoted = shlex.quote(str(services.password))
    exports = f'export PGPASSWORD="$(cat {quoted})" MLFLOW_TRACKING_USERNAME={USER}\n'
    _private(services.environment, exports + 'export MLFLOW_TRACKING_PASSWORD="$PGPASSWORD"\n')


def _private(path: Path, content: str) -> None:
    """Write a file that nobody else may read, at no time."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    part.touch(0o600, exist_ok=False)
    part.write_text(content)
    part.replace(path)


@contextmanager
def _alone(folder: Path, make: bool = False) -> Iterator[None]:
    lock = FileLock(folder / "services.lock")
    try:
        if make:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise LitsexpError(f"{folder}: another litsexp services is at work there; wait until it has ended") from None
    except OSError as error:
        raise LitsexpError(f"{folder}: cannot be written ({error.strerror}); expected a folder of your own") from None
    try:
        yield
    finally:
        lock.release()


def _free_port(but: Container[int]) -> int:
    with socket.create_server((HOST, 0)) as free:
        port = int(free.getsockname()[1])
        return port if port not in but else _free_port(but)


def _is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True
