"""Slice stores for workers that do not see the driver's: sent once to MLflow's artifacts, fetched once a node.

A store has a run of its own in the experiment ``litsexp-stores``, found by its fingerprint; only a FINISHED one is
whole. On a node it lies in ``$LITSEXP_STORES``, by default ``~/.cache/litsexp/stores``, for all workers there.
"""

import hashlib
import os
import shutil
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from litsexp.data.cohorts import Bar
from litsexp.data.store import Store
from litsexp.files import whole_folder
from litsexp.spec.catalog import EXECUTORS
from litsexp.spec.errors import LitsexpError
from litsexp.study.addresses import artifacts_are_shared, masked
from litsexp.study.clients import experiment_id_of
from litsexp.study.executors import runs_elsewhere

EXPERIMENT, FINGERPRINT, FILE = "litsexp-stores", "store", "sha256."
FILES = ("store.json", "slices.parquet", "labels.npy", "hu.npy")
HOME = "LITSEXP_STORES"
BLOCK_BYTES = 1 << 20


def check_sending(executor: str | None, tracking_uri: str, native: bool) -> None:
    """LitsexpError where nobody would fetch a store, or not from there; whole volumes are not sent."""
    found = ""
    if not runs_elsewhere(executor):
        takers = ", ".join(name for name, row in EXECUTORS.items() if row.elsewhere)
        found = f"--executor {executor or 'on this machine'}; expected {takers}"
    elif not artifacts_are_shared(tracking_uri):
        found = f"--tracking-uri {masked(tracking_uri)}; expected an MLflow server, http://HOST:PORT"
    elif native:
        found = "scores on whole volumes, which are not sent; score those here afterwards: litsexp score-runs --native"
    if found:
        raise LitsexpError(f"--send-stores: found {found}")


def send_all(client: MlflowClient, stores: Iterable[Store | None], bar: Bar) -> None:
    """``send`` each store that there is."""
    for store in filter(None, stores):
        send(client, store, bar)


def send(client: MlflowClient, store: Store, bar: Bar) -> str:
    """Put a store among MLflow's artifacts, unless it is there; the id of its run.

    Raises:
        LitsexpError: the experiment of stores is deleted.
    """
    experiment_id = experiment_id_of(client, EXPERIMENT, todo="remove it for good: mlflow gc")
    known = _runs(client, experiment_id, store.fingerprint)
    if whole := [run for run in known if run.info.status == "FINISHED"]:
        return str(whole[0].info.run_id)
    here = {"host": socket.gethostname()}
    for left in known:  # by a driver that was killed here
        if left.info.status == "RUNNING" and here.items() <= left.data.tags.items():
            client.set_terminated(left.info.run_id, "KILLED")
    sums = {f"{FILE}{name}": _sha256(store.directory / name) for name in FILES}
    named = {MLFLOW_RUN_NAME: store.fingerprint, FINGERPRINT: store.fingerprint}
    run_id = str(client.create_run(experiment_id, tags={**named, **here, **sums}).info.run_id)
    try:
        with bar(f"sending the store {store.fingerprint}") as advance:
            for number, name in enumerate(FILES):
                client.log_artifact(run_id, str(store.directory / name))
                advance(number + 1, len(FILES))
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")
    return run_id


def fetch(client: MlflowClient, fingerprint: str) -> Path | None:
    """The folder of a store on this node, fetched where no worker here has yet; None where it was not sent.

    Raises:
        LitsexpError: what came is not what was sent; no room, or no folder to write to.
    """
    folder = home() / fingerprint
    if folder.is_dir():
        return folder
    experiment = client.get_experiment_by_name(EXPERIMENT)
    sent = _runs(client, experiment.experiment_id, fingerprint) if experiment else []
    whole = next((run for run in sent if run.info.status == "FINISHED"), None)
    if whole is None:
        return None
    try:
        home().mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _download(client, whole, folder)
    except OSError as error:
        what = f"cannot take the slice store {fingerprint} ({error.strerror or error}) on host {socket.gethostname()}"
        raise LitsexpError(f"{home()}: {what}; free space, or name another folder with {HOME}") from None
    return folder


def home() -> Path:
    """Where a node keeps what it has fetched."""
    return Path(os.environ.get(HOME) or Path.home() / ".cache" / "litsexp" / "stores").absolute()


def _download(client: MlflowClient, run: Run, folder: Path) -> None:
    for left in folder.parent.glob(f".{folder.name}-*"):  # of a killed worker; this one has the lock
        shutil.rmtree(left, ignore_errors=True)
    with whole_folder(folder) as temporary:
        for name in FILES:
            client.download_artifacts(run.info.run_id, name, str(temporary))
            _check(temporary / name, run.data.tags)
        found = Store.open(temporary).fingerprint
        if found != folder.name:
            raise LitsexpError(f"MLflow run {run.info.run_id}: found the store {found}; expected {folder.name}")


def _check(file: Path, tags: Mapping[str, str]) -> None:
    found, sent = _sha256(file), tags.get(f"{FILE}{file.name}", "nothing")
    if found != sent:
        raise LitsexpError(f"{file.name} of a slice store: found SHA-256 {found[:16]}; expected {sent[:16]}, as sent")


def _runs(client: MlflowClient, experiment_id: str, fingerprint: str) -> list[Run]:
    return list(client.search_runs([experiment_id], f"tags.{FINGERPRINT} = '{fingerprint}'"))


def _sha256(file: Path) -> str:
    content = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(BLOCK_BYTES):
            content.update(block)
    return content.hexdigest()
