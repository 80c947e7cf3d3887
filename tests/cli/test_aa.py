"""The A/A test from the command line: its runs are the study's, and the study's are its own."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litsexp.spec.reading import load_study
from litsexp.study.executors import executor_of
from litsexp.study.keeping import keeps

from .conftest import CLAIM, STUDY, study_file

pytestmark = pytest.mark.usefixtures("elsewhere", "no_downloads")
Run = Callable[..., tuple[int, str, str]]
TEXT = STUDY.replace("init: scratch", "init: scratch, encoder: resnet18") + f"claims: [{CLAIM}]\n"


def tracked() -> list[Any]:
    from litsexp.study.tracking import Tracking

    return Tracking(f"sqlite:///{Path('mlruns').resolve()}/mlflow.db", "tiny-ct", Path("mlruns/artifacts")).runs()


def results() -> Path:
    (folder,) = Path("mlruns/reports").glob("tiny-ct-aa-*")
    return folder


def train_study(file: Path, places: list[object], *settings: str) -> tuple[int, dict[str, str]]:
    """The study itself: how many runs it trained, and the claims that were fixed before its first."""
    from litsexp.pipeline import opened, train_missing
    from litsexp.study.places import Places

    _, data, _, stores = map(str, places)
    asked = load_study(file, settings, Path(data))
    with opened(asked, "tiny-ct", Places.below(stores=Path(stores))) as session:
        train_missing(session, executor_of(None, 1, None), None)
        return len(session.trained_s), session.parent.preregistered


def test_an_aa_test_and_its_study_train_no_run_twice(litsexp: Run, places: list[object]) -> None:
    """A/A first; the study after it trains the other arm alone, and its claims stay fixed beforehand."""
    study = study_file(TEXT)
    code, out, error = litsexp("aa", study, "--seeds", 2, "--workers", 1, "--json", "aa.json", *places)
    assert code == 0, error
    assert "on ct, 6 phantom patients: 0 runs done before, 4 to train" in out
    assert "Test patients (ct, 6 phantom patients)" in out
    assert re.search(r"^dice_liver +\(\S+\) / \d+", out, re.MULTILINE)  # 2 pairs of runs: no verdict
    assert re.search(r"^dice_liver +\d\.\d{3} +\d\.\d{3} +\d of 4 +\d\.\d\d \d\.\d\d *$", out, re.MULTILINE)
    assert "All deals come from one sample of 4 runs" in out
    assert sorted(path.name for path in results().iterdir()) == ["aa.csv", "aa.json", "aa.svg"]
    assert Path("aa.json").read_text() == (results() / "aa.json").read_text()
    before = {path: path.read_bytes() for path in results().iterdir()}

    trained, fixed = train_study(study, places)
    assert trained == 2
    assert fixed == {"wide": load_study(study).claims[0].digest}
    changed = study_file(TEXT.replace("Wider is better.", "Wider is better as we see now."))
    assert train_study(changed, places, "seeds=[0,1]") == (2, {})  # a claim that came after the A/A test is post hoc
    study = study_file(TEXT)

    code, out, error = litsexp("aa", study, "--seeds", 2, "--workers", 1, *places)
    assert code == 0, error
    assert "4 runs done before, 0 to train" in out
    assert {path: path.read_bytes() for path in results().iterdir()} == before


def test_it_takes_over_the_studys_baseline_and_is_logged_in_its_experiment(
    litsexp: Run, refused: Callable[..., str], places: list[object]
) -> None:
    study = study_file(TEXT)
    assert train_study(study, places)[0] == 4
    code, out, error = litsexp("aa", study, "--seeds", 2, "--workers", 1, "--keep-weights", "none", *places)
    assert code == 0, error
    assert "2 runs done before, 2 to train" in out
    kept = {run.data.params["seed"]: keeps(run) for run in tracked() if run.data.params.get("arm") == "baseline"}
    assert kept == {"0": True, "1": False}
    (parent,) = [run for run in tracked() if "aa/false/dice_liver/k1" in run.data.metrics]
    shares = json.loads((results() / "aa.json").read_text())["false_verdicts"]
    logged = parent.data.metrics["aa/patients_only/dice_liver/k1"]
    assert logged == next(row["patients_only"] for row in shares if row["metric"] == "dice_liver")
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == f"phantom · {results().name}"
    assert "dice_liver, 1 seed an arm" in parent.data.tags["mlflow.note.content"]
    folder = Path("mlruns/artifacts/tiny-ct") / parent.info.run_id / "artifacts"
    assert {"aa.csv", "aa.json", "aa.svg"} <= {path.name for path in folder.iterdir()}
    Path("mine.json").touch()
    assert "mine.json: is there already" in refused("aa", study, "--seeds", 2, "--json", "mine.json", *places)


def test_runs_that_fail_leave_nothing_to_deal(litsexp: Run, refused: Callable[..., str], places: list[object]) -> None:
    error = refused("aa", study_file(TEXT), "--seeds", 2, "--set", "run.lr=1.0e+30", "--workers", 1, *places)
    assert "A/A test: found 0 finished runs on fold 0; expected 2 or more; baseline" in error
    assert "try a smaller run.lr" in error and error.endswith("mend that, and the same command goes on")
    assert not list(Path("mlruns").glob("reports/*"))


def test_a_cluster_is_asked_as_by_a_study(refused: Callable[..., str], places: list[object]) -> None:
    study = study_file(TEXT)
    ray = ("--executor", "ray", "--executor-option", "num_gpus=0.5")
    assert "--address" in refused("aa", study, *ray, *places)
    alien = refused("aa", study, "--executor-option", "partition=gpu", *places)
    assert "--executor-option partition=gpu: processes has none" in alien
    assert "--send-stores: found --executor on this machine" in refused("aa", study, "--send-stores", *places)
    assert not tracked()


def test_what_a_cluster_is_asked_arrives(litsexp: Run, places: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the executor and the training; what they make of it is the study's own tests'."""
    asked: dict[str, Any] = {}

    def engine(name: str, *words: Any) -> Any:
        asked["engine"] = name, words[:3]
        return executor_of(None, 1, None)

    def train(*_: Any, **words: Any) -> None:
        asked["training"] = words
        raise KeyboardInterrupt

    monkeypatch.setattr("litsexp.aa.executor_of", engine)
    monkeypatch.setattr("litsexp.aa.train_missing", train)
    words = ("--executor", "slurm", "--executor-option", "partition=gpu", "--workers", 3, "--retries", 2)
    assert litsexp("aa", study_file(TEXT), *words, *places)[0] == 130
    assert asked == {"engine": ("slurm", (3, None, ["partition=gpu"])), "training": {"retries": 2}}


def test_ctrl_c_is_one_line(litsexp: Run, places: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("litsexp.aa.run_aa", interrupted)
    said = "interrupted; finished runs are kept, and the same command goes on\n"
    assert litsexp("aa", study_file(TEXT), *places) == (130, "", said)


def test_one_seed_cannot_be_dealt(litsexp: Run, places: list[object]) -> None:
    import litsexp as package

    code, _, error = litsexp("aa", study_file(TEXT), "--seeds", 1, *places)
    assert code == 2
    assert "--seeds" in error
    with pytest.raises(package.LitsexpError, match="seeds: found 1; expected 2 or more"):
        package.run_aa("tiny.yaml", seeds=1)
