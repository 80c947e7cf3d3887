"""Slice stores sent to MLflow and fetched by a node: whole, once, and what was sent."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from litsexp.data.store import Store
from litsexp.spec.errors import LitsexpError
from litsexp.study import supply
from litsexp.study.clients import patient_client
from litsexp.study.executors.elsewhere import with_stores
from litsexp.study.jobs import Job
from litsexp.study.supply import FILES, check_sending, fetch, send
from litsexp.study.tracking import Tracking


def bar(_: str) -> Any:
    def advance(done: int, total: int) -> None:
        """Nothing to show."""

    return nullcontext(advance)


@pytest.fixture(autouse=True)  # before MLflow's store is opened
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node that has fetched nothing yet; SQLite's MLflow keeps what is sent in the folder that it is used in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSEXP_STORES", str(tmp_path / "node" / "stores"))
    return tmp_path / "node" / "stores"


def sent_runs(client: MlflowClient) -> list[str]:
    found = client.get_experiment_by_name("litsexp-stores")
    return [run.info.status for run in client.search_runs([found.experiment_id])] if found else []


def test_what_a_node_fetches_is_the_same_store(tracking: Tracking, phantom_store: Store, node: Path) -> None:
    client = tracking.client
    assert fetch(client, phantom_store.fingerprint) is None
    assert not node.exists()
    assert send(client, phantom_store, bar) == send(client, phantom_store, bar)
    assert sent_runs(client) == ["FINISHED"]
    folder = fetch(client, phantom_store.fingerprint)
    assert folder == node / phantom_store.fingerprint
    found = Store.open(folder)
    assert found.fingerprint == phantom_store.fingerprint
    assert np.array_equal(found.hu, phantom_store.hu) and np.array_equal(found.labels, phantom_store.labels)
    assert found.index.equals(phantom_store.index)
    assert sorted(path.name for path in node.iterdir() if not path.name.endswith(".lock")) == [folder.name]


def test_workers_of_a_node_fetch_it_once(
    tracking: Tracking, phantom_store: Store, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(tracking.client, phantom_store, bar)
    fetched: list[str] = []
    download = supply._download

    def count(client: MlflowClient, run: Any, folder: Path) -> None:
        fetched.append(folder.name)
        download(client, run, folder)

    monkeypatch.setattr(supply, "_download", count)
    with ThreadPoolExecutor(4) as workers:
        folders = list(workers.map(lambda _: fetch(tracking.client, phantom_store.fingerprint), range(4)))
    assert set(folders) == {node / phantom_store.fingerprint}
    assert len(fetched) == 1


def test_what_was_damaged_on_the_way_is_refused_and_nothing_is_left(
    tracking: Tracking, phantom_store: Store, node: Path
) -> None:
    run_id = send(tracking.client, phantom_store, bar)
    kept = Path(tracking.client.get_run(run_id).info.artifact_uri.removeprefix("file://")) / "labels.npy"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(LitsexpError, match=r"labels.npy of a slice store: found SHA-256 .*, as sent"):
        fetch(tracking.client, phantom_store.fingerprint)
    assert [path.name for path in node.iterdir() if not path.name.endswith(".lock")] == []
    kept.write_bytes(whole)
    (node / f".{phantom_store.fingerprint}-killed").mkdir()  # of a worker that was killed while it fetched
    assert fetch(tracking.client, phantom_store.fingerprint) is not None
    assert not list(node.glob(".*-killed"))


def test_a_sending_that_was_cut_is_no_store_and_the_next_driver_sends_it_whole(
    tracking: Tracking, phantom_store: Store, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tracking.client

    def cut(run_id: str, path: str) -> None:
        if Path(path).name == FILES[-1]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tracking, "client", client)
        patch.setitem(client.__dict__, "log_artifact", cut)
        with pytest.raises(KeyboardInterrupt):
            send(client, phantom_store, bar)
    assert sent_runs(client) == ["FAILED"]
    assert fetch(client, phantom_store.fingerprint) is None
    killed = client.create_run(
        client.get_experiment_by_name("litsexp-stores").experiment_id,
        tags={"store": phantom_store.fingerprint, "host": supply.socket.gethostname()},
    )
    send(client, phantom_store, bar)
    assert sorted(sent_runs(client)) == ["FAILED", "FINISHED", "KILLED"]
    assert client.get_run(killed.info.run_id).info.status == "KILLED"
    assert fetch(client, phantom_store.fingerprint) is not None


def test_the_experiment_of_stores_was_deleted(tracking: Tracking, phantom_store: Store) -> None:
    send(tracking.client, phantom_store, bar)
    tracking.client.delete_experiment(tracking.client.get_experiment_by_name("litsexp-stores").experiment_id)
    with pytest.raises(LitsexpError, match=r"MLflow experiment 'litsexp-stores' is deleted; .* remove it for good"):
        send(tracking.client, phantom_store, bar)


def test_a_worker_takes_what_was_sent_for_the_stores_it_does_not_see(
    servers: Any, job: Callable[..., Job], phantom_store: Store, external_store: Store, node: Path, tmp_path: Path
) -> None:
    asked = replace(job(external=external_store), fingerprint=phantom_store.fingerprint)
    gone = tuple(replace(one, store=tmp_path / "gone" / one.kind) for one in asked.scorings)
    there = replace(asked, tracking_uri=servers.tracking_uri, store=tmp_path / "gone", scorings=gone)
    with pytest.raises(LitsexpError, match=r"gone: not found on host .*--send-stores"):
        with_stores(there)
    for store in (phantom_store, external_store):
        send(patient_client(servers.tracking_uri), store, bar)
    found = with_stores(there)
    assert found.store == node / phantom_store.fingerprint
    assert [one.store.name for one in found.scorings] == [phantom_store.fingerprint, external_store.fingerprint]
    assert found.cache == node / "pretrained"  # the driver's is as far away, and nothing lies beside that folder
    assert with_stores(asked) == asked  # what is seen is not fetched


@pytest.mark.parametrize(
    ("executor", "uri", "native", "words"),
    [
        (None, "http://head:5000", False, "found --executor on this machine; expected slurm"),
        ("processes", "http://head:5000", False, "found --executor processes; expected slurm"),
        ("slurm", "sqlite:///mlflow.db", False, "found --tracking-uri sqlite:///mlflow.db; expected an MLflow server"),
        ("slurm", "http://head:5000", True, "found scores on whole volumes, which are not sent"),
    ],
)
def test_where_nobody_would_fetch_it_is_refused(executor: str | None, uri: str, native: bool, words: str) -> None:
    with pytest.raises(LitsexpError, match=f"--send-stores: {words}"):
        check_sending(executor, uri, native)


def test_where_workers_fetch_it_is_sent() -> None:
    check_sending("slurm", "http://head:5000", native=False)
