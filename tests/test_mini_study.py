"""The main job in small, for real: two arms x two folds; whole, in parallel, killed, interrupted, resumed, repeated.

Every fixture is one history of a study in a folder of its own; the tests compare what the histories left behind.
"""

import io
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from litsexp.cli.app import main
from litsexp.data.store import Store

STUDY = """\
# Question: does the mini-study repeat bit for bit?
question: Does a wide window help?
split: {folds: 2, valid: 0.25, seed: 0}
run: {init: imagenet, window: wide, augment: paper, epochs: 2, steps_per_epoch: 2, batch_size: 8, lr: 0.01}
factors: {window: [liver]}
claims:
  - {id: wide, says: A wide window helps., metric: dice_liver, factor: window, better: wide, than: liver}
"""
CELLS = 4
CELL = re.compile(r"\bf\d+ s\d+ · ")  # in the name of a cell's run, and in no parent's
PATIENCE_S = 300.0


@dataclass(frozen=True)
class State:
    """What a study has left in its folder at some moment."""

    code: int  # the command's exit code
    printed: str
    cells: dict[str, tuple[str, str]]  # name of each cell with a finished run -> (status, run id)
    statuses: list[str]  # of all runs, the parent among them
    trials: list[str]  # states
    cases: dict[str, bytes] = field(repr=False)  # cases.parquet of each finished cell
    external: dict[str, bytes] = field(repr=False)  # and of the external cohort
    weights: dict[str, bytes] = field(repr=False)  # its best checkpoint

    @property
    def table(self) -> str:
        """The verdicts as printed, without what the session was about to do and what it did."""
        return self.printed[self.printed.rindex("Does a wide window help?") : self.printed.index("report:")]


@dataclass(frozen=True)
class Folder:
    """A folder with the study file, and its own ``mlruns``."""

    path: Path
    store: Store
    external: Store

    def words(self, workers: int) -> list[str]:
        stores = self.store.directory.parents[1]
        places = ["--mlruns", str(self.path / "mlruns"), "--stores", str(stores), "--data", str(stores / "ct")]
        places += ["--external", str(self.external.directory.parents[1] / "elsewhere")]
        return ["study", str(self.path / "tiny.yaml"), "--workers", str(workers), *places]

    def here(self) -> State:
        """Run the study in this process with one worker."""
        with redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit) as end:
            main(self.words(1))
        return self.state(int(end.value.code or 0), printed.getvalue())

    def start(self, workers: int) -> subprocess.Popen[str]:
        """Start the study as a process of its own; how many threads a library would take is not ours to say there."""
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        command = [sys.executable, "-c", "from litsexp.cli.app import main; main()", *self.words(workers)]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def end(self, process: subprocess.Popen[str]) -> State:
        out, error = process.communicate(timeout=PATIENCE_S)
        return self.state(process.returncode, out + error)

    def wait_until(self, process: subprocess.Popen[str], finished: int) -> None:
        """Until so many cells have finished and another one is running beside the parent."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            statuses = [status for _, status, _ in self.runs()]
            if statuses.count("FINISHED") >= finished and statuses.count("RUNNING") >= 2:
                return
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        raise AssertionError("the study does not get on")

    def runs(self) -> list[tuple[str, str, str]]:
        """(name, status, run id) of every run, oldest first."""
        return self.rows("mlflow.db", "select name, status, run_uuid from runs order by start_time, run_uuid")

    def rows(self, database: str, query: str) -> list[Any]:
        uri = f"file:{self.path / 'mlruns' / database}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
            return connection.execute(query).fetchall()

    def state(self, code: int, printed: str) -> State:
        runs, artifacts = self.runs(), self.path / "mlruns" / "artifacts" / "tiny-ct"
        cells = {name: (status, run) for name, status, run in runs if CELL.search(name) and status == "FINISHED"}
        kept = {name: artifacts / run / "artifacts" for name, (_, run) in cells.items()}
        return State(
            code=code,
            printed=printed,
            cells=cells,
            statuses=[status for _, status, _ in runs],
            trials=[state for (state,) in self.rows("optuna.db", "select state from trials")],
            cases={name: (folder / "cases.parquet").read_bytes() for name, folder in kept.items()},
            external={
                name: file.read_bytes()
                for name, folder in kept.items()
                for file in folder.glob("external/*/cases.parquet")
            },
            weights={name: (folder / "weights.safetensors").read_bytes() for name, folder in kept.items()},
        )


@pytest.fixture(scope="module")
def new_folder(
    tmp_path_factory: pytest.TempPathFactory,
    new_places: Callable[[Path], Any],
    phantom_store: Store,
    external_store: Store,
) -> Callable[[str], Folder]:
    def make(name: str) -> Folder:
        folder = Folder(tmp_path_factory.mktemp(name), phantom_store, external_store)
        new_places(folder.path)
        (folder.path / "tiny.yaml").write_text(STUDY)
        return folder

    return make


@pytest.fixture(scope="module")
def whole(new_folder: Callable[[str], Folder]) -> State:
    """One worker, never interrupted."""
    return new_folder("whole").here()


@pytest.fixture(scope="module")
def parallel(new_folder: Callable[[str], Folder]) -> State:
    """Two workers, in another folder and other processes."""
    folder = new_folder("parallel")
    return folder.end(folder.start(workers=2))


@dataclass(frozen=True)
class History:
    """A study that was killed, then interrupted, then resumed, then run once more."""

    killed: State
    interrupted: State
    resumed: State
    again: State


@pytest.fixture(scope="module")
def history(new_folder: Callable[[str], Folder]) -> History:
    folder = new_folder("history")
    driver = folder.start(workers=1)
    folder.wait_until(driver, finished=1)
    os.kill(driver.pid, signal.SIGKILL)
    killed = folder.end(driver)
    driver = folder.start(workers=1)
    folder.wait_until(driver, finished=2)
    os.kill(driver.pid, signal.SIGINT)
    interrupted = folder.end(driver)
    return History(killed, interrupted, folder.here(), folder.here())


def test_the_study_runs_every_cell_to_verdicts(whole: State) -> None:
    assert whole.code == 0
    assert whole.statuses == ["FINISHED"] * (CELLS + 1)
    assert whole.trials == ["COMPLETE"] * CELLS
    assert len(whole.cells) == CELLS
    assert "0 runs done before, 4 to train" in whole.printed
    assert "wide: window=wide" in whole.table
    assert "liver Dice by" in whole.table
    assert "On the external cohort (elsewhere, 3 phantom patients)" in whole.table
    report = Path(whole.printed.split("report:")[1].split()[0])
    assert report.read_text().startswith("<!DOCTYPE html>")


def test_what_is_compared_is_not_trivial(whole: State) -> None:
    tables = [pd.read_parquet(io.BytesIO(content)) for content in whole.cases.values()]
    assert any((table["dice_liver"] > 0.05).all() for table in tables)
    assert len(set(whole.weights.values())) == CELLS


def test_every_run_scores_every_external_patient_and_tests_none_of_them(whole: State) -> None:
    """The cohort's patients are tested once an arm; the external ones once a run."""
    tables = {name: pd.read_parquet(io.BytesIO(content)) for name, content in whole.external.items()}
    assert len(tables) == CELLS
    assert all(list(table["case"]) == [0, 1, 2] for table in tables.values())
    assert len({table["tp_liver"].sum() for table in tables.values()}) > 1


