"""The main job as a function: what a notebook calls."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import litsexp
from litsexp.data.store import Store
from litsexp.evidence.parent import failed_runs
from litsexp.pipeline import run_study
from litsexp.spec.study import StudyConfig
from litsexp.study.places import Places
from litsexp.study.tracking import Tracking

STUDY = {
    "question": "Does a wide window help?",
    "split": {"train": 0.5, "valid": 0.25, "test": 0.25},
    "run": {"init": "scratch", "window": "wide", "augment": "none", "epochs": 1, "steps_per_epoch": 1, "batch_size": 4},
    "factors": {"window": ["liver"]},
    "claims": [{"id": "wide", "says": "It helps.", "factor": "window", "better": "wide", "than": "liver"}],
}


@pytest.fixture
def study(phantom_store: Store) -> StudyConfig:
    cohort = phantom_store.directory.parents[1] / "ct"
    return StudyConfig.model_validate({**STUDY, "data": {"cohort": str(cohort)}})


@pytest.fixture
def places(new_places: Any, tmp_path: Path, phantom_store: Store) -> Places:
    new_places(tmp_path)
    return Places.below(tmp_path / "mlruns", stores=phantom_store.directory.parents[1])


def test_a_study_runs_to_its_conclusion_and_again_trains_nothing(
    study: StudyConfig, places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run_study(study, places, name="tiny", workers=1)
    assert "0 runs done before, 2 to train" in capsys.readouterr().out
    assert [verdict.claim.id for verdict in first.verdicts] == ["wide"]
    assert first.results.cases.groupby(["arm", "fold"]).ngroups == len(first.trained_s) == 2
    assert first.report.is_file() and first.report.is_relative_to(places.root / "reports")
    assert first.failures == {}
    assert {reason for one in first.evidence.pictures for reason in one.why.split(", ")} >= {"best", "worst"}
    for one in first.evidence.pictures:
        assert [panel.title for panel in one.panels] == ["truth", "baseline", "window=liver"]
        case = int(one.title.split("case ")[1].split(",")[0])
        ran = first.results.cases[
            (first.results.cases["case"] == case) & (first.results.cases["arm"] == "window=liver")
        ]
        metric = "dice_tumor" if "tumor Dice" in one.panels[2].caption else "dice_liver"
        assert f"Dice {ran[metric].iloc[0]:.2f} (fold {ran['fold'].iloc[0]}, seed 0)" in one.panels[2].caption
    failed = failed_runs(first.evidence)
    tracking = Tracking(places.tracking_uri, "tiny", places.root / "artifacts")
    tagged = {run.info.run_id: run.data.tags.get("failed_to_learn") for run in tracking.runs()}
    assert failed and {run_id: why for run_id, why in tagged.items() if why} == failed  # one step teaches nobody
    again = run_study(study, places, name="tiny", workers=1)
    assert again.trained_s == []
    assert repr(again.verdicts) == repr(first.verdicts)  # one pair of runs: NaN is among the numbers
    assert again.report.read_bytes() == first.report.read_bytes()


def test_without_training_the_report_tells_what_is_missing(study: StudyConfig, places: Places) -> None:
    conclusion = run_study(study, places, name="tiny", train=False)
    assert set(conclusion.results.runs["status"]) == {"MISSING"}
    assert conclusion.verdicts[0].verdict == "inconclusive"


def test_a_file_gives_the_study_and_its_name(study: StudyConfig, places: Places, tmp_path: Path) -> None:
    from litsexp.study.tracking import to_yaml

    file = tmp_path / "mine.yaml"
    file.write_text(to_yaml(study))
    assert litsexp.load_study(str(file)) == litsexp.load_study(file) == study
    assert run_study(str(file), places, train=False).experiment == "mine"
    with pytest.raises(litsexp.LitsexpError, match=r"gone\.yaml: cannot be read"):
        run_study(tmp_path / "gone.yaml", places)


def test_the_public_names_come_when_they_are_asked_for() -> None:
    code = "import sys, litsexp; print(*sorted(litsexp.__all__)); sys.exit(bool({'torch', 'mlflow'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    classes = ["AAResult", "Conclusion", "LitsexpError", "Places", "Predicted", "Scored"]
    functions = ["judge_table", "load_study", "predict", "register", "run_aa", "run_study", "score"]
    assert done.stdout.split() == [*classes, *functions]
    assert all(getattr(litsexp, name) for name in litsexp.__all__)
    assert set(litsexp.__all__) <= set(dir(litsexp))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        litsexp.__getattr__("nothing")


def test_an_edited_claim_never_changes_an_earlier_report(study: StudyConfig, places: Places) -> None:
    first = run_study(study, places, name="tiny", workers=1)
    kept = {path.name: path.read_bytes() for path in first.report.parent.iterdir()}
    claim = study.claims[0].model_copy(update={"says": "It helps a lot.", "margin": 0.1})
    edited = run_study(study.model_copy(update={"claims": (claim,)}), places, name="tiny", workers=1)
    assert edited.verdicts[0].post_hoc and not first.verdicts[0].post_hoc
    assert edited.report.parent.parent == first.report.parent and edited.report.parent.name.startswith("claims-")
    assert {name: (first.report.parent / name).read_bytes() for name in kept} == kept
    tracking = Tracking(places.tracking_uri, "tiny", places.root / "artifacts")
    (parent,) = (run for run in tracking.runs() if "claims_preregistered" in run.data.tags)
    for path, report in (("report.html", first), (f"{edited.report.parent.name}/report.html", edited)):
        assert tracking.artifact(parent.info.run_id, path) == report.report.read_bytes()
    assert f"{edited.report.parent.name}/report.html stands" in parent.data.tags["mlflow.note.content"]
    assert run_study(study, places, name="tiny", workers=1).report == first.report
