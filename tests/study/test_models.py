"""A study's best run among MLflow's models: loaded in a new process by its alias, registered once, without a pickle."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from litsexp.data.ct.volume import Tally, open_image
from litsexp.data.store import Store
from litsexp.pipeline import Conclusion, run_study
from litsexp.prediction import predict
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import IN_TABLES, RunConfig
from litsexp.spec.study import StudyConfig
from litsexp.study import models
from litsexp.study.places import Places
from litsexp.study.served import Served
from litsexp.study.tracking import Tracking

from .conftest import finish

RUN = {"architecture": "unet", "init": "scratch", "augment": "none", "epochs": 1, "steps_per_epoch": 3, "batch_size": 4}
STUDY = {
    "question": "Does a wide window help?",
    "split": {"folds": 2, "valid": 0.25},
    "run": {**RUN, "window": "wide", "lr": 0.01},
    "factors": {"window": ["liver"]},
    "claims": [{"id": "wide", "says": "Yes.", "factor": "window", "better": "wide", "than": "liver"}],
}
Ran = tuple[Places, Conclusion, Path, StudyConfig]  # where, what came out, the folder of its volumes, what was asked

NEW_PROCESS = """
import sys
import mlflow, numpy as np
uri, path, out = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model("models:/tiny@baseline")
np.save(out, model.predict(path))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, schemas: Path, phantom_store: Store) -> Ran:
    """Two arms in two folds on the phantom at half its size."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(schemas, root / "mlruns")
    places = Places.below(root / "mlruns", stores=root / "data")
    cohort = phantom_store.directory.parents[1] / "ct"
    study = StudyConfig.model_validate({**STUDY, "data": {"cohort": str(cohort), "size": 32}})
    before = mlflow.get_tracking_uri()
    conclusion = run_study(study, places, name="tiny", workers=1)
    assert mlflow.get_tracking_uri() == before and mlflow.active_run() is None
    return places, conclusion, cohort, study


@pytest.fixture
def loaded(ran: Ran, at: Callable[[str], None]) -> Any:
    at(ran[0].tracking_uri)
    return mlflow.pyfunc.load_model("models:/tiny@baseline")


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``at(uri)``: what MLflow's fluent functions ask, for this test."""
    return lambda uri: monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)


def best_baseline(places: Places) -> Any:
    runs = Tracking(places.tracking_uri, "tiny", places.root / "artifacts").runs()
    mine = [run for run in runs if run.data.params.get("arm") == "baseline"]
    assert len(mine) == 2
    return max(mine, key=lambda run: run.data.metrics["best/score"])


def version_of(places: Places) -> Any:
    return MlflowClient(places.tracking_uri).get_model_version_by_alias("tiny", "baseline")


def folder_of(places: Places) -> Path:
    client = MlflowClient(places.tracking_uri)
    location = client.get_logged_model(version_of(places).tags["model_id"]).artifact_location
    return Path(str(location).removeprefix("file://"))


def written(places: Places, volumes: Path, out: Path) -> Path:
    """The masks that ``litsexp predict`` writes of them with the registered run."""
    predict(version_of(places).run_id, volumes, out, places)
    return out


def voxels(path: Path) -> Any:
    return np.asarray(nib.load(path).dataobj)


def in_a_new_process(uri: str, volume: Path, folder: Path) -> Any:
    out = folder / "labels.npy"
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", NEW_PROCESS, uri, str(volume), str(out)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "hint" not in done.stderr, done.stderr  # MLflow's, about type hints
    return np.load(out)


def test_a_new_process_loads_it_by_its_alias_and_labels_a_file_as_litsexp_predict_does(
    ran: Ran, tmp_path: Path
) -> None:
    places, _, cohort, _ = ran
    labels = in_a_new_process(places.tracking_uri, cohort / "volume-0.nii.gz", tmp_path / "elsewhere")
    mask = voxels(written(places, cohort, tmp_path / "masks") / "segmentation-0.nii.gz")
    assert labels.dtype == mask.dtype == np.uint8 and len(np.unique(mask)) > 1
    np.testing.assert_array_equal(labels, mask)


