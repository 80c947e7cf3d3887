"""A study on a real PostgreSQL and a real MLflow server: one driver, and what happens when one of them goes away."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from litsexp import services
from litsexp.data.store import Store
from litsexp.services import postgres, tracking_server
from litsexp.spec.design import design_digest
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study import outages
from litsexp.study import session as session_room
from litsexp.study.jobs import Job
from litsexp.study.ledger import Ledger
from litsexp.study.locks import SessionLock, Taken, driver_of, one_driver
from litsexp.study.outages import Away
from litsexp.study.places import Places
from litsexp.study.tracking import Tracking

from .conftest import Bench, Instant

CELLS = 4  # of the tiny study
AWAY_S = 1.5


@pytest.fixture
def bench(servers: Any, tmp_path: Path, phantom_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """The tiny study on the servers, under a name of the test's own."""
    monkeypatch.setattr(session_room, "check_needs", lambda *_: None)
    monkeypatch.setattr(outages, "PAUSES_S", (0.2,))
    places = Places.below(tmp_path / "mlruns", servers.tracking_uri, servers.storage_url)
    places.root.mkdir()
    yield Bench(places, phantom_store, Instant(places), name=f"tiny-{uuid.uuid4().hex[:8]}")
    for daemon, start in zip(services.daemons(servers.folder), (start_postgres, start_mlflow), strict=True):
        if not daemon.pid():  # a test that failed in between leaves the next one its servers
            start(servers)


def start_postgres(servers: Any) -> None:
    daemon, _ = services.daemons(servers.folder)
    found = postgres.programs(servers.folder / "postgres")
    postgres.start(daemon, found, servers.postgres_port, services.USER, servers.password, fsync=False)


def start_mlflow(servers: Any) -> None:
    _, daemon = services.daemons(servers.folder)
    ports = (servers.mlflow_port, servers.postgres_port)
    tracking_server.start(daemon, *ports, services.USER, servers.password)


def stop(servers: Any, which: int) -> None:
    """As a machine's failure would: nothing is asked politely."""
    daemon = services.daemons(servers.folder)[which]
    number = daemon.pid()
    assert number is not None
    os.killpg(number, signal.SIGKILL)
    if which == 0:  # its processes are sessions of their own
        time.sleep(0.3)
    daemon.stop()


