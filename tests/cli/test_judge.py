"""`litsexp judge` as a person uses it: what is said, what is written, and exit codes."""

import json
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("elsewhere")
ROWS = [(fold, seed, case) for fold in range(3) for seed in range(2) for case in range(4)]


@pytest.fixture
def run(litsexp):
    return partial(litsexp, "judge")


def write(gain=0.1, better="new"):
    """results.csv and claims.yaml: 12 patients, 6 pairs of runs, ``new`` ahead by so much."""
    lines = ["arm,fold,seed,case,dice_tumor"]
    for number, (fold, seed, case) in enumerate(ROWS):
        score = 0.4 + 0.02 * case + 0.01 * (number % 3)
        lines += [f"old,{fold},{seed},p{fold}{case},{score}"]
        lines += [f"new,{fold},{seed},p{fold}{case},{score + gain + 0.004 * (number % 5 - 2)}"]
    Path("results.csv").write_text("\n".join(lines))
    than = {"new": "old", "old": "new"}[better]
    claim = f"{{id: new, says: It helps., metric: dice_tumor, better: {better}, than: {than}, margin: 0.02}}"
    Path("claims.yaml").write_text(f"claims: [{claim}]\n")


@pytest.mark.parametrize(
    ("gain", "better", "ruling", "code", "strict"),
    [
        (0.1, "new", "supported", 0, 0),
        (0.1, "old", "contradicted", 1, 1),
        (0.0, "new", "equivalent", 0, 1),
    ],
)
def test_the_exit_code_is_for_a_pipeline(run, gain, better, ruling, code, strict):
    write(gain, better)
    ended, out, _ = run("results.csv", "claims.yaml")
    assert ended == code
    assert ruling in out
    assert f"{better} " in out
    assert "these trained models, new patients:" in out
    assert "which knows no noise of runs" in out
    assert run("results.csv", "claims.yaml", "--strict")[0] == strict


def test_report_and_tables_are_new_or_refused(run, refused, files):
    write()
    assert run("results.csv", "claims.yaml", "--out", "verdicts")[0] == 0
    made = ["arms.csv", "arms.tex", "report.html", "verdicts.csv", "verdicts.tex"]
    assert files(Path("verdicts")) == made
    before = Path("verdicts/report.html").read_bytes()
    error = refused("judge", "results.csv", "claims.yaml", "--out", "verdicts")
    assert error.startswith("error: --out verdicts: is there already; expected a new or empty folder")
    assert Path("verdicts/report.html").read_bytes() == before


def test_json_alone_on_stdout(run):
    write()
    code, out, error = run("results.csv", "claims.yaml", "--json", "-")
    content = json.loads(out)
    assert code == 0
    assert (content["table"], content["exploratory"], content["notes"]) == ("results.csv", False, [])
    (verdict,) = content["verdicts"]
    assert (verdict["claim"], verdict["verdict"], verdict["run_pairs"]) == ("new", "supported", 6)
    assert verdict["false_claim"] < 0.05
    assert "supported" in error


def test_nothing_is_null_in_disguise_and_a_file_is_not_overwritten(run, refused):
    write()
    table = Path("results.csv").read_text().splitlines()
    Path("results.csv").write_text("\n".join([table[0], *[line for line in table if ",0,0," in line]]))
    assert run("results.csv", "claims.yaml", "--json", "verdicts.json")[0] == 0
    content = json.loads(Path("verdicts.json").read_text())
    assert content["verdicts"][0]["low"] is None
    assert content["verdicts"][0]["models_low"] > 0
    assert "verdicts.json: is there already" in refused(
        "judge", "results.csv", "claims.yaml", "--json", "verdicts.json"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "judge: found no file; expected TABLE and CLAIMS.yaml, or --from-nnunet DIR"),
        (["results.csv"], "judge: found results.csv; expected TABLE and CLAIMS.yaml"),
        (["--from-nnunet", "d", "a", "b"], "judge: found a, b; expected --from-nnunet DIR and at most CLAIMS.yaml"),
        (["--from-nnunet", "d"], "d: found no folder; expected one with nnU-Net's trainers"),
        (["--from-nnunet", "d", "--strict"], "--strict: found no claims file"),
        (["no.csv", "claims.yaml"], "no.csv: cannot be read"),
        (["results.csv", "no.yaml"], "no.yaml: cannot be read"),
    ],
)
def test_bad_words_are_refused_in_one_line(refused, words, said):
    write()
    assert refused("judge", *words).startswith(f"error: {said}")


def test_two_trainers_of_nnunet_without_claims_are_exploratory(run, tmp_path):
    for trainer, hits in (("nnUNetTrainer", 50), ("nnUNetTrainerDA5", 40)):
        for fold in range(5):
            file = tmp_path / "Dataset003" / f"{trainer}__nnUNetPlans__2d" / f"fold_{fold}/validation/summary.json"
            file.parent.mkdir(parents=True)
            cases = [
                {
                    "metrics": {"1": {"Dice": (hits + fold + i) / 100}},
                    "reference_file": f"/gt/liver_{9 * fold + i}.nii.gz",
                }
                for i in range(4)
            ]
            file.write_text(json.dumps({"metric_per_case": cases}))
    code, out, _ = run("--from-nnunet", "Dataset003")
    assert "nnUNetTrainerDA5 lowered Dice of label 1 by 0.10" in out
    assert "contradicted" in out
    assert "Exploratory: nobody claimed this before the results" in out
    assert code == 0  # nothing was claimed


def test_help_teaches(run):
    code, out, _ = run("--help")
    assert code == 0
    for said in ("litsexp judge results.csv claims.yaml", "Exit code 0", "margin", "--from-nnunet"):
        assert said in out