def test_it_takes_paths_in_every_form_and_gives_a_list_of_several(ran: Ran, loaded: Any, tmp_path: Path) -> None:
    places, _, cohort, _ = ran
    volumes = tmp_path / "turned"  # stored in another direction, and not square
    volumes.mkdir()
    turned = np.ascontiguousarray(voxels(cohort / "volume-1.nii.gz")[::-1, 4:].transpose(2, 0, 1))
    affine = np.array([[0, -2.0, 0, 90], [0, 0, 2.0, -70], [5.0, 0, 0, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(turned, affine), volumes / "volume-1.nii.gz")
    shutil.copy(cohort / "volume-0.nii.gz", volumes)
    masks = written(places, volumes, tmp_path / "masks")
    paths = [volumes / f"volume-{number}.nii.gz" for number in (1, 0)]
    wanted = [voxels(masks / f"segmentation-{number}.nii.gz") for number in (1, 0)]
    assert wanted[0].shape == turned.shape
    for one in (paths[0], str(paths[0]), {"volume": paths[0]}):
        np.testing.assert_array_equal(loaded.predict(one), wanted[0])
    names = [str(path) for path in paths]
    table = pd.DataFrame({"volume": names})
    for many in (paths, tuple(names), table, table["volume"], table["volume"].to_numpy(), {"volume": names}):
        found = loaded.predict(many)
        assert len(found) == 2
        for labels, mask in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(labels, mask)
    with_more = table.assign(patient=["a", "b"])
    np.testing.assert_array_equal(loaded.predict(with_more)[1], wanted[1])


def test_of_hu_it_gives_the_labels_of_the_file_that_has_them(ran: Ran, loaded: Any) -> None:
    _, _, cohort, _ = ran
    path = cohort / "volume-2.nii.gz"
    opened = open_image(path)
    planes = {z: plane.copy() for z, plane in opened.hu_planes(Tally())}
    hu = opened.upright(np.stack([planes[z] for z in sorted(planes)]))
    labels = loaded.predict(hu)
    assert labels.dtype == np.uint8 and labels.shape == hu.shape and labels.any()
    np.testing.assert_array_equal(opened.as_stored(opened.upright(labels)), loaded.predict(path))
    for dtype in (np.float32, np.float64, np.int32):
        np.testing.assert_array_equal(loaded.predict(hu.astype(dtype)), labels)
    np.testing.assert_array_equal(loaded.predict({"hu": hu[:, :40].tolist()}), loaded.predict(hu[:, :40]))
    assert loaded.predict(np.zeros((2, 30, 20), np.int16)).shape == (2, 30, 20)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (7, "a int"),
        (b"volume.nii.gz", "a bytes"),
        ([], "nothing"),
        (["a.nii.gz", 7], "a list with int"),
        ({"path": "a"}, "a mapping of path; expected 'volume' or 'hu' alone"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), "a table of a, b; expected a column 'volume'"),
        (np.zeros((3, 4)), "an array (3, 4) of float64"),
        (np.zeros((0, 4, 4)), "an array (0, 4, 4) of float64"),
        (np.zeros((2, 4, 4), np.uint16), "of uint16; unsigned numbers hold no air"),
        (np.zeros((2, 4, 4), complex), "of complex128"),
    ],
)
def test_anything_else_is_refused_in_one_line(loaded: Any, wrong: Any, found: str) -> None:
    with pytest.raises(LitsexpError) as error:
        loaded.predict(wrong)
    said = str(error.value)
    assert f"predict: found {found}" in said or (said.startswith("predict: found ") and found in said)
    assert "path of a NIfTI volume" in said and "Hounsfield units (z, row, column)" in said and "\n" not in said


