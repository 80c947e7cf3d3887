"""Cells in Optuna: what is done, what is left, what a killed driver leaves, and that one driver drives."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from litsexp.spec.errors import LitsexpError
from litsexp.study.ledger import Ledger, distributions
from litsexp.study.locks import one_driver

SEARCH = {
    "design": "search",
    "factors": {"window": ["liver", "wide"], "dice_weight": [0.0, 0.5, 1.0]},
    "search": {"trials": 6, "lr": [1e-4, 1e-2]},
    "claims": [],
}
CELL = {"window": "liver", "fold": 0, "seed": 0}
OTHER = {"window": "wide", "fold": 1, "seed": 0}


@pytest.fixture
def opened(new_places: Callable[[Path], Any], tmp_path: Path, study: Callable[..., Any]) -> Callable[..., Ledger]:
    """``opened(...)``: the ledger of a study, as each new driver opens it; all on one database."""
    url = new_places(tmp_path).storage_url
    return lambda **changes: Ledger(url, "tiny", study(**changes))


def states(ledger: Ledger) -> list[str]:
    return [trial.state.name for trial in ledger.trials()]


def test_a_fixed_designs_params_are_its_levels_fold_and_seed(study: Callable[..., Any]) -> None:
    space = distributions(study(seeds=[0, 3]))
    choices = {name: list(distribution.choices) for name, distribution in space.items()}
    assert choices == {"window": ["liver", "wide"], "fold": [0, 1], "seed": [0, 3]}


def test_a_search_samples_its_factors_and_the_learning_rate(study: Callable[..., Any]) -> None:
    space = distributions(study(**SEARCH))
    assert list(space) == ["window", "dice_weight", "lr"]
    assert (space["lr"].low, space["lr"].high, space["lr"].log) == (1e-4, 1e-2, True)


def test_a_cell_waits_once(opened: Callable[..., Ledger]) -> None:
    ledger = opened()
    ledger.enqueue(CELL, "key0")
    ledger.enqueue(CELL, "key0")
    opened().enqueue(CELL, "key0")
    assert ledger.waiting() == 1


def test_cells_that_a_killed_driver_left_waiting_are_asked_for_first(opened: Callable[..., Ledger]) -> None:
    killed = opened()
    killed.enqueue(CELL, "key0")
    killed.enqueue(OTHER, "key1")
    ticket = opened().ask()
    assert (ticket.run_key, ticket.params) == ("key0", CELL)


def test_a_trial_left_running_completes_where_its_run_finished_and_fails_where_not(
    opened: Callable[..., Ledger],
) -> None:
    killed = opened()
    for params, key in [(CELL, "key0"), (OTHER, "key1")]:
        killed.enqueue(params, key)
        killed.ask()
    assert states(killed) == ["RUNNING", "RUNNING"]
    ledger = opened()
    ledger.close_interrupted({"key0": 0.75, "elsewhere": 0.5})
    assert states(ledger) == ["COMPLETE", "FAIL"]
    assert ledger.trials()[0].value == 0.75
    assert ledger.complete() == {"key0"}
    ledger.enqueue(OTHER, "key1")  # a failed cell can wait again
    assert ledger.ask().run_key == "key1"


def test_settled_counts_what_has_a_result(opened: Callable[..., Ledger]) -> None:
    ledger = opened(**SEARCH)
    tickets = [ledger.ask() for _ in range(4)]
    ledger.tell(tickets[0].number, 0.5)
    ledger.should_prune(tickets[1].number, 0, 0.1)
    ledger.tell_pruned(tickets[1].number)
    ledger.tell_failed(tickets[2].number)
    assert states(ledger) == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert ledger.settled() == 2


def test_an_interrupted_sample_is_run_again_as_it_was(opened: Callable[..., Ledger]) -> None:
    killed = opened(**SEARCH)
    done, cut = killed.ask(), killed.ask()
    killed.tell(done.number, 0.5)
    ledger = opened(**SEARCH)
    ledger.close_interrupted({})
    ledger.enqueue_interrupted_samples()
    ledger.enqueue_interrupted_samples()
    assert ledger.waiting() == 1
    again = ledger.ask()
    assert again.params == cut.params
    ledger.tell(again.number, 0.25)
    later = opened(**SEARCH)
    later.enqueue_interrupted_samples()  # settled by the second attempt
    assert later.waiting() == 0


def test_a_resumed_search_does_not_draw_its_first_samples_again(opened: Callable[..., Ledger]) -> None:
    first = opened(**SEARCH)
    drawn = []
    for _ in range(3):
        ticket = first.ask()
        first.tell(ticket.number, 0.5)
        drawn.append(ticket.params)
    resumed = opened(**SEARCH)
    rates = {params["lr"] for params in drawn}
    assert len(rates) == 3
    assert resumed.ask().params["lr"] not in rates


def test_a_search_repeats_from_its_seed(opened: Callable[..., Ledger], study: Callable[..., Any]) -> None:
    here = [opened(**SEARCH).ask().params]
    elsewhere = Ledger("sqlite://", "elsewhere", study(**SEARCH))
    other_seed = Ledger("sqlite://", "elsewhere", study(**SEARCH, seeds=[1]))
    assert [elsewhere.ask().params] == here
    assert [other_seed.ask().params] != here


def test_the_median_pruner_gives_up_what_lags_after_the_first_trials(opened: Callable[..., Ledger]) -> None:
    ledger = opened(**SEARCH)
    for _ in range(4):
        ticket = ledger.ask()
        assert not any(ledger.should_prune(ticket.number, epoch, 0.5) for epoch in range(3))
        ledger.tell(ticket.number, 0.5)
    lagging, leading = ledger.ask(), ledger.ask()
    assert not ledger.should_prune(lagging.number, 0, 0.1)  # the first epoch says little
    assert ledger.should_prune(lagging.number, 1, 0.1)
    assert not ledger.should_prune(leading.number, 1, 0.6)
    ledger.tell_pruned(lagging.number)
    assert ledger.trials()[lagging.number].state == TrialState.PRUNED


DRIVER = """
import sys, time
from pathlib import Path
from litsexp.study.locks import one_driver
with one_driver(sys.argv[1], "tiny", Path("unused")):
    print("driving", flush=True)
    time.sleep(60)
