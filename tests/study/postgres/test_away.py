"""A study on a real PostgreSQL and a real MLflow server: what happens when one of them goes away, or is none."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException

from litsexp import services
from litsexp.spec.errors import LitsexpError
from litsexp.study import outages
from litsexp.study.jobs import Job
from litsexp.study.ledger import Ledger
from litsexp.study.locks import SessionLock
from litsexp.study.outages import Away
from litsexp.study.places import Places
from litsexp.study.tracking import Tracking

from ..conftest import Bench
from .lab import CELLS, everything_once, sql, start_mlflow, start_postgres, stop

AWAY_S = 1.5


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
