"""Studies from the command line: bad input in one line, a second driver, and what is left on disk."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from litsexp.data.store import Store
from litsexp.study.locks import one_driver

from .conftest import CLAIM, STUDY, study_file

pytestmark = pytest.mark.usefixtures("elsewhere")


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Replace a NIfTI file by one whose voxels are changed; never through the hard link."""
    image = nib.load(path)
    data = change(np.asanyarray(image.dataobj))
    path.unlink()
    nib.save(nib.Nifti1Image(data, image.affine), path)


def with_nan(hu: Any) -> Any:
    spoiled = hu.astype(np.float32)
    spoiled[3, 4, 5] = np.nan
    return spoiled


def with_label_3(labels: Any) -> Any:
    spoiled = labels.copy()
    spoiled[3, 4, 5] = 3
    return spoiled


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


SPOILED: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "no segmentation": (
        lambda ct: (ct / "segmentation-1.nii.gz").unlink(),
        ["volume-1.nii.gz", "no segmentation", "expected both files", "add it"],
    ),
    "truncated": (
        lambda ct: truncated(ct / "volume-1.nii.gz"),
        ["volume-1.nii.gz", "truncated or corrupt", "expected a whole .nii.gz", "again"],
    ),
    "shapes": (
        lambda ct: rewrite(ct / "segmentation-0.nii.gz", lambda labels: labels[:, :, :-1]),
        ["segmentation-0.nii.gz", "(32, 32, 7)", "(32, 32, 8)", "expected one label a voxel"],
    ),
    "label 3": (
        lambda ct: rewrite(ct / "segmentation-1.nii.gz", with_label_3),
        ["segmentation-1.nii.gz", "label 3 (1 voxels)", "expected only 0 background, 1 liver, 2 tumor"],
    ),
    "4D": (
        lambda ct: rewrite(ct / "volume-0.nii.gz", lambda hu: np.stack([hu, hu], axis=3)),
        ["volume-0.nii.gz", "4D", "expected a 3D volume", "keep one time point"],
    ),
    "NaN": (
        lambda ct: rewrite(ct / "volume-0.nii.gz", with_nan),
        ["volume-0.nii.gz", "1 voxels are NaN", "expected finite HU"],
    ),
    "empty": (
        lambda ct: [file.unlink() for file in ct.iterdir()],
        ["ct: found no labeled CT case", "expected volume-N.nii"],
    ),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_bad_ct_data_is_refused_in_one_line_and_leaves_nothing(
    refused: Callable[..., str], cohort: Path, kind: str, files: Callable[[Path], list[str]]
) -> None:
    spoil, said = SPOILED[kind]
    spoil(cohort)
    error = refused("study", study_file(), "--data", cohort, "--set", "data.size=32")
    assert all(part in error for part in said), error
    left = [name for name in files(Path()) if not name.startswith(("ct", "tiny.yaml")) and not name.endswith(".lock")]
    assert [name for name in left if Path(name).is_file()] == []
    assert not Path("mlruns").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (STUDY.replace("epochs:", "epoch:"), ["tiny.yaml: run.epoch: unknown key", "did you mean 'epochs'?"]),
        (STUDY.replace("[wide]", "[wild]"), ["tiny.yaml: factors.window", "'wild'", "notebook"]),
        (STUDY.replace("init: scratch", "init: imagnet"), ["tiny.yaml: run.init", "'imagnet'", "imagenet"]),
        (
            STUDY + f"claims: [{CLAIM.replace('factor: window', 'factor: init')}]",
            ["tiny.yaml: claims.wide", "'init', which is not varied", "expected one of window"],
        ),
        (STUDY + f"claims: [{CLAIM.replace('than: liver', 'than: custom')}]", ["claims.wide", "window = 'custom'"]),
        ("question: [", ["tiny.yaml: not valid YAML"]),
        ("", ["tiny.yaml: the file is empty"]),
    ],
)
def test_a_bad_study_file_is_refused_in_one_line_and_leaves_nothing(
    refused: Callable[..., str], text: str, said: list[str], files: Callable[[Path], list[str]]
) -> None:
    error = refused("study", study_file(text))
    assert all(part in error for part in said), error
    assert files(Path()) == ["tiny.yaml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["study", "nowhere.yaml"], ["nowhere.yaml: cannot be read (No such file"]),
        (["study", "tiny.yaml", "--set", "run.epochs=many"], ["run.epochs", "'many'", "a whole number"]),
        (["study", "tiny.yaml", "--set", "epochs"], ["--set epochs: expected KEY=VALUE"]),
        (["study", "tiny.yaml", "--data", "nowhere"], ["nowhere: found nothing; expected a folder"]),
        (["report", "tiny.yaml", "--data", "nowhere"], ["nowhere: found nothing; expected a folder"]),
        (["study", "tiny.yaml", "--data", "ct", "--external", "ct/b"], ["external: found 'ct/b', the cohort of data"]),
    ],
)
def test_bad_study_words_are_refused_in_one_line_and_leave_nothing(
    refused: Callable[..., str], words: list[str], said: list[str], files: Callable[[Path], list[str]]
) -> None:
    study_file()
    error = refused(*words)
    assert all(part in error for part in said), error
    assert files(Path()) == ["tiny.yaml"]


