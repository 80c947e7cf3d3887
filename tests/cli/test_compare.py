"""`litsexp report --compare` on tiny studies that really ran: the same one twice, and with another seed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from litsexp.data.store import Store
from litsexp.pipeline import run_study
from litsexp.spec.study import StudyConfig
from litsexp.study.places import Places

pytestmark = pytest.mark.usefixtures("elsewhere")

Run = Callable[..., tuple[int, str, str]]
STUDY = {
    "question": "Does a wide window help?",
    "split": {"folds": 2, "valid": 0.25},
    "run": {"init": "scratch", "architecture": "unet", "decoder_width": 16, "window": "wide", "augment": "none"}
    | {"epochs": 1, "steps_per_epoch": 1, "batch_size": 4},
    "factors": {"window": ["liver"]},
    "claims": [{"id": "wide", "says": "It helps.", "metric": "dice_liver", "factor": "window"}
               | {"better": "wide", "than": "liver"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, new_places: Any, phantom_store: Store) -> Path:
    """old/mlruns and new/mlruns, which ran the same study; new/mlruns before that with another seed, too."""
    folder, data = tmp_path_factory.mktemp("compared"), phantom_store.directory.parents[1]
    for name, seeds in (("old", [0, 1, 2]), ("new", [3]), ("new", [0, 1, 2])):
        root = folder / name / "mlruns"
        if not root.is_dir():
            new_places(folder / name)
        study = StudyConfig.model_validate({**STUDY, "seeds": seeds, "data": {"cohort": str(data / "ct"), "size": 64}})
        run_study(study, Places.below(root, stores=data), name="tiny", workers=1)
    return folder


@pytest.fixture
def both(ran: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies in another place, as a pipeline restores them: artifacts lie no longer where MLflow says."""
    return tuple(Path(shutil.copytree(ran / name / "mlruns", tmp_path / name)) for name in ("old", "new"))


def reports(root: Path) -> list[Path]:
    return sorted(root.glob("reports/tiny-*"), key=lambda path: path.stat().st_mtime)


