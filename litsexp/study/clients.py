"""MLflow's client as a study uses it: it refuses quickly where nothing answers, and later waits until it does.

MLflow's own tries of a call take four minutes in silence. Here every call is tried once, and ``outages.Patience`` does
the waiting.
"""

import functools
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, cast

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from litsexp.spec.errors import LitsexpError
from litsexp.study.addresses import CONNECT_S, hidden, is_http, is_postgres, masked
from litsexp.study.outages import Patience, reason

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
ASKS = "it asks for a name and a password, and those given are not right; expected them in MLFLOW_TRACKING_USERNAME and"
KNOWN = (  # words in errors over HTTP that say it all
    "Connection refused",
    "Connection aborted",
    "Connection reset",
    "Name or service not known",
    "Failed to resolve",
    "timed out",
    "No route to host",
    "certificate verify failed",
)
CLOCK_S = 600.0  # that two machines' clocks may be apart
NOT_THERE = "please ensure that the path is correct"
QUIET = ("mlflow", "alembic"), ("mlflow.store.db.utils", "urllib3.connectionpool")  # the latter: what we say ourselves


class _Once:
    """Who is inside ``one_try``, and what MLflow's setting was before."""

    lock, inside, before = threading.Lock(), 0, None


_once: Any = _Once()


class PatientClient:
    """An ``MlflowClient`` each of whose calls waits while its address is away, and is then made again.

    A run or an experiment that an answer was lost of is found again, not made twice.
    """

    def __init__(self, uri: str):
        self._client, self._patience = MlflowClient(uri), Patience("--tracking-uri", uri)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        method = getattr(self._client, name)
        if not callable(method):
            return method

        @functools.wraps(method)
        def called(*args: Any, **options: Any) -> Any:
            call, begun_ms = functools.partial(method, *args, **options), int(time.time() * 1000)
            if name == "download_artifacts":
                call = functools.partial(_downloaded, self._client, call)
            make_sure = AGAIN.get(name)
            again = functools.partial(make_sure, self._client, begun_ms, call, *args, **options) if make_sure else None
            with one_try():
                return self._patience(call, again)

        return called


def patient_client(uri: str) -> MlflowClient:
    """A client for an address that has answered before."""
    quiet()
    return cast(MlflowClient, PatientClient(uri))


def opened_client(uri: str) -> MlflowClient:
    """A client for an address that answers now.

    Raises:
        LitsexpError: nothing answers there, or something that is not MLflow of this version, or it refuses.
    """
    quiet()
    try:
        if is_http(uri):
            check_server(uri)
        elif is_postgres(uri):  # MLflow would try for minutes
            engine = create_engine(uri, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_S})
            engine.connect().close()
        with one_try():
            client = PatientClient(uri)
            client._client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, ImportError) as error:
        raise no_answer(uri, error) from None
    return cast(MlflowClient, client)


def no_answer(uri: str, error: Exception) -> LitsexpError:
    """One line for an error of the first calls."""
    said = hidden(" ".join(str(error).split()), uri)
    if is_http(uri) and re.search(r"\b401\b|[Nn]ot authenticated", said):
        return LitsexpError(f"--tracking-uri {masked(uri)}: {ASKS} MLFLOW_TRACKING_PASSWORD")
    first = reason(error, uri) if not is_http(uri) else _short(said)
    return LitsexpError(f"--tracking-uri {masked(uri)}: MLflow does not answer ({first}); check the address")


def experiment_id_of(client: MlflowClient, name: str, *asked: Any, todo: str = "rename the study file") -> str:
    """The id of the experiment of this name; ``asked`` is what else ``create_experiment`` takes, where there is none.

    Raises:
        LitsexpError: it is deleted; ``todo`` is what helps beside restoring it.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, *asked))
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
            found = client.get_experiment_by_name(name)  # another driver was faster
    if found.lifecycle_stage == "deleted":
        raise LitsexpError(f"MLflow experiment {name!r} is deleted; restore it, or {todo}")
    return str(found.experiment_id)


@contextmanager
def one_try() -> Iterator[None]:
    """MLflow tries a call over HTTP once inside, in every thread: the first one in sets it, the last out resets it."""
    with _once.lock:
        _once.inside += 1
        if _once.inside == 1:
            _once.before, os.environ[RETRIES] = os.environ.get(RETRIES), "0"
    try:
        yield
    finally:
        with _once.lock:
            _once.inside -= 1
            if not _once.inside:
                del os.environ[RETRIES]
                os.environ |= {RETRIES: _once.before} if _once.before is not None else {}


def quiet() -> None:
    """MLflow and what is below it warn of no more than a study's reader has to know."""
    warnings, silent = QUIET
    for name in warnings:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in silent:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def check_server(uri: str) -> None:
    """LitsexpError for a server of another major version, and where its clock and this machine's are far apart.

    Of a server that does not tell nothing more is asked. MLflow orders runs by the clocks of who began and ended them.
    """
    answer = http_request(get_default_host_creds(uri), "/version", "GET", max_retries=0, timeout=2 * CONNECT_S)
    found, ours = answer.text.strip(), mlflow.__version__
    told = answer.status_code == 200 and re.fullmatch(r"\d+\.\d+\S*", found)
    if told and found.partition(".")[0] != ours.partition(".")[0]:
        expected = f"expected MLflow {ours.partition('.')[0]}, as installed here ({ours})"
        raise LitsexpError(f"--tracking-uri {masked(uri)}: found a server of MLflow {found}; {expected}; upgrade one")
    _check_clock(uri, answer.headers.get("Date", ""))


def _check_clock(uri: str, date: str) -> None:
    try:
        behind_s = time.time() - parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):  # none, or one that cannot be read
        return
    if abs(behind_s) > CLOCK_S:
        found = f"found its clock {abs(behind_s) / 60:.0f} min {'behind' if behind_s > 0 else 'ahead of'} that of host"
        expected = f"expected them within {CLOCK_S / 60:.0f} min; set both by NTP"
        raise LitsexpError(f"--tracking-uri {masked(uri)}: {found} {socket.gethostname()}; {expected}")


def _short(said: str) -> str:
    """Of an error over HTTP what tells: not the call's path, nor a page of HTML."""
    code = re.search(r"error code (\d+)", said)
    if code:
        return f"it answers {code[1]}, as no MLflow does"
    return next((words for words in KNOWN if words in said), said[:200])


def _run_of(
    client: MlflowClient, begun_ms: int, call: Callable[[], Any], experiment_id: str, tags: Mapping[str, str], **_: Any
) -> Any:
    """The run that the lost call made after all, else a new one."""
    for run in client.search_runs([experiment_id], f"attributes.start_time >= {begun_ms}"):
        if tags.items() <= run.data.tags.items():
            return run
    return call()


def _experiment_of(client: MlflowClient, begun_ms: int, call: Callable[[], Any], name: str, *_: Any, **__: Any) -> Any:
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else call()


def _downloaded(client: MlflowClient, call: Callable[[], Any]) -> Any:
    """Ask again where a download fails: MLflow says "not there" of what it only cannot reach."""
    try:
        return call()
    except MlflowException as error:
        if NOT_THERE not in str(error):
            raise
    client.search_experiments(max_results=1)  # fails in words that say so, where the server is away
    return call()


def _gone(client: MlflowClient, begun_ms: int, call: Callable[[], Any], run_id: str, key: str) -> None:
    if key in client.get_run(run_id).data.tags:
        call()


AGAIN: dict[str, Callable[..., Any]] = {  # calls that made twice would do something else than once
    "create_run": _run_of,
    "create_experiment": _experiment_of,
    "delete_tag": _gone,
}
