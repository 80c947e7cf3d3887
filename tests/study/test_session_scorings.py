"""The driver: what finished runs are scored on, and that nothing is trained for it."""

import dataclasses
from contextlib import nullcontext
from typing import Any

import pytest

from litsexp.data.store import Store
from litsexp.evaluation.truths import NativeCohort
from litsexp.pipeline import run_study
from litsexp.spec.cohort import DataConfig
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study.jobs import Job, Outcome

from .conftest import Quiet, finish
from .test_session import ALL, failing


def test_an_external_cohort_on_a_finished_study_trains_nothing_and_scores_every_run(
    bench: Any, study: Any, external_store: Any
) -> None:
    plain, plan = bench.run(study())
    assert plan == (0, 4)
    bench.external = external_store
    asked = study(external={"patients": 3, "seed": 9})
    session, plan = bench.run(asked)
    assert plan == (4, 0)
    assert bench.executor.ran == ALL  # nothing new
    assert bench.executor.scored == ALL
    assert (session.digest, session.cells.keys()) == (plain.digest, plain.cells.keys())
    assert session.trained_s == []
    bench.run(asked)
    assert bench.executor.scored == ALL  # once is enough


def test_a_new_cell_is_scored_on_all_cohorts_in_one_job(bench: Any, study: Any, external_store: Any) -> None:
    jobs: list[Job] = []
    bench.executor.behave = lambda job, _: jobs.append(job)
    bench.external = external_store
    bench.run(study(external={"patients": 3, "seed": 9}))
    assert [[scoring.kind for scoring in job.scorings] for job in jobs] == [["test", "external"]] * 4
    assert {scoring.store for job in jobs for scoring in job.scorings[1:]} == {external_store.directory}
    assert len({scoring.key for job in jobs for scoring in job.scorings}) == 8


def test_whole_volumes_of_finished_runs_are_scored_later_and_once(
    bench: Any, study: Any, phantom_store: Store, tmp_path: Any
) -> None:
    bench.run(study())
    root = phantom_store.directory.parents[1]
    cohort = DataConfig(cohort=str(root / "ct"), size=phantom_store.size)
    bench.native = NativeCohort.of(cohort, tmp_path, lambda _: nullcontext())
    jobs: list[Job] = []
    bench.executor.behave = lambda job, _: jobs.append(job)
    observer = Quiet()
    with bench.open(study()) as session:
        session.run(bench.executor, observer, train=False)
        assert len(session.results().native) == 2 * len(phantom_store.cases)
    assert observer.plan == (4, 0) and observer.to_score == 4
    assert bench.executor.ran == bench.executor.scored == ALL
    (scoring,) = jobs[0].scorings
    assert (scoring.kind, scoring.fingerprint) == ("native", bench.native.fingerprint)
    assert scoring.folder == f"native/{scoring.key}" and sorted(scoring.truths) == phantom_store.cases
    again = NativeCohort.of(cohort, tmp_path / "elsewhere", lambda _: nullcontext())
    assert again.fingerprint == bench.native.fingerprint and again.store.directory != scoring.store
    bench.native = again  # the same volumes: nothing is scored again
    bench.run(study())
    assert bench.executor.scored == ALL


def test_without_training_what_is_not_trained_stays_so(bench: Any, study: Any) -> None:
    bench.executor.behave = failing("baseline · fold 0 · seed 0")
    bench.run(study())
    bench.executor.behave = failing()
    with bench.open(study()) as session:
        session.run(bench.executor, Quiet(), train=False)
    assert len(bench.executor.ran) == 4 and bench.executor.scored == []


def test_a_leaking_study_has_no_whole_volumes() -> None:
    asked = {"question": "?", "design": "ablation", "split": {"folds": 2, "unit": "slice"}, "factors": {"lr": [0.1]}}
    with pytest.raises(LitsexpError, match="native resolution: found a study in which an arm leaks"):
        run_study(StudyConfig.model_validate(asked), native=True)


def test_a_scoring_that_fails_leaves_the_run_finished_and_is_done_again(
    bench: Any, study: Any, external_store: Any
) -> None:
    def external_fails(job: Job, _: Any) -> Outcome:
        finish(dataclasses.replace(job, scorings=job.scorings[:1]), bench.tracking().client, bench.places.root / "tmp")
        return Outcome("unscored", 0.5, "no luck")

    bench.external, bench.executor.behave = external_store, external_fails
    asked = study(external={"patients": 3, "seed": 9})
    session, _ = bench.run(asked)
    assert {outcome.reason for outcome in session.failures.values()} == {"no luck"}
    assert bench.statuses() == [(name, "FINISHED") for name in ALL]
    assert bench.trial_states(asked) == ["COMPLETE"] * 4
    bench.executor.behave = failing()
    session, plan = bench.run(asked)
    assert plan == (4, 0)
    assert bench.executor.scored == ALL
    assert len(session.results().external) == 4 * len(external_store.cases)


def test_an_external_cohort_without_its_store_is_a_mistake_and_so_is_the_mirror(
    bench: Any, study: Any, external_store: Any
) -> None:
    with pytest.raises(ValueError, match="expected both or neither"), bench.open(study(external={"seed": 9})):
        pass
    bench.external = external_store
    with pytest.raises(ValueError, match="expected both or neither"), bench.open(study()):
        pass


def test_a_claim_about_training_patients_has_every_run_score_them_once(bench: Any, study: Any) -> None:
    plain, _ = bench.run(study())
    claim = {**study().claims[0].model_dump(), "id": "gap", "metric": "gap:dice_liver"}
    asked = study(claims=[claim])
    session, plan = bench.run(asked)
    assert (plan, session.digest, bench.executor.ran, bench.executor.scored) == ((4, 0), plain.digest, ALL, ALL)
    assert plain.results().train.empty and len(session.results().train)
    bench.run(asked)
    assert bench.executor.scored == ALL


LEAK = {"factors": {"split_unit": ["slice"]}, "claims": []}


def test_where_an_arm_leaks_every_arm_is_scored_on_the_held_out_slices_and_mlflow_says_which_leak(
    bench: Any, study: Any
) -> None:
    """The honest runs of an earlier study are kept; they are only scored again."""
    bench.run(study())
    session, plan = bench.run(study(**LEAK))
    assert plan == (2, 2)
    assert bench.executor.ran[4:] == ["split_unit=slice · fold 0 · seed 0", "split_unit=slice · fold 1 · seed 0"]
    assert bench.executor.scored == [ALL[0], ALL[2]]
    assert all(scoring.held_out for key in session.cells for scoring in session._scorings(key))
    runs = {run.info.run_name: run.data.tags.get("leaks") for run in bench.tracking().runs()}
    assert [name for name, leaks in runs.items() if leaks == "true"] == [
        f"phantom · leaks · {bench.name}-{session.digest[:8]}",
        "phantom · leaks · f0 s00 · split_unit=slice",
        "phantom · leaks · f1 s00 · split_unit=slice",
    ]
    assert set(runs.values()) == {"true", None}
    session, plan = bench.run(study())  # and the other way round: nothing is done twice
    assert plan == (4, 0)
    assert len(bench.executor.scored) == 2
    assert not any(scoring.held_out for key in session.cells for scoring in session._scorings(key))
