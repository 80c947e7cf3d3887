"""The driver: what runs, what is kept, what is put right; every cell ends at once here."""

import os
from pathlib import Path
from typing import Any

import pytest

from litsexp.spec.design import cells, design_digest
from litsexp.spec.errors import LitsexpError
from litsexp.study.jobs import Job, Outcome
from litsexp.study.ledger import Ledger, params_of
from litsexp.study.places import Places

ALL = ["baseline · fold 0", "window=wide · fold 0", "baseline · fold 1", "window=wide · fold 1"]
ALL = [f"{name} · seed 0" for name in ALL]


def failing(*names: str) -> Any:
    def behave(job: Job, _: Any) -> Outcome | None:
        return Outcome("failed", reason="no luck", detail="Traceback") if job.cell.name in names else None

    return behave


def test_every_cell_runs_once_and_the_same_command_runs_nothing(bench: Any, study: Any) -> None:
    session, plan = bench.run(study())
    assert plan == (0, 4)
    assert bench.executor.ran == ALL
    assert bench.statuses() == [(name, "FINISHED") for name in ALL]
    assert bench.trial_states(study()) == ["COMPLETE"] * 4
    assert len(session.trained_s) == 4
    session, plan = bench.run(study())
    assert plan == (4, 0)
    assert bench.executor.ran == ALL
    assert session.trained_s == []
    assert len(bench.statuses()) == len(bench.trial_states(study())) == 4


def test_a_cell_that_fails_is_told_and_the_study_goes_on(bench: Any, study: Any) -> None:
    bench.executor.behave = failing(ALL[1])
    session, _ = bench.run(study())
    assert bench.executor.ran == ALL
    assert {cell.name: outcome.reason for cell, outcome in session.failures.items()} == {ALL[1]: "no luck"}
    assert dict(bench.statuses())[ALL[1]] == "FAILED"
    assert sorted(bench.trial_states(study())) == ["COMPLETE"] * 3 + ["FAIL"]


def test_the_same_command_runs_the_failed_cell_again_and_no_other(bench: Any, study: Any) -> None:
    bench.executor.behave = failing(ALL[1])
    bench.run(study())
    bench.executor.behave = failing()
    session, plan = bench.run(study())
    assert plan == (3, 1)
    assert bench.executor.ran == [*ALL, ALL[1]]
    assert session.failures == {}
    assert sorted(bench.trial_states(study())) == ["COMPLETE"] * 4 + ["FAIL"]
    attempts = [
        run.data.tags for run in bench.tracking().runs() if run.info.run_name == "phantom · f0 s00 · window=wide"
    ]
    assert [(tags["attempt"], tags.get("superseded")) for tags in attempts] == [("1", "true"), ("2", None)]


def test_what_a_killed_driver_left_is_put_right(bench: Any, study: Any) -> None:
    """One cell had finished but its trial not been told, one was running, two were waiting."""
    asked = study()
    ledger, tracking = bench.ledger(asked), bench.tracking()
    keyed = {cell.run_key(asked.split, bench.store.fingerprint): cell for cell in cells(asked)}
    digest = design_digest(asked, bench.store.fingerprint)
    parent = tracking.open_parent(asked, digest, bench.name, (), {})
    for key, cell in keyed.items():
        ledger.enqueue(params_of(cell, asked), key)
    runs = []
    for _ in range(2):
        ticket = ledger.ask()
        runs.append(tracking.start_cell(keyed[ticket.run_key], ticket.run_key, parent, {}))
    tracking.client.log_metric(runs[0], "best/score", 0.25)
    tracking.end(runs[0], "FINISHED")

    _, plan = bench.run(asked)
    assert plan == (1, 3)
    assert sorted(bench.executor.ran) == sorted(ALL[1:])
    found = bench.tracking().finished()
    assert found.keys() == keyed.keys()
    assert runs[0] in {run.info.run_id for run in found.values()}  # kept
    assert tracking.client.get_run(runs[1]).info.status == "KILLED"
    assert sorted(bench.trial_states(asked)) == ["COMPLETE"] * 4 + ["FAIL"]
    assert bench.ledger(asked).trials()[0].value == 0.25


