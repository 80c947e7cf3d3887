"""From finished runs to masks: every geometry, the study's own scores again, patients kept from runs that know them."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from nibabel.orientations import apply_orientation, inv_ornt_aff

import litsexp
from litsexp import prediction
from litsexp.data.ct.nifti import write_labels
from litsexp.data.ct.volume import open_image
from litsexp.data.store.convert import all_slices
from litsexp.evaluation.native import WayBack
from litsexp.pipeline import Conclusion, run_study
from litsexp.prediction import predict
from litsexp.spec.run import RunConfig
from litsexp.spec.study import StudyConfig
from litsexp.study.places import Places
from litsexp.study.tracking import Tracking
from litsexp.training.architectures import build_network
from litsexp.training.predict import Member, Predictor

RUN = {"architecture": "unet", "init": "scratch", "augment": "none", "epochs": 1, "steps_per_epoch": 3, "batch_size": 4}
COMPARED = {"factor": "window", "better": "wide", "than": "liver"}
STUDY = {
    "question": "Does a wide window help?",
    "split": {"folds": 2, "valid": 0.25},
    "run": {**RUN, "window": "wide", "lr": 0.01},
    "factors": {"window": ["liver"]},
    "claims": [
        {
            "id": "whole",
            "says": "Yes.",
            "metric": "native:dice_liver",
            "factor": "window",
            "better": "wide",
            "than": "liver",
        }
    ],
}
Ran = tuple[Places, Conclusion, Path]  # where, what came out, the folder of its volumes
ORIENTATIONS = [
    np.array(list(zip(axes, signs, strict=True)))
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def a_predictor(size: int = 32, seed: int = 0) -> Predictor:
    run = RunConfig.model_validate({**RUN, "precision": "fp32"})
    return Predictor([Member(run, build_network(run, size, seed)[0].state_dict(), size)])


@pytest.mark.parametrize("shape", [(40, 33, 5), (48, 48, 4)])
def test_a_volume_in_48_orientations_gives_one_prediction_put_back_48_ways(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    predictor, affine = a_predictor(), np.diag([0.8, 0.7, 2.5, 1.0])
    affine[:3, 3] = -7, 11, 30
    hu = np.random.default_rng(0).integers(-200, 250, shape).astype(np.int16)
    hu[10:30, 8:25] += 400
    reference = None
    for number, orientation in enumerate(ORIENTATIONS):
        path, mask = tmp_path / f"volume-{number}.nii.gz", tmp_path / f"segmentation-{number}.nii.gz"
        turned = np.ascontiguousarray(apply_orientation(hu, orientation))
        nib.save(nib.Nifti1Image(turned, affine @ inv_ornt_aff(orientation, shape)), path)
        opened = open_image(path)
        back = WayBack(opened.shape[1:], opened.flips, predictor.size)
        labels = predictor.label(all_slices(opened, predictor.size), back)
        write_labels(mask, opened.as_stored(labels), opened.image)
        written, volume = nib.load(mask), nib.load(path)
        np.testing.assert_array_equal(written.affine, volume.affine)
        assert (written.shape, written.get_data_dtype()) == (volume.shape, np.uint8)
        assert written.header["qform_code"] == volume.header["qform_code"]
        upright = nib.as_closest_canonical(written)
        voxels = np.asarray(upright.dataobj)
        reference = voxels if reference is None else reference
        np.testing.assert_array_equal(voxels, reference)
    assert reference is not None and len(np.unique(reference)) > 1


def test_an_ensemble_averages_probabilities_and_asks_those_it_is_told(tmp_path: Path) -> None:
    one, other = a_predictor(seed=0), a_predictor(seed=1)
    both = a_predictor()
    both.members = [*one.members, *other.members]
    hu = np.random.default_rng(0).integers(-200, 250, (6, 32, 32)).astype(np.int16)
    back = WayBack((32, 32), (False, False), 32)
    alone = [predictor.label(hu, back) for predictor in (one, other)]
    np.testing.assert_array_equal(both.label(hu, back, [0]), alone[0])
    np.testing.assert_array_equal(both.label(hu, back, [1]), alone[1])
    together = both.label(hu, back)
    agreed = alone[0] == alone[1]
    assert not agreed.all()
    # of two, where both put the same label first, their mean does so too unless a third is second to both
    assert (together[agreed] == alone[0][agreed]).mean() > 0.9
    np.testing.assert_array_equal(together, both.label(hu, back, [1, 0]))


@pytest.fixture(scope="module")
def ran(at_half_size: Callable[[dict[str, Any]], tuple[Places, Path, StudyConfig]]) -> Ran:
    """Two arms in two folds on the phantom at half its size, scored at native resolution as a claim asks."""
    places, cohort, study = at_half_size(STUDY)
    return places, run_study(study, places, name="tiny", workers=1), cohort


def runs_of(places: Places, arm: str = "baseline") -> list[Any]:
    runs = Tracking(places.tracking_uri, "tiny", places.root / "artifacts").runs()
    cells = [run for run in runs if run.data.params.get("arm") == arm]
    return sorted(cells, key=lambda run: run.data.params["fold"])


def test_predict_and_score_reproduce_the_studys_native_scores_bit_for_bit(
    ran: Ran, litsexp: Any, tmp_path: Path
) -> None:
    places, conclusion, cohort = ran
    native = conclusion.results.native
    assert len(native) == 2 * 6 and conclusion.verdicts[0].n_patients == 6
    for fold, run in enumerate(runs_of(places)):
        out = tmp_path / f"masks-{fold}"
        code, told, _ = litsexp("predict", run.info.run_id, "--mlruns", places.root, "--data", cohort, "--out", out)
        assert code == 0 and "6 masks written" in told
        own = native[(native["arm"] == "baseline") & (native["fold"] == fold)].set_index("case")
        assert f"{6 - len(own)} volumes are patients that the run has learned from" in told
        found = scored(out, cohort).set_index("case").loc[own.index]
        columns = [column for column in own if column not in ("arm", "fold", "seed")]
        assert len(columns) > 35 and own["fp_liver"].sum() + own["tp_liver"].sum() > 0
        pd.testing.assert_frame_equal(
            found[columns], own[columns], check_exact=True, check_dtype=False, check_names=False
        )


def scored(masks: Path, truth: Path) -> pd.DataFrame:
    cases: pd.DataFrame = litsexp.score(masks, truth, processes=1).cases
    return cases


def test_an_ensemble_keeps_patients_from_runs_that_learned_from_them(ran: Ran, litsexp: Any, tmp_path: Path) -> None:
    places, _, cohort = ran
    data, out = tmp_path / "renamed", tmp_path / "masks"
    data.mkdir()
    for number in range(6):  # a patient is known by the pixels, not by the name
        shutil.copy(cohort / f"volume-{number}.nii.gz", data / f"volume-{90 - number}.nii.gz")
    strange = np.asarray(nib.load(cohort / "volume-0.nii.gz").dataobj)[:, ::-1]
    nib.save(nib.Nifti1Image(strange, np.diag([2.0, 2, 5, 1])), data / "stranger.nii.gz")
    first, second = runs_of(places)
    asked = ("--ensemble", "--mlruns", places.root, "--data", data, "--out", out)
    code, told, _ = litsexp("predict", first.info.run_id, *asked)
    assert code == 0 and "7 masks written" in told
    by = json.loads((out / "predictions.json").read_text())["by"]
    tests = {run.info.run_id: split_of(places, run.info.run_id)["test"] for run in (first, second)}
    for number in range(6):
        assert by[f"segmentation-{90 - number}.nii.gz"] == [run for run, cases in tests.items() if number in cases]
    assert by["stranger.nii.gz"] == list(tests)


def split_of(places: Places, run_id: str) -> dict[str, list[int]]:
    path = MlflowClient(places.tracking_uri).download_artifacts(run_id, "run.json")
    split: dict[str, list[int]] = json.loads(Path(path).read_text())["split"]
    return split


def test_the_best_run_of_a_study_is_the_one_with_the_best_validation_score(
    ran: Ran, litsexp: Any, tmp_path: Path
) -> None:
    places, _, cohort = ran
    file, out = tmp_path / "tiny.yaml", tmp_path / "masks"
    file.write_text(json.dumps({**STUDY, "data": {"cohort": str(cohort), "size": 32}}))
    asked = ("--mlruns", places.root, "--stores", places.stores, "--data", cohort, "--out", out)
    every = runs_of(places) + runs_of(places, "window=liver")
    best = max(every, key=lambda run: run.data.metrics["best/score"])
    code, told, error = litsexp("predict", "--best", file, *asked)
    assert code == 0, error
    assert told.splitlines()[0].startswith(f"run {best.info.run_id}: ")
    other = tmp_path / "other.yaml"
    shutil.copy(file, other)
    assert "other: found no finished run of this study" in litsexp("predict", "--best", other, *asked)[2]


def test_nothing_is_overwritten_and_an_interrupted_call_goes_on(
    ran: Ran,
    litsexp: Any,
    refused: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places, _, cohort = ran
    run, other = (run.info.run_id for run in runs_of(places))
    out = tmp_path / "masks"
    asked = ("--mlruns", places.root, "--data", cohort, "--out", out)
    written: list[Path] = []

    def interrupted(path: Path, *rest: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write_labels(path, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(prediction, "write_labels", interrupted)
        code, _, error = litsexp("predict", run, *asked)
    assert code == 130 and "masks that are written are kept" in error
    names = sorted(path.name for path in out.iterdir())
    assert names == ["predictions.json", "segmentation-0.nii.gz", "segmentation-1.nii.gz"]
    before = {name: (out / name).read_bytes() for name in names[1:]}
    assert "masks of other runs or volumes" in refused("predict", other, *asked)
    code, told, _ = litsexp("predict", run, *asked)
    assert code == 0 and "4 masks written, 2 were there" in told
    assert {name: (out / name).read_bytes() for name in before} == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    assert "found other files" in refused("predict", run, *asked[:-1], tmp_path / "full")


def test_what_cannot_be_done_is_said_in_one_line(ran: Ran, refused: Callable[..., str], tmp_path: Path) -> None:
    places, _, cohort = ran
    run = runs_of(places)[0].info.run_id
    asked = ("--mlruns", places.root, "--data", cohort, "--out", tmp_path / "out")
    assert "run nobody: found none" in refused("predict", "nobody", *asked)
    assert "expected RUN_ID or --best" in refused("predict", *asked)
    parents = [r for r in Tracking(places.tracking_uri, "tiny", places.root / "artifacts").runs() if not r.data.params]
    assert "found a study's parent run" in refused("predict", parents[0].info.run_id, *asked)
    assert "found no database" in refused("predict", run, "--mlruns", tmp_path / "gone", *asked[2:])
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "found no CT volume" in refused("predict", run, *asked[:2], "--data", empty, "--out", tmp_path / "out")
    (empty / "volume-1.nii.gz").write_bytes((cohort / "volume-1.nii.gz").read_bytes()[:2000])
    assert "truncated or corrupt" in refused("predict", run, *asked[:2], "--data", empty, "--out", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_a_notebook_gets_the_same_masks_as_the_command_line(ran: Ran, litsexp: Any, tmp_path: Path) -> None:
    places, _, cohort = ran
    run, seen = runs_of(places)[0].info.run_id, []
    done = predict(run, cohort, tmp_path / "here", places, progress=lambda n, total: seen.append((n, total)))
    assert (done.written, done.kept, seen[-1]) == (6, 0, (6, 6)) and set(done.learned.values()) == {
        "training",
        "validation",
    }
    litsexp("predict", run, "--mlruns", places.root, "--data", cohort, "--out", tmp_path / "there")
    for name in done.by:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