"""


def test_one_driver_at_a_time_and_a_killed_one_frees_the_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    other = subprocess.Popen([sys.executable, "-c", DRIVER, url], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "driving\n"
        with pytest.raises(LitsexpError) as caught, one_driver(url, "tiny", tmp_path):
            pass
        message = str(caught.value)
        assert f"process {other.pid} on " in message
        assert "tiny" in message
        assert "\n" not in message
        with one_driver(url, "another", tmp_path):  # another study is nobody's
            pass
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.communicate()
    with one_driver(url, "tiny", tmp_path):
        assert str(os.getpid()) in (tmp_path / "tiny.driver.json").read_text()
    assert not (tmp_path / "tiny.driver.json").exists()


def test_another_databases_lock_lies_in_the_fallback_folder(tmp_path: Path) -> None:
    with one_driver("mysql://host/optuna", "tiny", tmp_path / "mlruns"):
        assert (tmp_path / "mlruns" / "tiny.lock").exists()


@pytest.mark.parametrize("url", ["nonsense", "nodialect:///x.db", "sqlite:////no/such/folder/optuna.db"])
def test_a_database_that_cannot_be_opened_is_named(url: str, study: Callable[..., Any]) -> None:
    with pytest.raises(LitsexpError, match=f"^--storage {url}: cannot be opened .*; expected a database URL"):
        Ledger(url, "tiny", study())


def test_a_database_of_another_version_of_optuna_is_refused(
    new_places: Callable[[Path], Any], tmp_path: Path, study: Any
) -> None:
    url = new_places(tmp_path).storage_url
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v9.9.9.a'")
        database.execute("UPDATE version_info SET schema_version = 99")
    with pytest.raises(
        LitsexpError, match=r"found the tables of another version of Optuna; expected .*; upgrade one: "
    ):
        Ledger(url, "tiny", study())


def test_a_lock_beside_no_database_is_refused_too(tmp_path: Path) -> None:
    with (
        pytest.raises(LitsexpError, match=r"^--storage nonsense: cannot be opened"),
        one_driver("nonsense", "tiny", tmp_path),
    ):
        pass
