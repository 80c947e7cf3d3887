"""PostgreSQL from the machine's own packages, in a folder: made once, then started again with the same data."""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litsexp.services.daemons import HOST, Daemon
from litsexp.spec.errors import LitsexpError

PLACES = (  # Debian's, Red Hat's, Homebrew's: not on PATH
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)
INSTALL = "install it: apt-get install postgresql, dnf install postgresql-server, or brew install postgresql"
UNPRIVILEGED = ("postgres", "nobody")  # as whom it runs where we are root, which it refuses
DATABASES = ("litsexp", "mlflow")
MAINTENANCE = "postgres"  # the database that is always there
CONNECT_S = 5


@dataclass(frozen=True)
class Programs:
    """PostgreSQL's programs, and as whom they run."""

    bin: Path
    version: int
    user: pwd.struct_passwd | None  # None: as we do

    def command(self, program: str, *words: str) -> list[str]:
        """Words of a command, without a shell."""
        return [*self.as_user(), str(self.bin / program), *words]

    def as_user(self) -> list[str]:
        """What goes before a command that is to run as that user."""
        if self.user is None:
            return []
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise LitsexpError(
                "services: found root, as whom PostgreSQL does not run, and no setpriv; run it as a user"
            )
        return [setpriv, f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups"]


def daemon(folder: Path) -> Daemon:
    """The server of this folder."""
    data = str(folder / "postgres" / "data")
    return Daemon("PostgreSQL", folder, "postgres", data, "postgres: ", signal.SIGINT, whole=False)


def url(port: int, user: str, database: str) -> str:
    """Its address, without the password."""
    return f"postgresql+psycopg://{user}@{HOST}:{port}/{database}"


def programs(home: Path) -> Programs:
    """The newest that this machine has, or those that wrote ``home``.

    Raises:
        LitsexpError: there are none, or none of the version that wrote ``home``.
    """
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += [folder for place in PLACES for folder in Path("/").glob(place.lstrip("/"))]
    versions = {_version(folder): folder for folder in reversed(folders) if (folder / "postgres").is_file()}
    if not versions:
        raise LitsexpError(f"services: PostgreSQL's initdb and postgres are not on this machine; {INSTALL}")
    wanted = max(versions)
    with suppress(OSError, ValueError):
        wanted = int((home / "data" / "PG_VERSION").read_text())
    if wanted not in versions:
        there = ", ".join(map(str, sorted(versions)))
        raise LitsexpError(f"{home}: its data are PostgreSQL {wanted}'s; found {there}; install {wanted}, or dump them")
    return Programs(versions[wanted], wanted, _unprivileged())


def start(daemon: Daemon, programs: Programs, port: int, user: str, password: Path, fsync: bool) -> None:
    """Start it, its databases made where they are missing, and wait until it answers."""
    data = daemon.folder / "postgres" / "data"
    if not data.is_dir():
        _make(programs, data, user, password, () if fsync else ("--no-sync",))
    settings = {
        "listen_addresses": HOST,
        "port": port,
        "unix_socket_directories": "",
        "fsync": "on" if fsync else "off",
    }
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    daemon.start(programs.command("postgres", "-D", str(data), *words), environment)
    daemon.wait_until(lambda: _answers(port, user, password))
    _make_databases(port, user, password)


def _make(programs: Programs, data: Path, user: str, password: Path, more: Sequence[str]) -> None:
    """A new cluster, renamed when it is whole: what was cut before is made again."""
    home = data.parent
    home.mkdir(mode=0o700, exist_ok=True)
    if programs.user is not None:
        os.chown(home, programs.user.pw_uid, programs.user.pw_gid)
        home.parent.chmod(home.parent.stat().st_mode | 0o011)
        reach = [*programs.as_user(), "/usr/bin/env", "test", "-w", str(home)]
        if subprocess.run(reach, check=False).returncode:  # noqa: S603  # no shell; our own words
            who = f"user {programs.user.pw_name}, as whom PostgreSQL runs where you are root, cannot enter it"
            raise LitsexpError(f"{home.parent}: {who}; choose a folder below one that it may enter, as /var/tmp")
    part, secret = data.with_name("data.part"), home / "password.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        secret.touch(0o600)
        secret.write_text(password.read_text())
        if programs.user is not None:
            os.chown(secret, programs.user.pw_uid, programs.user.pw_gid)
        words = ("-D", str(part), "-U", user, f"--pwfile={secret}", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C")
        asked = programs.command("initdb", *words, *more)
        made = subprocess.run(asked, capture_output=True, text=True, check=False, cwd="/")  # noqa: S603  # no shell; our own words
    finally:
        secret.unlink(missing_ok=True)
    if made.returncode:
        said = (made.stderr or made.stdout).strip().splitlines() or ["it says nothing"]
        raise LitsexpError(f"{data}: initdb cannot make it ({said[-1].strip()}); see that the disk has room")
    part.rename(data)


def _answers(port: int, user: str, password: Path) -> bool:
    import psycopg

    with suppress(psycopg.OperationalError):
        _connected(port, user, password).close()
        return True
    return False


def _connected(port: int, user: str, password: Path) -> Any:  # a psycopg.Connection: an extra, not always there
    import psycopg

    secret = password.read_text().strip()
    place = {"host": HOST, "port": port, "user": user, "dbname": MAINTENANCE, "connect_timeout": CONNECT_S}
    return psycopg.connect(password=secret, autocommit=True, **place)


def _make_databases(port: int, user: str, password: Path) -> None:
    from psycopg import sql

    with _connected(port, user, password) as connection:
        there = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        for name in DATABASES:
            if name not in there:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def _version(folder: Path) -> int:
    """The major version of the programs in a folder; 0 where they do not tell."""
    command: Sequence[str] = [str(folder / "postgres"), "--version"]
    with suppress(OSError, ValueError, IndexError):
        told = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603  # no shell; our own words
        return int(told.split()[2].partition(".")[0])
    return 0


def _unprivileged() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise LitsexpError("services: found root, as whom PostgreSQL does not run, and no user postgres or nobody")
