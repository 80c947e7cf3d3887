"""Servers that a test stops and starts again, and what a study leaves on them."""

import os
import signal
import time
from typing import Any

import psycopg

from litsexp import services
from litsexp.services import postgres, tracking_server

from ..conftest import Bench

CELLS = 4  # of the tiny study


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


def kick(servers: Any) -> None:
    """End every session but this one, as a restart of the server does."""
    sql(servers, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'litsexp %'")
