"""Runs in MLflow: parents with their claims, attempts, what a killed driver leaves, and reading results back."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from litsexp.spec.design import cells, design_digest
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study.jobs import Job, Outcome
from litsexp.study.tracking import Tracking, to_yaml
from litsexp.study.versions import git_commit, versions

FINGERPRINT = "0123456789abcdef"


def keyed(study: StudyConfig) -> dict[str, Any]:
    return {cell.run_key(study.split, FINGERPRINT): cell for cell in cells(study)}


def parent_of(tracking: Tracking, study: StudyConfig, donors: Any = ()) -> Any:
    return tracking.open_parent(study, design_digest(study, FINGERPRINT), "tiny", donors, {})


def test_the_parent_holds_question_claims_and_the_whole_study(bench: Any, study: Any) -> None:
    tracking, asked = bench.tracking(), study()
    parent = parent_of(tracking, asked)
    run = tracking.client.get_run(parent.run_id)
    assert run.info.status == "RUNNING"
    assert asked.question in run.data.tags["mlflow.note.content"]
    assert parent.preregistered == {"wider": asked.claims[0].digest}
    saved = yaml.safe_load(tracking.artifact(parent.run_id, "study.yaml"))
    assert StudyConfig.model_validate(saved) == asked
    assert to_yaml(asked) == to_yaml(StudyConfig.model_validate(saved))


def test_opening_it_again_keeps_the_parent_and_the_claims_it_began_with(bench: Any, study: Any) -> None:
    tracking, asked = bench.tracking(), study()
    first = parent_of(tracking, asked)
    reworded = {**asked.claims[0].model_dump(), "margin": 0.5}
    second = parent_of(bench.tracking(), study(claims=[reworded], question="Another wording?"))
    assert second == first
    assert second.preregistered["wider"] != StudyConfig.model_validate(study(claims=[reworded])).claims[0].digest


def test_a_cells_run_names_its_parent_and_every_setting(bench: Any, study: Any) -> None:
    tracking, asked = bench.tracking(), study()
    parent = parent_of(tracking, asked)
    key, cell = list(keyed(asked).items())[1]
    run = tracking.client.get_run(tracking.start_cell(cell, key, parent, {"study_digest": "d"}))
    assert run.info.status == "RUNNING"
    assert run.data.tags[MLFLOW_PARENT_RUN_ID] == parent.run_id
    assert (run.data.tags["run_key"], run.data.tags["attempt"]) == (key, "1")
    wanted = {"arm": "window=wide", "window": "wide", "init": "scratch", "fold": "0", "seed": "0"}
    assert wanted.items() <= run.data.params.items()
    assert asked.run.model_dump().keys() <= run.data.params.keys()


def test_a_later_attempt_supersedes_the_earlier_ones(bench: Any, study: Any) -> None:
    tracking, asked = bench.tracking(), study()
    parent = parent_of(tracking, asked)
    key, cell = next(iter(keyed(asked).items()))
    runs = [tracking.start_cell(cell, key, parent, {}) for _ in range(3)]
    tags = [tracking.client.get_run(run).data.tags for run in runs]
    assert [tag["attempt"] for tag in tags] == ["1", "2", "3"]
    assert [tag.get("superseded") for tag in tags] == ["true", "true", None]


def test_only_this_parents_running_cells_are_closed_as_killed(bench: Any, study: Any) -> None:
    tracking, asked = bench.tracking(), study()
    other = study(run={"window": "liver", "epochs": 5})
    parent, theirs = parent_of(tracking, asked), parent_of(tracking, other)
    (first, cell), (second, _), *_ = keyed(asked).items()
    cut, done = (tracking.start_cell(cell, key, parent, {}) for key in (first, second))
    beside = tracking.start_cell(cells(other)[0], "another", theirs, {})
    tracking.end(done, "FINISHED")
    tracking.close_interrupted(parent)
    found = [tracking.client.get_run(run) for run in (cut, done, beside)]
    assert [run.info.status for run in found] == ["KILLED", "FINISHED", "RUNNING"]
    assert found[0].data.tags["reason"] == "the driver was interrupted"


def test_a_failure_is_kept_with_its_reason_and_traceback(bench: Any, study: Any) -> None:
    tracking, asked = bench.tracking(), study()
    key, cell = next(iter(keyed(asked).items()))
    run = tracking.start_cell(cell, key, parent_of(tracking, asked), {})
    tracking.end(run, "FAILED", "x" * 5000, "Traceback ...")
    found = tracking.client.get_run(run)
    assert found.info.status == "FAILED"
    assert found.data.tags["reason"] == "x" * 1000
    assert tracking.artifact(run, "failure.txt") == b"Traceback ..."


def test_read_gives_cases_curves_and_a_row_a_cell_finished_or_not(bench: Any, study: Any) -> None:
    def second_fails(job: Job, _: Any) -> Any:
        if (job.cell.arm.name, job.cell.fold) == ("window=wide", 1):
            return Outcome("failed", reason="no luck")
        return None

    bench.executor.behave = second_fails
    session, _ = bench.run(study())
    results = session.results()
    tested = {(arm, fold): tuple(table["case"]) for (arm, fold), table in results.cases.groupby(["arm", "fold"])}
    assert list(tested) == [("baseline", 0), ("baseline", 1), ("window=wide", 0)]
    assert all(tested[arm, fold] == session.splits[fold].test for arm, fold in tested)
    curve = results.curves[(results.curves["arm"] == "baseline") & (results.curves["fold"] == 0)]
    assert list(curve["epoch"]) == [0, 1]
    assert set(curve["metric"]) == {"valid/dice_liver"}
    runs = results.runs.set_index(["arm", "fold"])
    assert len(runs) == 4
    assert runs.loc[("window=wide", 1), ["status", "reason"]].tolist() == ["FAILED", "no luck"]
    assert runs.loc[("baseline", 0), "minutes"] != runs.loc[("baseline", 0), "minutes"]  # no evaluation was logged


def test_read_gives_every_external_case_once_a_cell(bench: Any, study: Any, external_store: Any) -> None:
    session, _ = bench.run(study())
    assert len(session.results().external) == 0
    bench.external = external_store
    session, _ = bench.run(study(external={"seed": 9}))
    external = session.results().external
    found = {cell: list(table["case"]) for cell, table in external.groupby(["arm", "fold", "seed"])}
    assert len(found) == 4
    assert all(cases == external_store.cases for cases in found.values())


def test_a_mark_is_set_and_taken_back_when_it_no_longer_holds(bench: Any, study: Any) -> None:
    """By a later conclusion of the same study; runs of other studies keep theirs."""
    tracking, asked = bench.tracking(), study()
    parent = parent_of(tracking, asked)
    first, second, third, beside = (tracking.start_cell(cell, key, parent, {}) for key, cell in keyed(asked).items())
    tracking.mark(
        "failed_to_learn", {first: "tumor Dice 0.04", second: "x" * 5000, beside: "theirs"}, [], tracking.runs()
    )
    values = {second: "tumor Dice 0.05", third: "liver Dice 0.01"}
    tracking.mark("failed_to_learn", values, [first, second, third, ""], tracking.runs())
    tags = [tracking.client.get_run(run).data.tags for run in (first, second, third, beside)]
    found = [tag.get("failed_to_learn") for tag in tags]
    assert found == [None, "tumor Dice 0.05", "liver Dice 0.01", "theirs"]


def test_cells_that_never_ran_are_missing(bench: Any, study: Any) -> None:
    with bench.open(study()) as session:
        results = session.results()
    assert len(results.cases) == len(results.curves) == len(results.external) == 0
    assert set(results.runs["status"]) == {"MISSING"}


def test_a_deleted_experiment_is_refused(bench: Any) -> None:
    tracking = bench.tracking()
    tracking.client.delete_experiment(tracking.experiment_id)
    with pytest.raises(LitsexpError, match="'tiny' is deleted; restore it, or rename the study file"):
        bench.tracking()


def test_two_drivers_that_begin_at_the_same_time_share_the_experiment(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, first = MlflowClient.get_experiment_by_name, []

    def slowly(client: MlflowClient, name: str) -> Any:
        found = asked(client, name)
        if not first:
            first.append(client.create_experiment(name))  # the other driver, between asking and making
        return found

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", slowly)
    assert bench.tracking().experiment_id == first[0]


@pytest.mark.parametrize("uri", ["nonsense", "nodialect://x", "http://127.0.0.1:9"])
def test_a_server_that_does_not_answer_is_named(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LitsexpError, match=f"^--tracking-uri {uri}: MLflow does not answer") as caught:
        Tracking(uri, "tiny", tmp_path / "artifacts")
    assert "\n" not in str(caught.value)


def test_the_commit_is_named_or_unknown() -> None:
    commit = git_commit()
    assert commit == "unknown" or len(commit.removesuffix("+changes")) == 40


def test_git_is_asked_once_a_process_and_every_caller_gets_tags_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run(command: list[str], **_: Any) -> Any:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "f" * 40 if "rev-parse" in command else "same", "")

    git_commit.cache_clear()
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    try:
        versions()["git_commit"] = "mine"
        once = len(asked)
        assert versions()["git_commit"] == "f" * 40 + "+changes"
    finally:
        git_commit.cache_clear()
    assert once == len(asked) == 3


def test_pages_of_runs_are_all_read(bench: Any, study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking, asked = bench.tracking(), study()
    parent = parent_of(tracking, asked)
    for key, cell in keyed(asked).items():
        tracking.start_cell(cell, key, parent, {})
    search = tracking.client.search_runs
    monkeypatch.setattr(tracking.client, "search_runs", lambda *a, **kw: search(*a, max_results=2, **kw))
    assert len(tracking.runs()) == 5
