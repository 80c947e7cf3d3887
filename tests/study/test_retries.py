"""A cell whose worker died is run again in the same session; one that failed by itself is not."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import SearchConfig
from litsexp.study.jobs import Job, Outcome
from litsexp.study.observer import Observer

from .conftest import finish

NAMES = [f"{arm} · fold {fold} · seed 0" for fold in (0, 1) for arm in ("baseline", "window=wide")]


class Watching:
    """An observer that writes down what it sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def planned(self, done: Any, left: int, to_score: int) -> None: ...

    def started(self, cell: Any) -> None:
        self.seen.append(("started", cell.name))

    def epoch(self, cell: Any, epoch: int, metrics: Any) -> None: ...

    def ended(self, cell: Any, outcome: Outcome) -> None:
        self.seen.append((outcome.status, cell.name))


def dying(times: dict[str, int], died: bool = True) -> Any:
    """These cells fail so often."""
    left = Counter(times)

    def behave(job: Job, _: Any) -> Outcome | None:
        left[job.cell.name] -= 1
        return Outcome("failed", reason="it died", died=died) if left[job.cell.name] >= 0 else None

    return behave


def run(bench: Any, study: Any, retries: int, observer: Observer | None = None) -> Any:
    with bench.open(study) as session:
        session.run(bench.executor, observer or Watching(), retries=retries)
    return session


def test_a_cell_whose_worker_died_runs_again_as_a_run_of_its_own_when_the_others_have_ended(
    bench: Any, study: Any
) -> None:
    bench.executor.behave, watching = dying({NAMES[0]: 2, NAMES[1]: 1}), Watching()
    session = run(bench, study(), 2, watching)
    assert bench.executor.ran == [*NAMES, NAMES[0], NAMES[1], NAMES[0]]
    assert session.failures == {}
    assert Counter(bench.statuses()) == Counter(
        {**{(name, "FINISHED"): 1 for name in NAMES}, (NAMES[0], "FAILED"): 2, (NAMES[1], "FAILED"): 1}
    )
    tags = [run.data.tags for run in bench.tracking().runs() if run.data.params.get("arm") == "baseline"]
    first = [(tag["attempt"], tag.get("superseded")) for tag in tags if tag["run_key"] == tags[0]["run_key"]]
    assert first == [("1", "true"), ("2", "true"), ("3", None)]
    assert Counter(bench.trial_states(study())) == {"COMPLETE": 4, "FAIL": 3}
    assert [what for what, name in watching.seen if name == NAMES[0]] == ["started", "failed"] * 2 + [
        "started",
        "finished",
    ]
    bench.executor.ran.clear()
    run(bench, study(), 2)
    assert bench.executor.ran == []


def test_one_that_dies_too_often_has_failed(bench: Any, study: Any) -> None:
    bench.executor.behave = dying({NAMES[0]: 9})
    session = run(bench, study(), 1)
    assert bench.executor.ran == [*NAMES, NAMES[0]]
    assert {cell.name: outcome.reason for cell, outcome in session.failures.items()} == {NAMES[0]: "it died"}


@pytest.mark.parametrize(("retries", "died"), [(0, True), (3, False)])
def test_without_retries_or_for_an_exception_nothing_runs_again(
    bench: Any, study: Any, retries: int, died: bool
) -> None:
    bench.executor.behave = dying({NAMES[0]: 1}, died)
    session = run(bench, study(), retries)
    assert bench.executor.ran == NAMES
    assert len(session.failures) == 1


def test_a_claim_counts_as_lost_only_when_nothing_is_left_to_try(bench: Any, study: Any) -> None:
    everywhere = {NAMES[0]: 1, NAMES[2]: 1}
    bench.executor.behave = dying(everywhere)
    assert run(bench, study(), 1).failures == {}
    bench.executor.behave = dying({name.replace("seed 0", "seed 5"): 9 for name in NAMES})
    with pytest.raises(LitsexpError, match="claim wider can no longer be answered"):
        run(bench, study(seeds=[5]), 1)


def test_a_search_tries_the_very_sample_again(bench: Any, study: Any) -> None:
    asked = study(factors={"window": ["wide"]}, claims=[], design="search", search={"trials": 3, "lr": [1e-4, 1e-2]})
    assert isinstance(asked.search, SearchConfig)
    once: list[str] = []

    def behave(job: Job, _: Any) -> Outcome | None:
        once.append(job.run_key)
        return Outcome("failed", reason="it died", died=True) if len(once) == 2 else None

    bench.executor.behave = behave
    assert run(bench, asked, 1).failures == {}
    assert len(once) == 4
    assert once[3] == once[1]
    trials = bench.ledger(asked).trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[3].params == trials[1].params
    bench.executor.behave = lambda *_: None
    run(bench, asked, 1)
    assert len(bench.ledger(asked).trials()) == 4


def test_a_scoring_whose_worker_died_is_done_again_and_trains_nothing(bench: Any, study: Any) -> None:
    run(bench, study(), 0)
    claim = {"id": "gap", "says": "It overfits.", "metric": "gap:dice_liver", "factor": "window"}
    grown = study(claims=[{**claim, "better": "wide", "than": "liver"}])
    bench.executor.behave = dying({NAMES[0]: 1})
    session = run(bench, grown, 1)
    assert bench.executor.scored == [*NAMES, NAMES[0]]
    assert bench.executor.ran == NAMES
    assert session.failures == {}
    assert session.results().train["arm"].nunique() == 2


@pytest.mark.parametrize("retries", [0, 1])
def test_a_worker_that_died_after_its_run_had_finished_has_lost_nothing(bench: Any, study: Any, retries: int) -> None:
    def behave(job: Job, _: Any) -> Outcome | None:
        if job.cell.name != NAMES[0]:
            return None
        finish(job, bench.tracking().client, bench.places.root / "tmp")
        return Outcome("failed", reason="it died", died=True)

    bench.executor.behave = behave
    session = run(bench, study(), retries)
    assert bench.executor.ran == NAMES and session.failures == {}
    assert Counter(bench.statuses()) == {(name, "FINISHED"): 1 for name in NAMES}
    assert Counter(bench.trial_states(study())) == {"COMPLETE": 4}


@pytest.mark.parametrize("retries", [0, 1])
def test_one_that_died_between_two_scorings_lacks_the_second_alone(bench: Any, study: Any, retries: int) -> None:
    claim = {"id": "gap", "says": "It overfits.", "metric": "gap:dice_liver", "factor": "window"}
    asked = study(claims=[{**claim, "better": "wide", "than": "liver"}])

    def behave(job: Job, _: Any) -> Outcome | None:
        if job.cell.name != NAMES[0] or job.trained:
            return None
        finish(replace(job, scorings=job.scorings[:1]), bench.tracking().client, bench.places.root / "tmp")
        return Outcome("failed", reason="it died", died=True)

    bench.executor.behave = behave
    session = run(bench, asked, retries)
    assert bench.executor.ran == NAMES
    assert [outcome.status for outcome in session.failures.values()] == ["unscored"] * (1 - retries)
    assert bench.executor.scored == NAMES[:1] * retries
    run(bench, asked, 0)
    assert bench.executor.ran == NAMES and bench.executor.scored == NAMES[:1]
    assert Counter(bench.statuses()) == {(name, "FINISHED"): 1 for name in NAMES}
    assert Counter(bench.trial_states(asked)) == {"COMPLETE": 4}
