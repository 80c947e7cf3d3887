"""A study on a real PostgreSQL and a real MLflow server: one driver, and what happens when one of them goes away."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from litsexp import services
from litsexp.data.store import Store
from litsexp.services import postgres, tracking_server
from litsexp.study import outages
from litsexp.study import session as session_room
from litsexp.study.jobs import Job
from litsexp.study.places import Places

from .conftest import Bench, Instant

CELLS = 4  # of the tiny study
AWAY_S = 1.5


@pytest.fixture
def bench(
    servers: Any, tmp_path: Path, phantom_store: Store, monkeypatch: pytest.MonkeyPatch, request: Any
) -> Iterator[Bench]:
    """The tiny study on the servers, under a name of the test's own."""
    monkeypatch.setattr(session_room, "check_needs", lambda *_: None)
    monkeypatch.setattr(outages, "PAUSES_S", (0.2,))
    places = Places.below(tmp_path / "mlruns", servers.tracking_uri, servers.storage_url)
    yield Bench(places, phantom_store, Instant(places), name=request.node.name[:60])
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
