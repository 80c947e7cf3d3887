"""Where a study stands, told from MLflow alone."""

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric

from litsexp.spec.design import cells
from litsexp.spec.reading import load_study
from litsexp.study.ledger import Ledger
from litsexp.study.locks import one_driver
from litsexp.study.places import Places
from litsexp.study.status import status_of
from litsexp.study.tracking import Tracking

from .conftest import CLAIM, STUDY, study_file

pytestmark = pytest.mark.usefixtures("elsewhere")
TEXT = STUDY + f"claims: [{CLAIM}]\n"
Litsexp = Callable[..., tuple[int, str, str]]


@pytest.fixture
def begun(new_places: Callable[[Path], Any]) -> tuple[Tracking, list[str]]:
    """A study of four cells as its driver has left it so far: done, running in its second attempt, failed, waiting."""
    places, study = new_places(Path.cwd()), load_study(study_file(TEXT))
    tracking = Tracking(places.tracking_uri, "tiny", places.root / "artifacts")
    parent = tracking.open_parent(study, "d1", "tiny", [], {})
    tags = {"data_fingerprint": "slices", "study_digest": "d1", "device": "cpu"}
    done, running, failed, _ = cells(study)
    ids = []
    for cell in (done, running, running, failed):
        ids.append(tracking.start_cell(cell, cell.run_key(study.split, "slices"), parent, tags))
        if cell is done:
            tracking.client.set_terminated(ids[-1], "FINISHED", end_time=tracking.runs()[-1].info.start_time + 60_000)
    tracking.end(ids[1], "KILLED", "the driver was interrupted")
    tracking.client.log_batch(ids[2], metrics=[Metric("valid/score", 0.4, 0, 0)])
    tracking.end(ids[3], "FAILED", "out of memory [8 GB]")
    return tracking, ids


def test_every_cell_with_its_latest_attempt(litsexp: Litsexp, begun: tuple[Tracking, list[str]]) -> None:
    code, out, error = litsexp("status", "tiny.yaml")
    assert code == 0, error
    assert "1 of 4 runs finished (1 finished, 1 failed, 1 running, 1 waiting); a driver is at it" in out
    assert "running: window=wide · fold 0 · seed 0: for " in out and "epoch 1 of 1, on cpu, attempt 2" in out
    assert "failed: baseline · fold 1 · seed 0: after " in out and "out of memory [8 GB]" in out
    assert "interrupted" not in out  # a later attempt took its place
    assert "time left: about " in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.startswith(("baseline", "window"))}
    assert rows == {"baseline": ["✓", "✗"], "window=wide": ["▶", "·"]}


def test_who_drives_it_is_told_by_the_lock_and_a_killed_driver_is_gone(
    litsexp: Litsexp, begun: tuple[Tracking, list[str]], files: Callable[[Path], list[str]]
) -> None:
    places, name = Places.below(Path("mlruns")), "tiny-d1"
    Ledger(places.storage_url, name, load_study(Path("tiny.yaml")))
    before = files(Path())
    assert "; its driver is gone; the same command goes on\n" in litsexp("status", "tiny.yaml")[1]
    assert files(Path()) == before
    with one_driver(places.storage_url, name, places.root):
        who = f"process {os.getpid()} on {socket.gethostname()} is running it since "
        assert who in litsexp("status", "tiny.yaml")[1]
        assert json.loads(litsexp("status", "tiny.yaml", "--json")[1])["driver"].startswith(who)
        left = (places.root / f"{name}.driver.json").read_text()
    with subprocess.Popen(["true"]) as ended:
        pass
    (places.root / f"{name}.driver.json").write_text(left.replace(str(os.getpid()), str(ended.pid)))  # by a kill -9
    assert json.loads(litsexp("status", "tiny.yaml", "--json")[1])["driver"] == ""
    assert json.loads(litsexp("status", "tiny.yaml", "--json", "--storage", "sqlite:////no/such")[1])["driver"] is None


