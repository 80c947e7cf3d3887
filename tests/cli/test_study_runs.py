"""Studies from the command line that run: arms that fail, claims that nothing answers, external cohorts."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from litsexp.data.store import Store

from .conftest import CLAIM, STUDY, study_file

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def elsewhere_ct(external_store: Store) -> Path:
    """CT volumes of the tests' other scanner."""
    return external_store.directory.parents[1] / "elsewhere"


def cell_runs() -> list[Any]:
    from litsexp.study.tracking import Tracking

    tracking = Tracking(f"sqlite:///{Path('mlruns').resolve()}/mlflow.db", "tiny-ct", Path("mlruns/artifacts"))
    return [run for run in tracking.runs() if "run_key" in run.data.tags]


def test_arms_that_fail_are_named_and_the_study_goes_on(
    litsexp: Callable[..., tuple[int, str, str]], places: list[object], no_downloads: None
) -> None:
    """A learning rate with which the loss is soon not finite."""
    text = STUDY.replace("factors: {window: [wide]}", f"factors: {{lr: [1.0e+30], window: [wide]}}\nclaims: [{CLAIM}]")
    study = study_file(text.replace("init: scratch", "init: scratch, encoder: resnet18"))
    code, out, error = litsexp("study", study, "--workers", 1, *places)
    assert code == 1, error
    assert "Traceback" not in out + error
    assert "Is a wide window [better]?" in out
    assert "2 failed: training loss is" in out or "2 failed: validation loss is" in out
    assert "lr=1e+30 · fold 1 · seed 0" in out
    assert "wide: " in out  # a verdict all the same
    assert "The same command runs the failed ones again." in out
    runs = cell_runs()
    assert sorted(run.info.status for run in runs) == ["FAILED"] * 2 + ["FINISHED"] * 4
    failed = [run.data.tags["reason"] for run in runs if run.info.status == "FAILED"]
    assert all("try a smaller run.lr" in reason for reason in failed)


def test_weights_that_cannot_be_had_are_told_before_the_first_run(
    refused: Callable[..., str], places: list[object], no_downloads: None
) -> None:
    """Whichever arm needs them: a file of another network, and weights that cannot be fetched."""
    save_file({"weight": np.zeros(3, np.float32)}, "[closed].safetensors")
    file = "'file:[closed].safetensors'"
    changes = {"imagenet": "no ImageNet weights for resnet18", file: "do not fit encoder resnet18"}
    for level, said in changes.items():
        text = STUDY.replace("factors: {window: [wide]}", f"factors: {{window: [wide], init: [{level}]}}")
        study = study_file(text.replace("init: scratch", "init: scratch, encoder: resnet18"))
        assert said in refused("study", study, *places)
    assert cell_runs() == []


def test_an_external_cohort_is_scored_by_every_run_and_told_apart(
    litsexp: Callable[..., tuple[int, str, str]], places: list[object], no_downloads: None, elsewhere_ct: Path
) -> None:
    text = STUDY.replace("init: scratch", "init: scratch, encoder: resnet18")
    claim = CLAIM.replace("factor:", "metric: dice_liver, factor:")
    study = study_file(text + f"claims: [{claim}]\nexternal: {{patients: 3, seed: 1}}\n")
    code, out, error = litsexp("study", study, "--workers", 1, *places, "--external", elsewhere_ct)
    assert code == 0, error
    assert "on ct, 6 phantom patients: 0 runs done before, 4 to train" in out
    assert "Phantom results (ct, 6 phantom patients): the patients are synthetic." in out
    assert re.search(r"^phantom claim +effect", out, re.MULTILINE)
    assert re.search(r"^wide: .* on 6 phantom patients", out, re.MULTILINE)
    heading = "On the external cohort (elsewhere, 3 phantom patients), from which nothing was learned:\n"
    told = out[out.index(heading) : out.index("report:")]
    said = re.search(r"^wide: [+-]\d\.\d+ \[.*\] on (.*)", told, re.MULTILINE)
    assert said
    assert said[1].startswith("3 external phantom patients and 2 pairs of runs: ")
    assert "inconclusive there" in said[1]  # three are too few
    found = re.search(r"report: (.*report\.html)", out)
    assert found
    report = Path(found[1]).read_text()
    assert 'id="external"' in report
    assert f"--external {elsewhere_ct}" in report  # in the command that repeats it
    assert cell_runs()[0].data.tags["external_cohort"] == "elsewhere, 3 phantom patients"
    code, again, error = litsexp("report", study, *places, "--external", elsewhere_ct)
    assert code == 0, error
    assert told in again
    assert Path(found[1]).read_text() == report


def test_data_leave_out_the_files_phantom_external_cohort(
    litsexp: Callable[..., tuple[int, str, str]], places: list[object]
) -> None:
    code, out, error = litsexp("report", study_file(STUDY + "external: {patients: 3, seed: 1}\n"), *places)
    assert code == 0, error
    assert "external" not in out
    report = next(Path("mlruns/reports").glob("*/report.html")).read_text()
    assert 'id="external"' not in report
    assert "external: null" in report