def test_ctrl_c_closes_the_running_cell_and_keeps_the_finished(bench: Any, study: Any) -> None:
    def third_is_interrupted(job: Job, _: Any) -> None:
        if job.cell.name == ALL[2]:
            raise KeyboardInterrupt

    bench.executor.behave = third_is_interrupted
    with pytest.raises(KeyboardInterrupt):
        bench.run(study())
    assert bench.statuses() == [(ALL[0], "FINISHED"), (ALL[1], "FINISHED"), (ALL[2], "KILLED")]
    assert sorted(bench.trial_states(study())) == ["COMPLETE", "COMPLETE", "FAIL"]
    parent = next(run for run in bench.tracking().runs() if "claims_preregistered" in run.data.tags)
    assert parent.info.status == "KILLED"
    bench.executor.behave = failing()
    bench.run(study())
    assert bench.executor.ran == [*ALL[:3], *ALL[2:]]


def test_a_cell_that_finished_while_ctrl_c_came_is_kept(bench: Any, study: Any) -> None:
    def ends_unheard(job: Job, _: Any) -> None:
        client = bench.tracking().client
        client.log_metric(job.run_id, "best/score", 0.5)
        client.set_terminated(job.run_id, "FINISHED")
        raise KeyboardInterrupt

    bench.executor.behave = ends_unheard
    with pytest.raises(KeyboardInterrupt):
        bench.run(study())
    assert bench.statuses() == [(ALL[0], "FINISHED")]
    bench.executor.behave = failing()
    bench.run(study())
    assert bench.executor.ran.count(ALL[0]) == 1


def test_a_deleted_run_is_trained_again(bench: Any, study: Any) -> None:
    bench.run(study())
    run = next(run for run in bench.tracking().runs() if run.info.run_name == "phantom · f0 s00 · baseline")
    bench.tracking().client.delete_run(run.info.run_id)
    _, plan = bench.run(study())
    assert plan == (3, 1)
    assert bench.executor.ran == [*ALL, ALL[0]]


def test_a_finished_run_whose_trial_is_lost_is_not_trained_again(bench: Any, study: Any) -> None:
    bench.run(study())
    (bench.places.root / "optuna.db").unlink()
    _, plan = bench.run(study())
    assert plan == (4, 0)
    assert bench.executor.ran == ALL
    assert bench.trial_states(study()) == ["COMPLETE"] * 4


def test_a_second_driver_is_refused_and_changes_nothing(bench: Any, study: Any) -> None:
    with bench.open(study()) as session:
        with pytest.raises(LitsexpError, match=f"process {os.getpid()} on .* is running it"), bench.open(study()):
            pass
        assert session.tracking.client.get_run(session.parent.run_id).info.status == "RUNNING"


def test_a_new_level_runs_its_new_cells_only(bench: Any, study: Any) -> None:
    bench.run(study())
    more = study(factors={"window": ["wide", "custom"]})
    session, plan = bench.run(more)
    assert plan == (4, 2)
    assert bench.executor.ran[4:] == [f"window=custom · fold {fold} · seed 0" for fold in range(2)]
    results = session.results()
    assert results.cases.groupby(["arm", "fold"]).ngroups == 6
    assert bench.trial_states(more) == ["COMPLETE"] * 6


def test_a_claim_about_adopted_runs_counts_only_if_it_was_fixed_before_them(bench: Any, study: Any) -> None:
    claim = study().claims[0].model_dump()
    later = {**claim, "id": "later", "metric": "dice_liver"}
    bench.run(study())
    more = study(factors={"window": ["wide", "custom"]}, claims=[claim, later])
    session, _ = bench.run(more)
    assert session.parent.preregistered == {"wider": study().claims[0].digest}
    assert more.claims[1].digest not in session.parent.preregistered.values()


def test_with_no_run_to_adopt_every_claim_is_fixed_beforehand(bench: Any, study: Any) -> None:
    bench.run(study())
    other = study(seeds=[5])
    session, plan = bench.run(other)
    assert plan == (0, 4)
    assert session.parent.preregistered == {"wider": other.claims[0].digest}


