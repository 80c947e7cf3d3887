"""What runs on a node of Slurm, called in this process: it checks what it finds, trains, and says where."""

import json
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from litsexp.data.store import Store
from litsexp.spec.errors import LitsexpError
from litsexp.study.executors import slurm_job
from litsexp.study.executors.elsewhere import with_stores
from litsexp.study.jobs import Job, outcome_from_json

from .slurm_played import job_of


def write(folder: Path, job: Job, litsexp: str) -> Path:
    from litsexp.study.jobs import job_to_json

    folder.mkdir()
    (folder / "job.json").write_text(
        json.dumps({"litsexp": litsexp, "threads": 1, "job": json.loads(job_to_json(job))})
    )
    return folder


def test_a_worker_of_another_version_fails_and_names_both(tmp_path: Path) -> None:
    slurm_job.main(write(tmp_path / "job", job_of(tmp_path), "9.9"))
    outcome = outcome_from_json((tmp_path / "job" / "outcome.json").read_text())
    assert outcome.status == "failed" and not outcome.died
    assert f"found litsexp {version('litsexp')} at" in outcome.reason and "the driver's, 9.9" in outcome.reason


def test_a_second_worker_of_a_job_ends_at_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "job", job_of(tmp_path), "9.9")
    slurm_job.main(folder)
    (folder / "outcome.json").unlink()
    with pytest.raises(SystemExit, match="another worker has this job"):
        slurm_job.main(folder)
    assert not (folder / "outcome.json").exists()
    with pytest.raises(SystemExit, match="expected a folder that every node sees"):
        slurm_job.main(tmp_path / "elsewhere")


def test_a_worker_trains_and_says_where(
    job: Callable[..., Job], tracking: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"JOB_ID": "9", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    asked = job()
    folder = write(tmp_path / "job", asked, version("litsexp"))
    slurm_job.main(folder)
    outcome = outcome_from_json((folder / "outcome.json").read_text())
    assert outcome.status == "finished", outcome
    epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert [number for number, _ in epochs] == [0, 1]
    assert max(metrics["valid/score"] for _, metrics in epochs) == outcome.value
    run = tracking.client.get_run(asked.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["host"] and run.data.tags["version.torch"]
    assert run.data.tags["slurm_job"] == "7_0"


def test_a_worker_stops_when_it_is_told(job: Callable[..., Job], tmp_path: Path) -> None:
    folder = write(tmp_path / "job", job(), version("litsexp"))
    (folder / "stop").touch()
    slurm_job.main(folder)
    assert outcome_from_json((folder / "outcome.json").read_text()).status == "pruned"
    assert len((folder / "epochs.jsonl").read_text().splitlines()) == 1


def test_a_worker_whose_run_was_given_up_trains_nothing(job: Callable[..., Job], tracking: Any, tmp_path: Path) -> None:
    asked = job()
    tracking.end(asked.run_id, "KILLED", "the driver was interrupted")
    folder = write(tmp_path / "job", asked, version("litsexp"))
    slurm_job.main(folder)
    assert "is KILLED; expected RUNNING" in outcome_from_json((folder / "outcome.json").read_text()).reason
    assert not (folder / "epochs.jsonl").exists()


@pytest.mark.parametrize(("ahead_s", "words"), [(3600, "60 min ahead of"), (-3600, "60 min behind")])
def test_a_worker_whose_clock_is_far_off_trains_nothing(
    job: Callable[..., Job], answering: Callable[..., str], tmp_path: Path, ahead_s: float, words: str
) -> None:
    asked = replace(job(), tracking_uri=answering({"/version": (200, "3.17.0", ahead_s)}))
    folder = write(tmp_path / "job", asked, version("litsexp"))
    slurm_job.main(folder)
    outcome = outcome_from_json((folder / "outcome.json").read_text())
    assert outcome.status == "failed"
    assert f"found its clock {words} that of host {socket.gethostname()}; expected them within 10 min" in outcome.reason
    assert not (folder / "epochs.jsonl").exists()


def test_a_worker_checks_its_stores_before_it_trains(
    job: Callable[..., Job], phantom_store: Store, external_store: Store, tmp_path: Path
) -> None:
    mine = replace(job(), fingerprint=phantom_store.fingerprint)
    assert with_stores(mine) == mine
    found = f"found the store {phantom_store.fingerprint} on host .*; expected the driver's, 123"
    with pytest.raises(LitsexpError, match=found):
        with_stores(replace(mine, fingerprint="123", scorings=()))
    with pytest.raises(LitsexpError, match=found):
        with_stores(replace(mine, scorings=(replace(mine.scorings[0], fingerprint="123"),)))
    with pytest.raises(LitsexpError, match=r"gone: not found on host .*every node sees"):
        with_stores(replace(mine, store=tmp_path / "gone"))
    with_stores(replace(mine, store=tmp_path / "gone", trained=True))  # it is only scored
    start_s = time.monotonic()
    with_stores(mine)
    assert time.monotonic() - start_s < 5