def test_two_patients_for_three_folds_are_refused(refused: Callable[..., str], cohort: Path) -> None:
    error = refused("study", study_file(), "--data", cohort, "--set", "split.folds=3", "--set", "data.size=32")
    assert "split: found 2 patients; expected at least 3 for 3 folds; add cases" in error
    assert not Path("mlruns").exists()


def test_a_missing_weights_file_is_refused_before_anything_runs(
    refused: Callable[..., str], phantom_store: Store, files: Callable[[Path], list[str]]
) -> None:
    root = phantom_store.directory.parents[1]
    study = study_file(STUDY.replace("factors: {window: [wide]}", "factors: {init: ['file:missing.safetensors']}"))
    error = refused("study", study, "--data", root / "ct", "--stores", root)
    assert "missing.safetensors: cannot be read" in error
    assert files(Path()) == ["tiny.yaml"]


def test_an_external_cohort_that_is_the_data_is_refused(refused: Callable[..., str], phantom_store: Store) -> None:
    root = phantom_store.directory.parents[1]
    words = ["study", study_file(), "--data", root / "ct", "--stores", root, "--external"]
    assert "tiny.yaml: external: found" in refused(*words, root / "ct")
    assert "external: found the slices of data itself" in refused(*words, shutil.copytree(root / "ct", "copy"))
    assert not Path("mlruns").exists()


def test_a_second_driver_is_refused(refused: Callable[..., str], places: list[object], phantom_store: Store) -> None:
    from litsexp.spec.design import design_digest
    from litsexp.spec.reading import load_study

    study = study_file()
    asked = load_study(study)
    name = f"tiny-ct-{design_digest(asked, phantom_store.fingerprint)}"
    with one_driver(f"sqlite:///{Path('mlruns').resolve()}/optuna.db", name, Path("mlruns")):
        error = refused("study", study, *places)
    assert f"study {name}: process {os.getpid()} on" in error
    assert re.search(r" is running it since \d\d:\d\d; wait until it ends, or stop it first$", error)
    assert not Path("mlruns/reports").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--storage", "nonsense"], "--storage nonsense: cannot be opened"),
        (["--tracking-uri", "nonsense"], "--tracking-uri nonsense: MLflow does not answer"),
        (["--mlruns", "tiny.yaml"], "tiny.yaml: cannot be written"),
    ],
)
def test_databases_that_cannot_be_opened_are_named(
    refused: Callable[..., str], phantom_store: Store, words: list[str], said: str
) -> None:
    root = phantom_store.directory.parents[1]
    assert said in refused("study", study_file(), "--data", root / "ct", "--stores", root, *words)


def test_a_damaged_database_is_named(refused: Callable[..., str], phantom_store: Store) -> None:
    root = phantom_store.directory.parents[1]
    Path("mlruns").mkdir()
    Path("mlruns/mlflow.db").write_text("no database" * 1000)
    error = refused("study", study_file(), "--data", root / "ct", "--stores", root)
    assert "mlflow.db" in error