def sql(servers: Any, statement: str) -> list[Any]:
    asked = {"host": "127.0.0.1", "port": servers.postgres_port, "user": services.USER, "dbname": "litsexp"}
    with psycopg.connect(**asked, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def everything_once(bench: Bench, study: Any) -> None:
    """Every cell has one run and one complete trial, and nothing runs."""
    assert sorted(status for _, status in bench.statuses()) == ["FINISHED"] * CELLS
    assert len({name for name, _ in bench.statuses()}) == CELLS
    states = bench.trial_states(study)
    assert states.count("COMPLETE") == CELLS
    assert set(states) <= {"COMPLETE", "FAIL"}


@pytest.mark.parametrize("which", [0, 1], ids=["database", "mlflow"])
def test_a_study_waits_for_a_server_that_is_killed_and_started_again(
    bench: Bench, study: Any, servers: Any, which: int, caplog: pytest.LogCaptureFixture
) -> None:
    start = (start_postgres, start_mlflow)[which]
    again = threading.Timer(AWAY_S, start, [servers])

    def away_at_the_second(job: Job, _: Any) -> None:
        if len(bench.executor.ran) == 2:
            stop(servers, which)
            again.start()

    bench.executor.behave = away_at_the_second
    with caplog.at_level(logging.WARNING, "litsexp"):
        session, plan = bench.run(study())
    again.join()
    assert plan == (0, CELLS)
    assert session.failures == {}
    everything_once(bench, study())
    said = [record.message for record in caplog.records if record.name.startswith("litsexp")]
    assert any("does not answer; waiting up to 10 min" in line for line in said), said
    assert any("is back after" in line for line in said), said
    assert bench.run(study())[1] == (CELLS, 0)


@pytest.mark.parametrize("which", [0, 1], ids=["database", "mlflow"])
def test_away_for_good_is_one_line_and_the_same_command_goes_on_later(
    bench: Bench, study: Any, servers: Any, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "PATIENCE_S", 0.5)
    start = (start_postgres, start_mlflow)[which]

    def away_at_the_second(job: Job, _: Any) -> None:
        if len(bench.executor.ran) == 2:
            stop(servers, which)

    bench.executor.behave = away_at_the_second
    begun_s = time.monotonic()
    with pytest.raises(Away) as caught:
        bench.run(study())
    assert time.monotonic() - begun_s < 20  # what is put right at the end does not wait again
    said = str(caught.value)
    assert "\n" not in said
    assert "has not answered for" in said and "the same command goes on later" in said
    start(servers)
    bench.executor.behave = lambda *_: None
    _, (done, left) = bench.run(study())
    assert (done, left) == (1, CELLS - 1)
    assert [status for _, status in bench.statuses()].count("FINISHED") == CELLS
    assert not {"RUNNING", "SCHEDULED"} & {status for _, status in bench.statuses()}
    assert bench.trial_states(study()).count("COMPLETE") == CELLS
    assert not {"RUNNING", "WAITING"} & set(bench.trial_states(study()))


DRIVER = """
import sys, time
from pathlib import Path
from litsexp.study.locks import one_driver
with one_driver(sys.argv[1], "tiny", Path("unused")):
    print("driving", flush=True)
    time.sleep(60)
"""


def test_a_second_driver_is_told_who_drives_since_when_and_a_killed_one_frees_the_study(
    servers: Any, tmp_path: Path
) -> None:
    began = time.strftime("%H:%M")
    command = [sys.executable, "-c", DRIVER, servers.storage_url]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "driving\n"
        with pytest.raises(LitsexpError) as caught, one_driver(servers.storage_url, "tiny", tmp_path):
            pass
        said = str(caught.value)
        assert said.startswith(f"study tiny: process {other.pid} on {os.uname().nodename} is running it since ")
        assert said.split(" since ")[1][:5] in (began, time.strftime("%H:%M"))
        assert "\n" not in said
        with one_driver(servers.storage_url, "another", tmp_path):
            pass
        assert driver_of(servers.storage_url, "tiny", tmp_path) is None  # the ledger has no such study
        Ledger(servers.storage_url, "tiny", StudyConfig(question="?"))
        assert f"study tiny: {driver_of(servers.storage_url, 'tiny', tmp_path)}; wait" in said
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.communicate()
    free_s = time.monotonic() + 5
    while True:
        try:
            with one_driver(servers.storage_url, "tiny", tmp_path):
                break
        except LitsexpError:
            assert time.monotonic() < free_s
            time.sleep(0.1)
    assert driver_of(servers.storage_url, "tiny", tmp_path) == ""
    assert list(tmp_path.iterdir()) == []  # no lock lies about


def kick(servers: Any) -> None:
    """End every session but this one, as a restart of the server does."""
    sql(servers, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'litsexp %'")


def test_a_lock_that_was_lost_is_taken_again(servers: Any) -> None:
    lock = SessionLock(servers.storage_url, "tiny")
    kick(servers)
    lock.check()
    with pytest.raises(LitsexpError, match=f"process {os.getpid()} on "):
        SessionLock(servers.storage_url, "tiny")
    lock.close()
    SessionLock(servers.storage_url, "tiny").close()


def test_a_driver_whose_study_another_has_taken_meanwhile_ends_and_closes_nothing(
    bench: Bench, study: Any, servers: Any
) -> None:
    thief: list[SessionLock] = []

    def taken_at_the_second(job: Job, _: Any) -> None:
        if len(bench.executor.ran) == 2:
            kick(servers)
            thief.append(SessionLock(servers.storage_url, f"{bench.name}-{digest}"))

    digest = design_digest(study(), bench.store.fingerprint)
    bench.executor.behave = taken_at_the_second
    with pytest.raises(Taken, match="is running it since"):
        bench.run(study())
    thief[0].close()
    parent = next(run for run in bench.tracking().runs() if "claims_preregistered" in run.data.tags)
    assert parent.info.status == "RUNNING"  # the other driver's by now
    assert bench.trial_states(study()).count("RUNNING") == 1
    bench.executor.behave = lambda *_: None
    bench.run(study())
    everything_once(bench, study())


def test_a_cell_that_was_taken_from_the_queue_as_the_database_went_is_not_lost(
    bench: Bench, study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = Ledger.ask.__wrapped__.__wrapped__  # type: ignore[attr-defined]

    def cut(self: Ledger) -> Any:
        real = self.study.ask

        def lost(space: Any) -> Any:
            trial = real(space)
            asked.append(trial.number)
            if len(asked) == 2:
                raise OperationalError("SELECT 1", {}, psycopg.OperationalError("server closed the connection"))
            return trial

        monkeypatch.setattr(self.study, "ask", lost)
        try:
            return ask(self)
        finally:
            monkeypatch.setattr(self.study, "ask", real)

    monkeypatch.setattr(Ledger, "ask", outages._patient(cut))  # type: ignore[arg-type]
    bench.run(study())
    everything_once(bench, study())
    assert bench.trial_states(study()).count("FAIL") == 1


def test_a_tell_whose_answer_was_lost_counts_and_another_value_does_not(bench: Bench, study: Any) -> None:
    ledger = bench.ledger(study())
    ledger.enqueue({"window": "liver", "fold": 0, "seed": 0}, "key0")
    ticket = ledger.ask()
    ledger.tell(ticket.number, 0.5)
    ledger.tell(ticket.number, 0.5)
    with pytest.raises(ValueError, match="COMPLETE"):
        ledger.tell(ticket.number, 0.25)
    with pytest.raises(ValueError, match="COMPLETE"):
        ledger.tell_failed(ticket.number)


def test_a_run_whose_answer_was_lost_is_not_made_twice(
    bench: Bench, study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, lost = requests.Session.request, []

    def cut(self: Any, method: str, url: str, **options: Any) -> Any:
        answer = send(self, method, url, **options)
        if url.endswith("/runs/create") and len(lost) < 2:
            lost.append(url)
            raise requests.exceptions.ConnectionError("Connection reset by peer")
        return answer

    monkeypatch.setattr(requests.Session, "request", cut)
    bench.run(study())
    assert len(lost) == 2
    everything_once(bench, study())
    assert len([run for run in bench.tracking().runs() if "claims_preregistered" in run.data.tags]) == 1


def test_a_download_that_mlflow_takes_for_a_missing_file_waits(
    bench: Bench, study: Any, servers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(study())
    run, send, lost = next(iter(bench.tracking().finished().values())), requests.Session.request, []

    def cut(self: Any, method: str, url: str, **options: Any) -> Any:
        if len(lost) < 6:
            lost.append(url)
            raise requests.exceptions.ConnectionError("Connection refused")
        return send(self, method, url, **options)

    tracking = bench.tracking()
    monkeypatch.setattr(requests.Session, "request", cut)
    assert len(tracking.artifact(run.info.run_id, "cases.parquet")) > 100
    assert len(lost) == 6
    with pytest.raises(MlflowException, match="ensure that the path is correct"):  # and one that is missing is
        tracking.artifact(run.info.run_id, "nothing.parquet")


def test_a_password_that_is_revoked_in_the_middle_is_one_line_at_once(bench: Bench, study: Any, servers: Any) -> None:
    secret = servers.password.read_text().strip()

    def revoked_at_the_second(job: Job, _: Any) -> None:
        if len(bench.executor.ran) == 2:
            sql(servers, f"ALTER USER {services.USER} PASSWORD 'another'")
            sql_of_others = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'litsexp' AND pid <> "
            )
            os.environ["PGPASSWORD"] = "another"
            sql(servers, sql_of_others + "pg_backend_pid()")
            os.environ["PGPASSWORD"] = secret

    bench.executor.behave = revoked_at_the_second
    try:
        with pytest.raises(Away) as caught:
            bench.run(study())
    finally:
        os.environ["PGPASSWORD"] = "another"
        sql(servers, f"ALTER USER {services.USER} PASSWORD '{secret}'")
        os.environ["PGPASSWORD"] = secret
    assert "password authentication failed" in str(caught.value)
    assert "mend that, and the same command goes on later" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "RUNNING" not in {status for _, status in bench.statuses()}


def test_what_cannot_be_opened_is_one_line_and_leaves_nothing(
    servers: Any, study: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = f"127.0.0.1:{servers.postgres_port}"
    refused = {
        f"postgresql+psycopg://litsexp@{where}/nowhere": 'database "nowhere" does not exist',
        f"postgresql+psycopg://nobody:secret99@{where}/litsexp": "password authentication failed",
        "postgresql+psycopg://litsexp@127.0.0.1:9/litsexp": "Connection refused",
    }
    for url, said in refused.items():
        for opening in (lambda url=url: Ledger(url, "tiny", study()), lambda url=url: SessionLock(url, "tiny")):
            begun_s = time.monotonic()
            with pytest.raises(LitsexpError) as caught:
                opening()
            assert time.monotonic() - begun_s < 5
            assert said in str(caught.value)
            assert "\n" not in str(caught.value) and "secret99" not in str(caught.value)
        with pytest.raises(LitsexpError, match="MLflow does not answer") as caught:
            Tracking(url, "tiny", tmp_path)
        assert said in str(caught.value) and "secret99" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-password")
    with pytest.raises(LitsexpError, match="expected them in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"):
        Tracking(servers.tracking_uri, "tiny", tmp_path)


def test_mlflow_on_postgresql_without_a_server_keeps_artifacts_in_the_drivers_folder(
    bench: Bench, study: Any, servers: Any
) -> None:
    url = servers.storage_url.removesuffix("litsexp") + "mlflow"
    bench.places = Places(bench.places.root, url, bench.places.storage_url, bench.places.stores)
    bench.executor.places = bench.places
    bench.run(study())
    everything_once(bench, study())
    assert len(list((bench.places.root / "artifacts" / bench.name).rglob("cases.parquet"))) == CELLS