def test_as_json_for_programs(litsexp: Litsexp, begun: tuple[Tracking, list[str]]) -> None:
    _, ids = begun
    code, out, _ = litsexp("status", "tiny.yaml", "--json")
    told = json.loads(out)
    assert code == 0 and told["state"] == "RUNNING" and told["planned"] == 4
    assert [cell["state"] for cell in told["cells"]] == ["finished", "running", "failed", "waiting"]
    assert [cell["run_id"] for cell in told["cells"]] == [ids[0], ids[2], ids[3], ""]


def test_the_time_left_is_what_the_others_need_at_the_pace_of_the_finished(begun: tuple[Tracking, list[str]]) -> None:
    tracking, ids = begun
    started_s = tracking.client.get_run(ids[2]).info.start_time / 1000
    found = status_of(load_study(Path("tiny.yaml")), "tiny", Places.below(Path("mlruns")), now_s=started_s + 20)
    assert found.seconds_left == pytest.approx(3 * 60 - 20, abs=1)  # the running, the failed and the waiting one
    (running,) = (cell for cell in found.cells if cell.state == "running")
    assert running.since_s == pytest.approx(20, abs=1)


def test_a_reworded_question_is_the_same_study_and_another_seed_is_not(
    litsexp: Litsexp, refused: Callable[..., str], begun: tuple[Tracking, list[str]]
) -> None:
    study_file(TEXT.replace("Is a wide window [better]?", "Which window?"))
    assert litsexp("status", "tiny.yaml")[0] == 0
    assert "found no such study in MLflow, but 1 of other designs or settings" in refused(
        "status", "tiny.yaml", "--set", "seeds=[7]"
    )


def test_runs_that_an_earlier_study_finished_count(litsexp: Litsexp, begun: tuple[Tracking, list[str]]) -> None:
    """With one seed more the finished cell is taken over, as the driver does it; failed ones of the other are not."""
    tracking, _ = begun
    asked = load_study(study_file(TEXT + "seeds: [0, 1]\n"))
    parent = tracking.open_parent(asked, "d2", "tiny", [], {})
    new = cells(asked)[-1]
    tags = {"data_fingerprint": "slices", "study_digest": "d2"}
    tracking.start_cell(new, new.run_key(asked.split, "slices"), parent, tags)
    code, out, _ = litsexp("status", "tiny.yaml")
    assert code == 0
    assert "1 of 8 runs finished (1 finished, 1 running, 6 waiting)" in out


def test_a_run_counts_whatever_its_arm_was_called_in_the_study_that_trained_it(
    litsexp: Litsexp, begun: tuple[Tracking, list[str]]
) -> None:
    """With the other window as the baseline the finished cell is an arm of the factor."""
    tracking, _ = begun
    turned = TEXT.replace("window: liver", "window: wide").replace("window: [wide]", "window: [liver]")
    asked = load_study(study_file(turned.replace("better: wide, than: liver", "better: liver, than: wide")))
    parent = tracking.open_parent(asked, "d2", "tiny", [], {})
    tags = {"data_fingerprint": "slices", "study_digest": "d2"}
    tracking.start_cell(cells(asked)[0], cells(asked)[0].run_key(asked.split, "slices"), parent, tags)
    code, out, error = litsexp("status", "tiny.yaml", "--json")
    assert code == 0, error
    told = [(cell["arm"], cell["fold"], cell["state"]) for cell in json.loads(out)["cells"]]
    assert ("window=liver", 0, "finished") in told and ("baseline", 0, "running") in told
    assert len(told) == 4


def test_what_is_not_there_is_said_in_one_line_and_nothing_is_made(
    refused: Callable[..., str], files: Callable[[Path], list[str]], new_places: Callable[[Path], Any]
) -> None:
    study_file(TEXT)
    assert "found no database" in refused("status", "tiny.yaml")
    assert files(Path()) == ["tiny.yaml"]
    new_places(Path.cwd())
    assert "tiny: found no experiment of this name" in refused("status", "tiny.yaml")
