"""A search through the driver: samples, interruptions, the pruner; every cell ends at once here."""

from typing import Any

import pytest

from litsexp.spec.design import Cell, arm_of
from litsexp.study.jobs import Job, Outcome

SEARCH = {
    "design": "search",
    "factors": {"window": ["liver", "wide"]},
    "search": {"trials": 3, "lr": [1e-4, 1e-2]},
    "claims": [],
}


def test_a_search_samples_runs_and_adopts(bench: Any, study: Any) -> None:
    asked = study(**SEARCH)
    session, plan = bench.run(asked)
    assert plan == (0, 3)
    assert len(bench.executor.ran) == 3
    table = session.trials()
    assert list(table["state"]) == ["COMPLETE"] * 3
    assert {"window", "lr", "valid/score"} <= set(table.columns)
    session, plan = bench.run(asked)
    assert plan == (3, 0)
    assert len(bench.executor.ran) == 3
    assert session.results().cases.groupby("arm").ngroups == 3


def test_an_interrupted_search_runs_its_sample_again_and_then_fresh_ones(bench: Any, study: Any) -> None:
    asked, jobs = study(**SEARCH), []

    def second_is_interrupted(job: Job, _: Any) -> None:
        jobs.append(job)
        if len(jobs) == 2:
            raise KeyboardInterrupt

    bench.executor.behave = second_is_interrupted
    with pytest.raises(KeyboardInterrupt):
        bench.run(asked)
    _, plan = bench.run(asked)
    assert plan == (1, 2)
    assert [job.run_key for job in jobs[1:3]] == [jobs[1].run_key] * 2
    assert len({job.run_key for job in jobs}) == 3
    assert sorted(bench.trial_states(asked)) == ["COMPLETE"] * 3 + ["FAIL"]


def test_a_searchs_run_that_finished_unheard_is_in_the_results(bench: Any, study: Any) -> None:
    """The driver was killed between the run's end and telling the trial."""
    asked = study(**SEARCH)
    session, _ = bench.run(asked)
    ledger, tracking = bench.ledger(asked), bench.tracking()
    ticket = ledger.ask()
    cell = Cell(arm_of(asked, ticket.params), 0, 0)
    key = cell.run_key(asked.split, bench.store.fingerprint)
    ledger.name(ticket.number, key)
    run = tracking.start_cell(cell, key, session.parent, {})
    tracking.client.log_metric(run, "best/score", 0.5)
    tracking.end(run, "FINISHED")
    with bench.open(asked) as session:
        assert key in session.cells
        assert len(session.cells) == 4


def test_the_pruner_stops_a_searchs_run_and_never_a_fixed_designs(bench: Any, study: Any) -> None:
    answers = []

    def asks(job: Job, on_epoch: Any) -> Outcome | None:
        score = 0.5 if len(answers) < 4 else 0.1
        goes_on = all(on_epoch(job, epoch, {"valid/score": score}) for epoch in range(3))
        answers.append(goes_on)
        if goes_on:
            return None
        client = bench.tracking().client
        client.set_tag(job.run_id, "pruned", "true")
        client.set_terminated(job.run_id, "FINISHED")
        return Outcome("pruned", score)

    bench.executor.behave = asks
    asked = study(**{**SEARCH, "search": {"trials": 5}})
    session, _ = bench.run(asked)
    assert answers == [True] * 4 + [False]
    assert bench.trial_states(asked) == ["COMPLETE"] * 4 + ["PRUNED"]
    assert session.results().cases.groupby("arm").ngroups == 4  # a pruned run has no test score
    _, plan = bench.run(asked)
    assert plan == (4, 0)
    bench.name = "fixed"
    bench.run(study(seeds=[0, 1, 2]))
    assert all(answers[5:])
