"""A job on a machine that is not the driver's: what it needs there, and what its run says of the place."""

import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from litsexp.data.store import Store
from litsexp.spec.errors import LitsexpError
from litsexp.study.addresses import is_http
from litsexp.study.clients import check_server, patient_client
from litsexp.study.jobs import Job
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


def check_stores(job: Job) -> None:
    """LitsexpError where a store that the job needs is not here, or is not what the driver has."""
    wanted = {} if job.trained else {job.store: job.fingerprint}
    wanted |= {one.store: one.fingerprint for one in job.scorings if one.kind != "native"}
    for folder, fingerprint in wanted.items():
        _check_store(folder, fingerprint)


def _check_store(folder: Path, fingerprint: str) -> None:
    host = socket.gethostname()
    if not folder.is_dir():
        raise LitsexpError(f"{folder}: not found on host {host}; expected a folder that every node sees; see --stores")
    found = Store.open(folder).fingerprint
    if fingerprint and found != fingerprint:
        raise LitsexpError(
            f"{folder}: found the store {found} on host {host}; expected the driver's, {fingerprint}; "
            "copy it there, or put --stores on a file system that every node sees"
        )
