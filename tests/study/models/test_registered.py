"""A study's best run among MLflow's models: registered once, moved where another is better; others are left alone."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from litsexp.pipeline import run_study
from litsexp.study import models
from litsexp.study.tracking import Tracking

from ..conftest import finish
from .registered import Ran, best_baseline, version_of


def test_the_model_is_the_baselines_best_run_and_says_what_it_is(ran: Ran) -> None:
    places, conclusion, _, _ = ran
    run, found, client = best_baseline(places), version_of(places), MlflowClient(places.tracking_uri)
    assert found.run_id == run.info.run_id
    logged = client.get_logged_model(found.tags["model_id"])
    assert (logged.source_run_id, str(logged.status)) == (run.info.run_id, "READY")
    assert [output.model_id for output in run.outputs.model_outputs] == [found.tags["model_id"]]
    assert logged.name.startswith("phantom") and "baseline" in logged.name
    assert {metric.key for metric in logged.metrics} >= {"best/score", "test/dice_tumor"}
    tested = next(one.dataset for one in run.inputs.dataset_inputs if one.tags[0].value == "testing")
    digests = {metric.key: metric.dataset_digest for metric in logged.metrics}
    assert digests["test/dice_tumor"] == tested.digest
    score, fold = f"{run.data.metrics['best/score']:.4f}", run.data.params["fold"]
    fingerprint = run.data.tags["data_fingerprint"]
    for said in ("patients are synthetic", f"fold {fold}, seed 0", f"score: {score}", " MB", fingerprint, "baseline"):
        assert said in found.description, said
    assert found.tags["phantom"] == "true" and float(found.tags["size_mb"]) > 1
    assert "synthetic" in client.get_registered_model("tiny").description
    told = conclusion.evidence.facts["the baseline's best model"]
    assert 'mlflow.pyfunc.load_model("models:/tiny@baseline")' in told and places.tracking_uri in told
    assert "tiny@baseline" in conclusion.report.read_text()


def test_the_scores_of_the_run_stay_what_they_were(ran: Ran) -> None:
    """A model's scores are points of its run, too: none may be there twice."""
    places, _, _, _ = ran
    client, run = MlflowClient(places.tracking_uri), best_baseline(places)
    for name in ("best/score", "test/dice_tumor"):
        assert len(client.get_metric_history(run.info.run_id, name)) == 1


def test_a_study_that_is_run_again_registers_nothing_new(ran: Ran) -> None:
    places, conclusion, _, study = ran
    client = MlflowClient(places.tracking_uri)
    experiments = [conclusion.experiment_id]
    before = version_of(places)
    again = run_study(study, places, name="tiny", workers=1)
    assert again.trained_s == []
    after = version_of(places)
    assert (after.version, after.last_updated_timestamp) == (before.version, before.last_updated_timestamp)
    assert len(client.search_model_versions("name='tiny'")) == len(client.search_logged_models(experiments)) == 1
    assert again.evidence.facts == conclusion.evidence.facts
    assert len(best_baseline(places).outputs.model_outputs) == 1


