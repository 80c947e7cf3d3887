"""A study's best run among MLflow's models: loaded in a new process by its alias, without a pickle; what it takes."""

import json
import shutil
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

from litsexp.data.ct.volume import Tally, open_image
from litsexp.prediction import predict
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import IN_TABLES, RunConfig
from litsexp.study import models
from litsexp.study.places import Places
from litsexp.study.served import Served

from .registered import Ran, best_baseline, folder_of, version_of

NEW_PROCESS = """
import sys
import mlflow, numpy as np
uri, path, out = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model("models:/tiny@baseline")
np.save(out, model.predict(path))
"""


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