def test_a_file_or_hu_that_cannot_be_ct_is_refused_in_one_line(loaded: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.nii.gz").write_text("no volume")
    hu = np.zeros((2, 8, 8))
    hu[0, 0, 0] = np.nan
    for asked, said in ((tmp_path / "gone.nii.gz", "gone.nii.gz"), (tmp_path / "notes.nii.gz", "notes.nii.gz")):
        with pytest.raises(LitsexpError, match=said):
            loaded.predict(asked)
    with pytest.raises(LitsexpError, match="HU array: 1 voxels are NaN"):
        loaded.predict(hu)


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


def test_signature_example_size_and_versions_are_written_and_the_example_runs(ran: Ran, loaded: Any) -> None:
    places, _, cohort, _ = ran
    about = yaml.safe_load((folder_of(places) / "MLmodel").read_text())
    weights = next(folder_of(places).rglob("*.safetensors"))
    assert about["model_size_bytes"] >= weights.stat().st_size > 1e6
    assert json.loads(about["signature"]["inputs"])[0] == {"type": "string", "name": "volume", "required": False}
    assert [one["name"] for one in json.loads(about["signature"]["inputs"])] == ["volume", "hu"]
    assert json.loads(about["signature"]["outputs"])[0]["tensor-spec"] == {"dtype": "uint8", "shape": [-1, -1, -1]}
    example = loaded.input_example
    run = best_baseline(places)
    tested = json.loads(next(folder_of(places).rglob("run.json")).read_text())["split"]["test"]
    assert Path(example["volume"]).parent == cohort.resolve()
    assert int(Path(example["volume"]).name.removesuffix(".nii.gz").rpartition("-")[2]) in tested
    assert loaded.predict(example).shape == voxels(Path(example["volume"])).shape
    needed = (folder_of(places) / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in needed} >= {"litsexp", "mlflow", "torch", "safetensors", "nibabel"}
    assert all("==" in line and "+" not in line for line in needed)
    assert run.data.tags["data_fingerprint"]


def test_no_pickle_is_in_the_model_and_loading_it_unpickles_nothing(
    ran: Ran, at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has code, safetensors and text; with every way to unpickle shut it loads and predicts."""
    import pickle

    import cloudpickle
    import torch

    places, _, cohort, _ = ran
    files = {path.relative_to(folder_of(places)).as_posix() for path in folder_of(places).rglob("*") if path.is_file()}
    assert files - {"registered_model_meta"} == {  # which MLflow writes when it loads one
        "MLmodel",
        "artifacts/run.json",
        "artifacts/weights.safetensors",
        "conda.yaml",
        "input_example.json",
        "logged_model.py",
        "python_env.yaml",
        "requirements.txt",
        "serving_input_example.json",
    }
    assert "python_model:" not in (folder_of(places) / "MLmodel").read_text()  # that would be a pickle's place

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled")

    for module, names in (
        (pickle, ("load", "loads", "Unpickler")),
        (cloudpickle, ("load", "loads")),
        (torch, ("load",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, refuse)
    at(places.tracking_uri)
    model = mlflow.pyfunc.load_model("models:/tiny@baseline")
    assert model.predict(str(cohort / "volume-0.nii.gz")).dtype == np.uint8


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


@pytest.fixture
def own(ran: Ran, tmp_path: Path) -> Ran:
    """The finished study once more, in a database of the test's own; its artifacts are shared."""
    places, conclusion, cohort, study = ran
    shutil.copy(places.root / "mlflow.db", tmp_path)
    shutil.copy(places.root / "optuna.db", tmp_path)
    return Places.below(tmp_path, stores=places.stores), conclusion, cohort, study


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


def test_rows_of_a_plugin_are_loaded_with_the_model_or_missed_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunConfig.model_validate({"init": "scratch", "window": "wide"})
    monkeypatch.setitem(IN_TABLES["window"].added, "wide", "no_such_arms")
    monkeypatch.setitem(IN_TABLES["window"].added, "liver", "arms_of_others")
    assert models._plugins(run) == ["no_such_arms"]
    context = SimpleNamespace(model_config={"plugins": ["no_such_arms"]})
    with pytest.raises(LitsexpError, match="--plugin no_such_arms: cannot be imported"):
        Served().load_context(context)


def test_more_threads_can_be_asked_for(ran: Ran, at: Callable[[str], None]) -> None:
    at(ran[0].tracking_uri)
    model = mlflow.pyfunc.load_model("models:/tiny@baseline", model_config={"threads": 2})
    served = model.unwrap_python_model()
    assert isinstance(served, Served) and served.threads == 2


def test_a_model_of_monais_needs_monai() -> None:
    plain, monai = (
        models.requirements(RunConfig.model_validate({"init": "scratch", "architecture": name}))
        for name in ("unet", "dynunet")
    )
    assert {line.partition("==")[0] for line in monai} - {line.partition("==")[0] for line in plain} == {
        "monai",
        "einops",
    }
