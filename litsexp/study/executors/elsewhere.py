"""A job on a machine that is not the driver's: what its engine refuses, what it needs there, what its run tells."""

import json
import re
import socket
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from litsexp.spec.errors import LitsexpError, one_line
from litsexp.study.addresses import artifacts_are_shared, is_http
from litsexp.study.jobs import Job, Outcome, job_from_json, job_to_json

ThereEpoch = Callable[[int, dict[str, float]], bool]  # epoch, metrics -> go on? asked where the job runs


def check_importable(job: Job) -> None:
    """LitsexpError for rows that no other machine can import."""
    if "__main__" in job.modules:
        raise LitsexpError(
            "rows were registered in a notebook or in the script itself, which jobs cannot import; "
            "put them into a module and import it"
        )


def check_tracking(uri: str, engine: str, hosts: Callable[[], Collection[str]]) -> None:
    """A server that nodes reach, or what is this host's alone where all nodes are this very host.

    Several hosts that write one SQLite file damage it; of another database, artifacts would go to a node's own folder.
    ``hosts`` tells the nodes' host names; it is asked only where they matter.
    """
    parts, todo = urlsplit(uri), "start `mlflow server` where every node reaches it; --tracking-uri http://HOST:PORT"
    server = parts.scheme in ("http", "https")
    if not server and not uri.startswith("sqlite"):
        raise LitsexpError(f"--tracking-uri: found {parts.scheme}, with --executor {engine}; {todo}")
    if server and not re.fullmatch(r"localhost|127(\.\d+){3}|::1", parts.hostname or ""):
        return
    others = {*hosts()} - {socket.gethostname(), socket.gethostname().split(".")[0], "localhost"}
    if others:
        what = f"{parts.hostname}, which is another host on every node" if server else "SQLite, for one host alone"
        raise LitsexpError(f"--tracking-uri: found {what}, and the node {min(others)}; {todo}")


def checkout() -> Path | None:
    """The folder of the checkout that this litsexp is imported from; None where it is installed."""
    folder = Path(__file__).parents[3]
    return None if folder.name == "site-packages" else folder


def order_of(job: Job, threads: int) -> str:
    """What ``carry_out`` reads: JSON."""
    order = {"litsexp": version("litsexp"), "threads": threads, "job": json.loads(job_to_json(job))}
    return json.dumps(order, indent=1)


def carry_out(read: Callable[[], str], tags: Mapping[str, str], on_epoch: ThereEpoch) -> Outcome:
    """Run the job of an ``order_of``, here; whatever fails is an outcome. ``tags`` say in its run where that is."""
    try:
        return _carry_out(json.loads(read()), tags, on_epoch)
    except LitsexpError as error:
        return Outcome("failed", reason=str(error))
    except Exception as error:  # before the run's own failures are outcomes: reading the job, reaching MLflow
        return Outcome("failed", reason=one_line(error))


def _carry_out(order: Mapping[str, Any], tags: Mapping[str, str], on_epoch: ThereEpoch) -> Outcome:
    if order["litsexp"] != version("litsexp"):
        there = f"host {socket.gethostname()}: found litsexp {version('litsexp')} at {Path(__file__).parents[2]}"
        raise LitsexpError(f"{there}; expected the driver's, {order['litsexp']}; install that there")
    job = job_from_json(json.dumps(order["job"]))

    from litsexp.study.cells import run_cell
    from litsexp.study.executors.inline import torch_threads

    introduce(job, tags)
    job = with_stores(job)
    with torch_threads(order["threads"]):
        return run_cell(job, on_epoch)


def introduce(job: Job, tags: Mapping[str, str]) -> None:
    """Say in the run where it runs and with which versions; the driver's own stood there before.

    LitsexpError: the driver has closed the run meanwhile, as one does that took over from a killed one; what
    ``check_server`` says of MLflow as it is seen from here.
    """
    from mlflow.entities import RunTag
    from mlflow.exceptions import MlflowException

    from litsexp.study.clients import check_server, patient_client
    from litsexp.study.versions import versions

    client = patient_client(job.tracking_uri)
    if is_http(job.tracking_uri):
        with suppress(MlflowException):  # it is away just now: the client waits
            check_server(job.tracking_uri)
    here = {"host": socket.gethostname(), **tags}
    if not job.trained:
        status = client.get_run(job.run_id).info.status
        if status != "RUNNING":
            raise LitsexpError(f"MLflow run {job.run_id} is {status}; expected RUNNING: its driver has given it up")
        here |= versions()
    client.log_batch(job.run_id, tags=[RunTag(name, value) for name, value in here.items()])


def with_stores(job: Job) -> Job:
    """The job with the stores as they lie on this host: the driver's folders, or what it has sent to MLflow.

    LitsexpError where one is neither here nor sent, or is not what the driver has.
    """
    from litsexp.study.supply import home

    if job.trained or job.store.is_dir():
        here = job
    else:
        here = replace(job, store=_sent(job, job.store, job.fingerprint), cache=home() / "pretrained")
    if not job.trained:
        _check_store(here.store, job.fingerprint)
    scorings = []
    for one in job.scorings:
        if one.kind != "native":  # whose store lies with the volumes
            one = one if one.store.is_dir() else replace(one, store=_sent(job, one.store, one.fingerprint))
            _check_store(one.store, one.fingerprint)
        scorings.append(one)
    return replace(here, scorings=tuple(scorings))


def _sent(job: Job, folder: Path, fingerprint: str) -> Path:
    from litsexp.study.clients import patient_client
    from litsexp.study.supply import fetch

    found = fetch(patient_client(job.tracking_uri), fingerprint) if artifacts_are_shared(job.tracking_uri) else None
    if found is None:
        todo = "expected a folder that every node sees; see --stores, or send it with --send-stores"
        raise LitsexpError(f"{folder}: not found on host {socket.gethostname()}; {todo}")
    return found


def _check_store(folder: Path, fingerprint: str) -> None:
    from litsexp.data.store import Store

    found = Store.open(folder).fingerprint
    if fingerprint and found != fingerprint:
        raise LitsexpError(
            f"{folder}: found the store {found} on host {socket.gethostname()}; expected the driver's, {fingerprint}; "
            "copy it there, or put --stores on a file system that every node sees"
        )