def test_rewording_keeps_the_study_and_a_changed_claim_is_post_hoc(bench: Any, study: Any) -> None:
    first, _ = bench.run(study())
    claim = {**study().claims[0].model_dump(), "margin": 0.3}
    changed = study(question="Reworded?", claims=[claim])
    session, plan = bench.run(changed)
    assert plan == (4, 0)
    assert session.parent == first.parent
    assert session.parent.preregistered["wider"] != changed.claims[0].digest


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": [1]},
        {"split": {"folds": 3}},
        {"factors": {"augment": ["paper"]}},
        {"run": {"augment": "none", "epochs": 9}},
    ],
)
def test_the_design_digest_changes_with_what_runs(study: Any, changes: dict[str, Any]) -> None:
    base = {"run": {"augment": "none"}, "factors": {"augment": ["paper"], "init": ["scratch"]}, "claims": []}
    assert design_digest(study(**{**base, **changes}), "f") != design_digest(study(**base), "f")
    assert design_digest(study(**base), "f") != design_digest(study(**base), "g")


def test_a_claim_that_can_no_longer_be_answered_ends_the_study_in_one_line(bench: Any, study: Any) -> None:
    bench.executor.behave = failing(ALL[1], ALL[2])
    with pytest.raises(LitsexpError, match=r"^claim wider can no longer be answered: no pair of its runs") as e:
        bench.run(study())
    assert "no luck; mend that, and the same command goes on" in str(e.value)
    assert "\n" not in str(e.value)
    assert bench.executor.ran == ALL[:3]  # the fourth would answer nothing
    assert "RUNNING" not in [status for _, status in bench.statuses()]
    bench.executor.behave = failing()
    _, plan = bench.run(study())
    assert plan == (1, 3)


def test_every_run_says_of_which_patients_it_is(bench: Any, study: Any) -> None:
    bench.run(study(data={"patients": 6, "seed": 2}))
    runs = bench.tracking().runs()
    assert len(runs) == 5
    for run in runs:
        assert run.data.tags["cohort"] == "phantom, 6 patients, seed 2"
        assert run.data.tags["phantom"] == "true"


def test_a_driver_that_breaks_leaves_its_reason_on_the_parent(bench: Any, study: Any) -> None:
    with pytest.raises(ZeroDivisionError), bench.open(study()) as session:
        raise ZeroDivisionError("by\nzero")
    run = session.tracking.client.get_run(session.parent.run_id)
    assert (run.info.status, run.data.tags["reason"]) == ("FAILED", "by zero")


def test_places_are_absolute_and_not_made_before_they_are_needed(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    places = Places.below(Path("mlruns"))
    assert places.tracking_uri == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert places.storage_url == f"sqlite:///{tmp_path}/mlruns/optuna.db"
    assert not places.root.exists()


def test_named_arms_that_change_no_factor_are_trials_of_their_own(bench: Any, study: Any) -> None:
    named = {"longer": {"steps_per_epoch": 5}, "longest": {"steps_per_epoch": 9}}
    asked = study(arms=named)
    _, plan = bench.run(asked)
    assert plan == (0, 8)
    params = [trial.params for trial in bench.ledger(asked).trials()]
    assert {trial["arm"] for trial in params} == {"baseline", "window=wide", "longer", "longest"}
    assert len({tuple(trial.items()) for trial in params}) == 8
    assert bench.run(asked)[1] == (8, 0)


def test_a_cell_is_queued_when_there_is_room_for_it(bench: Any, study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna reads every trial that waits whenever it is asked: with all queued at once a cell costs more the more."""
    waiting: list[int] = []
    ask = Ledger.ask

    def counted(self: Ledger) -> Any:
        waiting.append(self.waiting())
        return ask(self)

    monkeypatch.setattr(Ledger, "ask", counted)
    asked = study()
    bench.run(asked)
    assert waiting == [1] * len(cells(asked))


def test_what_a_killed_driver_left_waiting_runs_once(bench: Any, study: Any) -> None:
    asked = study()
    ledger = bench.ledger(asked)
    for cell in reversed(cells(asked)):  # as an earlier version left them, in whatever order
        ledger.enqueue(params_of(cell, asked), cell.run_key(asked.split, bench.store.fingerprint))
    ledger.enqueue(params_of(cells(asked)[0], asked), "of another version")
    session, plan = bench.run(asked)
    assert plan == (0, len(cells(asked)))
    assert len(session.trained_s) == len(cells(asked))
    assert len(session.tracking.finished()) == len(cells(asked)) == len(session.tracking.runs("tags.run_key LIKE '%'"))
    assert session.ledger.waiting() == 0