def test_where_another_run_is_the_best_the_alias_moves_and_moves_back_without_a_copy(
    own: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, _, _, study = own
    here = tmp_path / "here"  # MLflow would make its default database where it asked the global address
    here.mkdir()
    monkeypatch.chdir(here)
    client, first = MlflowClient(places.tracking_uri), best_baseline(places)
    rival = next(
        run
        for run in Tracking(places.tracking_uri, "tiny", places.root / "artifacts").runs("params.arm = 'baseline'")
        if run.info.run_id != first.info.run_id
    )
    client.log_metric(rival.info.run_id, "best/score", 0.999, step=0)
    run_study(study, places, name="tiny", train=False)
    moved = version_of(places)
    assert (int(moved.version), moved.run_id) == (2, rival.info.run_id)
    assert moved.tags["validation_score"] == "0.9990"
    client.log_metric(first.info.run_id, "best/score", 0.9999, step=0)
    run_study(study, places, name="tiny", train=False)
    assert version_of(places).run_id == first.info.run_id
    assert len(client.search_model_versions("name='tiny'")) == 2
    assert list(here.iterdir()) == []


def test_what_a_killed_call_left_is_deleted_and_what_it_had_logged_whole_is_taken(
    own: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, conclusion, _, study = own
    client, run = MlflowClient(places.tracking_uri), best_baseline(places)
    whole = version_of(places).tags["model_id"]
    client.delete_registered_model("tiny")
    half = client.create_logged_model(
        conclusion.experiment_id, "half", run.info.run_id, {models.FORMAT_TAG: models.MODEL_FORMAT}
    )
    run_study(study, places, name="tiny", train=False)
    assert version_of(places).tags["model_id"] == whole
    left = [model.model_id for model in client.search_logged_models([conclusion.experiment_id])]
    assert left == [whole] and half.model_id not in left


def test_where_it_fails_the_study_ends_with_a_warning_in_one_line_and_leaves_nothing(
    own: Ran, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    places, conclusion, _, study = own
    client = MlflowClient(places.tracking_uri)
    client.delete_registered_model("tiny")
    client.delete_logged_model(client.search_logged_models([conclusion.experiment_id])[0].model_id)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", full)
    done = run_study(study, places, name="tiny", train=False)
    warned = [record.getMessage() for record in caplog.records if record.name == models.__name__]
    assert len(warned) == 1 and "No space left" in warned[0] and "\n" not in warned[0]
    assert done.report.is_file() and "the baseline's best model" not in done.evidence.facts
    assert client.search_logged_models([conclusion.experiment_id]) == []
    assert client.get_run(done.evidence.facts["MLflow"].rpartition(" ")[2]).info.status == "FINISHED"


def test_a_registered_model_that_no_study_made_is_left_alone(own: Ran, caplog: pytest.LogCaptureFixture) -> None:
    places, _, _, study = own
    client = MlflowClient(places.tracking_uri)
    client.delete_registered_model("tiny")
    client.create_registered_model("tiny")
    run_study(study, places, name="tiny", train=False)
    assert "found one that no study made" in caplog.text
    assert client.search_model_versions("name='tiny'") == []


def test_of_a_study_without_a_finished_run_nothing_is_registered(bench: Any, study: Any) -> None:
    with bench.open(study()) as session:
        assert models.register_best(session, {}) is None
    assert MlflowClient(bench.places.tracking_uri).search_registered_models() == []


def test_ctrl_c_waits_until_the_model_is_whole(own: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    places, conclusion, _, study = own
    client = MlflowClient(places.tracking_uri)
    client.delete_registered_model("tiny")
    client.delete_logged_model(client.search_logged_models([conclusion.experiment_id])[0].model_id)
    log_model_artifacts = MlflowClient.log_model_artifacts

    def interrupted(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        log_model_artifacts(*args)

    monkeypatch.setattr(MlflowClient, "log_model_artifacts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, places, name="tiny", train=False)
    first = version_of(places)
    assert first.run_id == best_baseline(places).info.run_id
    run_study(study, places, name="tiny", train=False)
    assert version_of(places).tags["model_id"] == first.tags["model_id"]


def test_only_the_baselines_runs_are_asked_and_of_a_search_all(bench: Any, study: Any) -> None:
    scores = iter((0.3, 0.9, 0.4, 0.8, 0.6, 0.7, 0.5))  # fold 0: baseline, wide; fold 1: baseline, wide; the search
    bench.executor.behave = lambda job, _: finish(
        job, MlflowClient(job.tracking_uri), bench.places.root / "tmp", next(scores)
    )
    session, _ = bench.run(study())
    best = models.best_run(session, session.tracking.finished())
    assert best is not None and (best.data.params["arm"], best.data.params["fold"]) == ("baseline", "1")
    bench.name = "searched"
    asked = study(
        design="search", factors={"window": ["liver", "wide"]}, claims=[], search={"trials": 3, "lr": [1e-4, 1e-2]}
    )
    session, _ = bench.run(asked)
    best = models.best_run(session, session.tracking.finished())
    assert best is not None and best.data.metrics["best/score"] == 0.7
