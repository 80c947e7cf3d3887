"""Addresses of databases and servers: which are taken, and how none ever shows a password.

A password in an address would go wherever the address goes: reports, tags, errors, a job's file. So ``Places.below``
takes it out and gives it to the process's environment, where libpq and MLflow look for it; what is shown is masked all
the same.
"""

import os
import re
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from litsexp.spec.errors import LitsexpError

POSTGRES = "postgresql+psycopg"
HTTP = ("http://", "https://")
IN_QUERY = re.compile(r"([?&](?:password|passwd|sslpassword)=)[^&\s]*", re.IGNORECASE)
IN_ADDRESS = re.compile(r"://[^:/@\s]*:(\S*)@|[?&](?:password|passwd|sslpassword)=([^&\s]*)", re.IGNORECASE)
BEFORE_HOST = re.compile(r"(://[^:/@\s]*:)\S*@")
KEEPALIVES = {  # a connection to a machine that is gone is noticed after a minute: in seconds, the last in ms
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
CONNECT_S = 5  # until a database's machine that does not answer counts as away


def masked(address: str) -> str:
    """The address with ``***`` in place of a password; also one that cannot be parsed."""
    return IN_QUERY.sub(r"\1***", BEFORE_HOST.sub(r"\1***@", address))


def hidden(text: str, address: str) -> str:
    """A message about an address, with its password nowhere in it, nor one that the environment holds."""
    found = [*_passwords(address), os.environ.get("PGPASSWORD"), os.environ.get("MLFLOW_TRACKING_PASSWORD")]
    for secret in {one for one in found if one and len(one) > 3}:  # a shorter one would blot out half the sentence
        text = text.replace(secret, "***")
    return masked(text)


def linked(address: str) -> str:
    """A server's address as a browser gets it: without name and password."""
    return re.sub(r"://[^/\s]*@", "://", address)


def is_http(address: str) -> bool:
    """Whether it is a server's, of MLflow."""
    return address.startswith(HTTP)


def is_postgres(address: str) -> bool:
    """Whether it is a PostgreSQL database's."""
    return address.startswith(("postgresql", "postgres:"))


def artifacts_are_shared(tracking_uri: str) -> bool:
    """Whether a worker on another machine reaches a run's artifacts through this address.

    A server hands them on; with a database alone, SQLite or PostgreSQL, they lie in the driver's own folder.
    """
    return not tracking_uri.startswith(("sqlite", "postgres", "mysql", "mssql"))


def database_url(address: str, option: str = "--storage") -> str:
    """The address as SQLAlchemy takes it: PostgreSQL by psycopg 3, whether it says ``postgres`` or ``postgresql``.

    Raises:
        LitsexpError: another driver than psycopg, or psycopg is not installed.
    """
    name, separator, rest = address.partition("://")
    if not separator or not is_postgres(address):
        return address
    if name in ("postgres", "postgresql"):
        address = f"{POSTGRES}://{rest}"
    elif name != POSTGRES:
        raise LitsexpError(f"{option} {masked(address)}: found {name}; expected {POSTGRES}://USER@HOST/DATABASE")
    if find_spec("psycopg") is None:
        missing = 'psycopg is not installed; install it with pip install "litsexp[postgres]"'
        raise LitsexpError(f"{option} {masked(address)}: {missing}")
    return address


def without_password(address: str, option: str) -> str:
    """The address, its password now in the environment: PGPASSWORD, or MLflow's MLFLOW_TRACKING_PASSWORD.

    Raises:
        LitsexpError: the environment holds another one already; an address that cannot be parsed.
    """
    if is_http(address):
        parts = urlsplit(address)
        if parts.password is None:
            return address
        _keep("MLFLOW_TRACKING_USERNAME", unquote(parts.username or ""), option)
        _keep("MLFLOW_TRACKING_PASSWORD", unquote(parts.password), option)
        return linked(address)
    if not is_postgres(address):
        return address
    url = _parsed(address, option)
    for secret in _of_database(url):
        _keep("PGPASSWORD", secret, option)
    kept = (url.drivername, url.username, None, url.host, url.port, url.database, url.query)  # ``set`` keeps it
    return URL.create(*kept).difference_update_query(["password"]).render_as_string(hide_password=False)


def _parsed(address: str, option: str) -> URL:
    try:
        return make_url(address)
    except (ArgumentError, ValueError):
        expected = f"expected {POSTGRES}://USER@HOST:PORT/DATABASE"
        raise LitsexpError(f"{option} {masked(address)}: cannot be read as an address; {expected}") from None


def _keep(name: str, value: str, option: str) -> None:
    if os.environ.setdefault(name, value) != value:
        other = "give one of them, or one password a server in ~/.pgpass"
        raise LitsexpError(f"{option}: {name} is set, and the address names another; {other}")


def _passwords(address: str) -> list[str]:
    """What is secret in an address, as it stands there and as it is meant."""
    written = IN_ADDRESS.findall(address)
    return [form for pair in written for one in pair if one for form in (one, unquote(one))]


def _of_database(url: URL) -> list[str]:
    asked = url.query.get("password", ())
    return [*([str(url.password)] if url.password else []), *([asked] if isinstance(asked, str) else asked)]
