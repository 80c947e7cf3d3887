"""A study on a real PostgreSQL has one driver, who is told who it is, and whose cells are neither lost nor doubled."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from sqlalchemy.exc import OperationalError

from litsexp.spec.design import design_digest
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study import outages
from litsexp.study.jobs import Job
from litsexp.study.ledger import Ledger
from litsexp.study.locks import SessionLock, Taken, driver_of, one_driver

from ..conftest import Bench
from .lab import everything_once, kick

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
    ask = Ledger.ask.__wrapped__.__wrapped__

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

    monkeypatch.setattr(Ledger, "ask", outages._patient(cut))
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