def spoil(root: Path, arm: str, less: float) -> None:
    """Take so much from every liver Dice of an arm's runs, as a regression would."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root.resolve()}/mlflow.db")
    (experiment,) = [found for found in client.search_experiments() if found.name == "tiny"]
    for run in client.search_runs([experiment.experiment_id], f"params.arm = '{arm}'"):
        path = root / "artifacts" / "tiny" / run.info.run_id / "artifacts" / "cases.parquet"
        table = pd.read_parquet(path)
        table.assign(dice_liver=table["dice_liver"] - less).to_parquet(path, index=False)


def test_the_same_study_again_is_identical_wherever_its_folder_lies(litsexp: Run, both: tuple[Path, Path]) -> None:
    code, out, error = litsexp("report", "--compare", *both, "--strict")
    assert code == 0, out + error
    assert "Nothing differs that is recorded" in out
    assert "Identical: every score of every pair of runs is bitwise the same." in out
    assert "Phantom results (A: ct, 6 phantom patients): the patients are synthetic." in out
    assert "phantom arm:" in out  # a narrow terminal breaks the line there
    (folder,) = both[1].glob("reports/compare-*")
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert 'class="badge phantom"' in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "<script" not in html
    assert "phantom" in (folder / "arms.csv").read_text()
    assert "(phantom)" in (folder / "claims.tex").read_text()
    assert litsexp("report", "--compare", *both)[0] == 0  # again: the report is written anew
    assert (folder / "report.html").read_text(encoding="utf-8") == html


def test_another_seed_is_paired_by_order_and_unclear_with_so_few(litsexp: Run, both: tuple[Path, Path]) -> None:
    old, new = both
    seed = next(path for path in reports(new) if path.name != reports(old)[0].name)
    for words in (seed, seed / "report.html", f"{new}:{seed.name}"):
        code, out, error = litsexp("report", "--compare", old, words, "--json", "-", "--out", f"rep-{len(str(words))}")
        assert code == 0, out + error
        content = json.loads(out)
        assert "no seed in common: runs are paired by arm, fold and the order of their seeds" in content["pairing"]
        assert [row["what"] for row in content["differences"]] == ["seeds"]
        assert {row["verdict"] for row in content["arms"]} == {"unclear"}
        assert content["phantom"] is True
        assert "2 pairs of runs cannot settle it; at least 5 are needed" in error
    assert litsexp("report", "--compare", old, seed, "--strict")[0] == 1


def test_what_got_worse_ends_with_1_and_is_named(litsexp: Run, both: tuple[Path, Path]) -> None:
    old, new = both
    spoil(new, "baseline", 0.3)
    code, out, error = litsexp("report", "--compare", old, new, "--json", "found.json")
    assert code == 1, out + error
    found = json.loads(Path("found.json").read_text())
    assert found["exit_code"] == 1
    verdicts = {(row["arm"], row["metric"]): row["verdict"] for row in found["arms"]}
    assert verdicts.pop(("baseline", "dice_liver")) == "worse"
    assert set(verdicts.values()) == {"identical"}
    (claim,) = found["claims"]
    assert (claim["ruling_b"], claim["verdict"], claim["worse"]) == ("contradicted", "worse", True)
    assert claim["effect"] == pytest.approx(-0.3)
    assert "baseline, liver Dice: -0.300" in out
    assert litsexp("report", "--compare", new, old)[0] == 0  # the other way round it got better


def test_a_study_is_found_by_run_id_name_and_file(
    litsexp: Run, refused: Callable[..., str], both: tuple[Path, Path]
) -> None:
    old, new = both
    _, out, _ = litsexp("report", "--compare", old, f"{new}:tiny", "--json", "-", "--out", "a")
    there = json.loads(out)["b"]["run"]
    Path("tiny.yaml").write_text("")  # its name alone counts
    for words in ([there], ["tiny"]):
        code, out, error = litsexp("report", "--compare", old, *words, "--mlruns", new, "--json", "-")
        assert code == 0, error
        assert json.loads(out)["b"]["run"] == there
    assert litsexp("report", "tiny.yaml", "--compare", old, new)[0] == 0
    said = refused("report", "other.yaml", "--compare", old, new)
    assert "found no finished study 'other'" in said
    assert "expected one of tiny, or a parent run's id" in said
    assert "found one study twice" in refused("report", "--compare", new, f"{new}:{there}")
    child = next(path.name for path in (new / "artifacts/tiny").iterdir() if (path / "artifacts/run.json").is_file())
    said = refused("report", "--compare", old, f"{new}:{child}")
    assert "found one run of a study; expected the study's parent run, which is" in said


def test_wrong_input_is_one_line(refused: Callable[..., str], new_places: Any, tmp_path: Path) -> None:
    new_places(tmp_path)
    Path("empty").mkdir()
    assert "found no study file; expected FILE.yaml, or --compare STUDY_A STUDY_B" in refused("report")
    assert "--strict: found with FILE.yaml alone" in refused("report", "x.yaml", "--strict")
    assert "--native: found with --compare" in refused("report", "--compare", "a", "b", "--native")
    assert "found neither mlflow.db in it nor a study's report" in refused("report", "--compare", "empty", "mlruns")
    assert "found no mlflow.db in empty" in refused("report", "--compare", "empty:tiny", "mlruns")
    assert "found no finished study in" in refused("report", "--compare", "mlruns", "mlruns")
    assert "no finished study 'gone'" in refused("report", "--compare", "gone", "mlruns")
    assert "--mlruns empty: found no mlflow.db" in refused("report", "--compare", "gone", "x", "--mlruns", "empty")
    Path("broken").mkdir()
    Path("broken/mlflow.db").write_text("no database, but long enough to be taken for one at first sight")
    assert "MLflow does not answer" in refused("report", "--compare", "broken", "mlruns")
    uri = "sqlite:////nowhere/mlflow.db"
    assert "found no database" in refused("report", "--compare", "gone", "x", "--tracking-uri", uri)
    Path("found.json").write_text("")
    assert "is there already" in refused("report", "--compare", "a", "b", "--json", "found.json")
