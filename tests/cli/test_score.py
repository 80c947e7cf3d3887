"""`litsexp score` as a person uses it: tables, files, every problem named, and a verdict at the end."""

import json
import math
import shutil
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import litsexp as package
from litsexp.data.phantom.cohort import write_cohort
from litsexp.data.phantom.patient import PhantomConfig

pytestmark = pytest.mark.usefixtures("elsewhere")
CASES = range(8)


@pytest.fixture
def run(litsexp):
    """``litsexp score`` in this process, one process in all: exit code, stdout, stderr."""
    return partial(litsexp, "score", "--processes", 1)


@pytest.fixture(scope="session")
def systems(tmp_path_factory):
    """CT in truth/, predictions of the systems good/ and bad/: all of eight patients."""
    root = tmp_path_factory.mktemp("score")
    write_cohort(root / "truth", PhantomConfig(len(CASES), seed=2, size=48, slices=10, lesions="large"), processes=1)
    for name, shift in (("good", 1), ("bad", 3)):
        (root / name).mkdir()
        for case in CASES:
            image = nib.load(root / "truth" / f"segmentation-{case}.nii.gz")
            labels = np.roll(np.asanyarray(image.dataobj), shift + case % 2, axis=0).astype(np.uint8)
            nib.save(nib.Nifti1Image(labels, image.affine), root / name / f"liver_{case}.nii.gz")
    return root