def test_a_claim_that_no_run_can_answer_ends_the_study_in_one_line(
    refused: Callable[..., str], litsexp: Callable[..., tuple[int, str, str]], places: list[object], no_downloads: None
) -> None:
    """Every run fails; after those of one arm no other can change that."""
    text = STUDY.replace("init: scratch", "init: scratch, encoder: resnet18, lr: 1.0e+30") + f"claims: [{CLAIM}]"
    study = study_file(text)
    error = refused("study", study, "--workers", 1, *places)
    assert "claim wide can no longer be answered: no pair of its runs is left" in error
    assert "try a smaller run.lr" in error
    assert {run.info.status for run in cell_runs()} == {"FAILED"}
    failed = len(cell_runs())
    code, out, error = litsexp("report", study, *places)
    assert code == 0, error
    assert "inconclusive" in out
    found = re.search(r"report: (.*report\.html)", out)
    assert found
    assert "try a smaller run.lr" in Path(found[1]).read_text()
    assert [run.info.status for run in cell_runs()] == ["FAILED"] * failed  # a report trains nothing


def test_an_external_cohort_named_later_trains_nothing(
    litsexp: Callable[..., tuple[int, str, str]], places: list[object], no_downloads: None, elsewhere_ct: Path
) -> None:
    study = study_file(STUDY.replace("init: scratch", "init: scratch, encoder: resnet18") + f"claims: [{CLAIM}]\n")
    assert litsexp("study", study, "--workers", 1, *places)[0] == 0
    before = {run.info.run_id: run.info.end_time for run in cell_runs()}
    code, out, error = litsexp("study", study, "--workers", 1, *places, "--external", elsewhere_ct)
    assert code == 0, error
    assert "4 runs done before, 0 to train, 4 to score" in out
    assert "On the external cohort (elsewhere, 3 phantom patients)" in out
    assert {run.info.run_id: run.info.end_time for run in cell_runs()} == before
    for run in cell_runs():
        assert run.data.tags["external_cohort"] == "elsewhere, 3 phantom patients"
        assert "external/dice_liver" in run.data.metrics
    assert len(list(Path("mlruns/reports").glob("*/report.html"))) == 2  # the one without is as it was


def test_a_leaking_study_says_so_at_its_start_beside_its_verdicts_and_in_mlflow(
    litsexp: Callable[..., tuple[int, str, str]], places: list[object], no_downloads: None
) -> None:
    """Both arms leak here, on the study file's own split of patients."""
    study = study_file(STUDY.replace("init: scratch", "init: scratch, encoder: resnet18") + f"claims: [{CLAIM}]\n")
    code, out, error = litsexp("study", study, "--workers", 1, "--set", "split.unit=slice", *places)
    assert code == 0, out + error
    said = "LEAKING: every arm learned from other slices of the patients that test it; no score or verdict here is"
    assert out.index(said) < out.index("0 runs done before")
    assert out.count(said) == 2
    (row,) = re.findall(r"inconclusive[^\n]*\n?[^\n]*", out.partition("verdict")[2].partition("95 % interval:")[0])
    assert "(leaking)" in row  # on the next line where a narrow terminal wraps the column
    assert "already seen phantom patients" in out
    assert all(run.data.tags["leaks"] == "true" for run in cell_runs())
    (report,) = Path("mlruns/reports").glob("*/report.html")
    assert said in report.read_text(encoding="utf-8")


def test_whole_volumes_are_scored_later_and_told_in_report_and_mlflow(
    litsexp: Callable[..., tuple[int, str, str]],
    refused: Callable[..., str],
    places: list[object],
    no_downloads: None,
    tmp_path: Path,
) -> None:
    text = STUDY.replace("init: scratch", "init: scratch, encoder: resnet18")
    study = study_file(text)
    asked = [*places[:2], "--stores", tmp_path / "data"]
    code, _, error = litsexp("study", study, "--workers", 1, "--set", "data.size=32", *asked)
    assert code == 0, error
    reports = Path("mlruns/reports")
    before = next(reports.rglob("report.html")).read_text()
    assert "Whole volumes at native resolution" not in before
    code, out, error = litsexp("score-runs", study, "--native", "--workers", 1, "--set", "data.size=32", *asked)
    assert code == 0, error
    assert "4 runs done before, 0 to train, 4 to score" in out
    assert "Whole volumes at native resolution" in next(reports.rglob("report.html")).read_text()
    assert next(reports.rglob("lesions.csv")).read_text().count("\n") > 10
    for run in cell_runs():
        assert {"native/dice_liver", "native/dice_tumor", "lesions/false", "lesions/recall"} <= run.data.metrics.keys()
        assert run.data.metrics["test/dice_liver"] != run.data.metrics["native/dice_liver"]
    code, out, _ = litsexp("score-runs", study, "--native", "--workers", 1, "--set", "data.size=32", *asked)
    assert code == 0 and "to score" not in out
    leaking = study_file(text.replace("seed: 0}", "seed: 0, unit: slice}"))
    assert "found a study in which an arm leaks" in refused("score-runs", leaking, "--native", *asked)