def test_two_workers_in_another_folder_give_the_same_bytes(whole: State, parallel: State) -> None:
    assert parallel.code == 0, parallel.printed
    assert parallel.cases == whole.cases
    assert parallel.external == whole.external
    assert parallel.weights == whole.weights
    assert parallel.table == whole.table
    assert {run for _, run in parallel.cells.values()}.isdisjoint(run for _, run in whole.cells.values())


def test_a_killed_driver_leaves_its_finished_runs(history: History) -> None:
    killed = history.killed
    assert killed.code == -signal.SIGKILL
    assert sorted(killed.statuses) == ["FINISHED", "RUNNING", "RUNNING"]  # a cell done, one cut, and the parent
    assert sorted(killed.trials) == ["COMPLETE", "RUNNING"]  # the others are queued when there is room


def test_ctrl_c_says_so_and_leaves_nothing_running(history: History) -> None:
    interrupted = history.interrupted
    assert interrupted.code == 130
    assert "interrupted; finished runs are kept, and the same command goes on" in interrupted.printed
    assert "Traceback" not in interrupted.printed
    assert "1 runs done before, 3 to train" in interrupted.printed
    assert "RUNNING" not in [*interrupted.statuses, *interrupted.trials]
    assert 2 <= len(interrupted.cells) < CELLS


def test_resumed_it_equals_the_uninterrupted_one_bit_for_bit(whole: State, history: History) -> None:
    assert history.resumed.code == 0
    assert history.resumed.cases == whole.cases
    assert history.resumed.external == whole.external
    assert history.resumed.weights == whole.weights
    assert history.resumed.table == whole.table


def test_finished_runs_are_kept_and_nothing_runs_twice(history: History) -> None:
    assert history.killed.cells.items() <= history.interrupted.cells.items() <= history.resumed.cells.items()
    assert "RUNNING" not in [*history.resumed.statuses, *history.resumed.trials]
    assert history.resumed.statuses.count("FINISHED") == CELLS + 1
    assert history.resumed.trials.count("COMPLETE") == CELLS
    cut = len(history.resumed.statuses) - CELLS - 1
    assert history.resumed.statuses.count("KILLED") == cut == 2  # one by kill -9, one by Ctrl-C


def test_the_same_command_again_trains_nothing_and_shows_the_same_table(history: History) -> None:
    assert history.again.code == 0
    assert "4 runs done before, 0 to train" in history.again.printed
    assert history.again.cells == history.resumed.cells
    assert history.again.statuses == history.resumed.statuses
    assert history.again.trials == history.resumed.trials
    assert history.again.table == history.resumed.table