@pytest.fixture
def data(systems, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(systems, tmp_path / "data")


def made():
    return sorted(path.name for path in Path().iterdir() if path.name != "data")


def test_tables_of_one_system(run, systems):
    code, out, error = run(systems / "good", systems / "truth", "--surface")
    assert (code, error, made()) == (0, "", [])
    lines = out.splitlines()
    assert lines[0] == "good: 8 phantom cases"
    assert max(len(line) for line in lines if not line.startswith(("·", "!"))) <= 100
    for head in ("mean of cases   Dice", "NSD  n  missed", "lesions", "< 20 HU", "LiTS summary", "lesion_dice_global"):
        assert head in out
    assert "false lesions a case: " in out
    assert "gives no number: it ends with an error at a reference without lesions" in out  # one patient has no tumor
    assert "a tumor-free case (1): " in out


def test_json_and_csv_hold_what_the_api_gives(run, systems):
    words = ("--surface", "--tolerance", 1.5, "--json", "scores.json", "--csv", "scores.csv")
    code, _, error = run(systems / "good", systems / "truth", *words)
    assert (code, error, made()) == (0, "", ["scores.csv", "scores.json"])
    scored = package.score(systems / "good", systems / "truth", surface_mm=1.5, processes=1)
    table = pd.read_csv("scores.csv")
    pd.testing.assert_frame_equal(table, scored.cases, check_dtype=False)
    assert list(table)[:3] == ["arm", "case", "slices"]
    (content,) = json.loads(Path("scores.json").read_text())["systems"]
    assert (content["arm"], len(content["cases"])) == ("good", 8)
    assert content["lits"]["lesion_recall"] == pytest.approx(scored.summary["lesion_recall"])
    assert content["official"]["official_lesion_recall"] is None
    assert content["phantom"] is True
    assert content["differences"]["lesion_recall"].startswith("gives no number")
    free = int(table.loc[table["lesions_true"] == 0, "case"].iloc[0])
    assert content["cases"][free]["dice_tumor"] is None
    assert math.isnan(table["dice_tumor"][free])
    found = {row["lesions"]: row for row in content["summary"]["lesions"]}
    assert found["all"]["true"] == table["lesions_true"].sum()
    assert sum(found[name]["true"] for name in ("lt20hu", "20to40hu", "gt40hu")) == found["all"]["true"]


def test_json_alone_on_stdout(run, systems):
    code, out, error = run(systems / "good", systems / "bad", systems / "truth", "--json", "-")
    assert code == 0
    assert [system["arm"] for system in json.loads(out)["systems"]] == ["good", "bad"]
    assert "bad: 8 phantom cases" in error


def test_two_systems_and_a_verdict(run, litsexp, systems):
    """Five runs a system, of five folds each: the judge can support a claim about training."""
    for fold in range(5):
        for name in ("good", "bad"):
            folder = Path("data") / name / f"fold_{fold}" / "validation"
            folder.mkdir(parents=True)
            for case in CASES:
                if case % 5 == fold:
                    shutil.copy(systems / name / f"liver_{case}.nii.gz", folder)
    assert run("data/good", "data/bad", systems / "truth", "--surface", "--csv", "scores.csv")[0] == 0
    assert list(pd.read_csv("scores.csv"))[:4] == ["arm", "fold", "case", "slices"]
    claim = "{{id: {}, says: Good is better., metric: {}, better: good, than: bad, margin: 0.01}}"
    claims = [claim.format("dice", "dice_liver"), claim.format("near", "assd_liver")]
    Path("claims.yaml").write_text(f"claims: [{', '.join(claims)}]\n")
    code, out, error = litsexp("judge", "scores.csv", "claims.yaml", "--json", "verdicts.json")
    assert (code, error) == (0, "")
    assert "8 patients and 5 pairs of runs" in out
    assert "Higher is taken as better" not in out  # of a distance the judge knows that less is
    verdicts = json.loads(Path("verdicts.json").read_text())["verdicts"]
    assert [verdict["verdict"] for verdict in verdicts] == ["supported", "supported"]


def test_folders_of_one_arm_are_its_seeds(run, systems):
    words = [systems / "good", systems / "bad", systems / "good", systems / "truth"]
    code, _, _ = run(*words, "--csv", "s.csv", "--arm", "a", "--arm", "a", "--arm", "b")
    table = pd.read_csv("s.csv")
    assert code == 0
    assert table.groupby(["arm", "seed"]).size().to_dict() == {("a", 0): 8, ("a", 1): 8, ("b", 0): 8}


def test_every_bad_file_is_named_and_nothing_is_written(run, data):
    good = data / "good"
    (good / "liver_0.nii.gz").write_bytes((good / "liver_0.nii.gz").read_bytes()[:400])
    (good / "liver_1.nii.gz").unlink()
    (good / "liver_2.nii.gz").rename(good / "liver_two.nii.gz")
    image = nib.load(good / "liver_6.nii.gz")
    labels = np.asanyarray(image.dataobj)
    nib.save(nib.Nifti1Image(labels[:, :-1], image.affine), good / "liver_3.nii.gz")
    nib.save(nib.Nifti1Image(labels + 2, image.affine), good / "liver_4.nii.gz")
    (good / "liver_5.nii.gz").write_text("no mask")
    code, out, error = run(good, data / "bad", data / "truth", "--csv", "s.csv", "--json", "s.json")
    lines = error.splitlines()
    assert (code, out, made()) == (2, "", [])
    assert all(line.startswith("error: ") and "; " in line for line in lines)
    says = {
        "liver_0.nii.gz": "truncated",
        "segmentation-1.nii.gz": "found no prediction with number 1",
        "liver_two.nii.gz": "found no number in the prediction's name",
        "segmentation-2.nii.gz": "found no prediction with number 2",
        "liver_3.nii.gz": "shape (48, 47, 10) differs from the truth's (48, 48, 10)",
        "liver_4.nii.gz": "found label",
        "liver_5.nii.gz": "not a NIfTI file",
    }
    for name, said in says.items():
        assert sum(name in line.split(": ")[1] and said in line for line in lines) == 1
    assert len(lines) == len(says)


def test_partial_scores_what_is_in_both(run, data):
    (data / "good" / "liver_1.nii.gz").unlink()
    code, out, error = run(data / "good", data / "truth", "--partial")
    assert (code, error) == (0, "")
    assert out.startswith("good: 7 phantom cases")
    assert "! 1 of 8 cases of" in out


def test_without_ct_contrast_is_unknown_and_said_to_be(run, data):
    for path in (data / "truth").glob("volume-*"):
        path.unlink()
    code, out, _ = run(data / "good", data / "truth", "--csv", "s.csv")
    assert code == 0
    assert out.count("recall by contrast is unknown") == 1
    assert "< 20 HU" not in out and "< 10 mm" in out
    assert pd.read_csv("s.csv")["lesions_true_lt20hu"].isna().all()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["good", "good", "truth"], "--arm: found two folders called 'good'; expected names"),
        (["good", "truth", "--arm", "a", "--arm", "b"], "--arm: found 2 names for 1 folders; expected one a folder"),
        (["good", "truth", "--csv", "mine"], "mine: is there already; expected a new file"),
        (["good", "truth", "--json", "no/s.json"], "no/s.json: there is no folder no"),
        (["nowhere", "truth"], "nowhere: found nothing; expected a folder with masks whose names end"),
        (["good", "nowhere"], "nowhere: found nothing; expected a folder with segmentation-N"),
    ],
)
def test_bad_words_are_refused_in_one_line(refused, systems, words, says):
    Path("mine").write_text("mine")
    for name in ("good", "truth"):
        Path(name).symlink_to(systems / name)
    assert says in refused("score", *words)
    assert Path("mine").read_text() == "mine"


def test_the_api_names_all_problems_too(data):
    for case in (1, 6):
        (data / "good" / f"liver_{case}.nii.gz").unlink()
    with pytest.raises(package.LitsexpError, match=r"segmentation-1.nii.gz: .* \(and 1 more files\)") as error:
        package.score(data / "good", data / "truth", processes=1)
    assert len(error.value.problems) == 2


def test_processes_change_nothing(systems):
    one, two = (package.score(systems / "good", systems / "truth", surface_mm=2.0, processes=n) for n in (1, 2))
    pd.testing.assert_frame_equal(one.cases, two.cases)
    assert str(one.lits) == str(two.lits)


def test_help_teaches(run):
    code, out, _ = run("--help")
    assert code == 0
    for said in ("litsexp score nnunet_predictions ~/LiTS", "litsexp judge scores.csv claims.yaml", "Exit code 0"):
        assert said in out
