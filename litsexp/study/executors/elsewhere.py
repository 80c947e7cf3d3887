"""A job on a machine that is not the driver's: what it needs there, and what its run says of the place."""

import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from litsexp.data.store import Store
from litsexp.spec.errors import LitsexpError
from litsexp.study.addresses import artifacts_are_shared, is_http
from litsexp.study.clients import check_server, patient_client
from litsexp.study.jobs import Job
from litsexp.study.supply import fetch, home
from litsexp.study.versions import versions


def introduce(job: Job, tags: Mapping[str, str]) -> None:
    """Say in the run where it runs and with which versions; the driver's own stood there before.

    LitsexpError: the driver has closed the run meanwhile, as one does that took over from a killed one; what
    ``check_server`` says of MLflow as it is seen from here.
    """
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
    if job.trained or job.store.is_dir():
        here = job
    else:
        here = replace(job, store=_sent(job, job.store, job.fingerprint), cache=home().parent / "pretrained")
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
    found = fetch(patient_client(job.tracking_uri), fingerprint) if artifacts_are_shared(job.tracking_uri) else None
    if found is None:
        todo = "expected a folder that every node sees; see --stores, or send it with --send-stores"
        raise LitsexpError(f"{folder}: not found on host {socket.gethostname()}; {todo}")
    return found


def _check_store(folder: Path, fingerprint: str) -> None:
    found = Store.open(folder).fingerprint
    if fingerprint and found != fingerprint:
        raise LitsexpError(
            f"{folder}: found the store {found} on host {socket.gethostname()}; expected the driver's, {fingerprint}; "
            "copy it there, or put --stores on a file system that every node sees"
        )
