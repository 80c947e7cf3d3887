"""The report on somebody's table, and the tables beside it."""

import re

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence import figures
from litsexp.evidence.foreign.judged import judged
from litsexp.evidence.foreign.report import percent, render, write_all
from litsexp.spec.reading import as_claims


@pytest.fixture
def found(make_table, make_claim):
    table = make_table(np.random.default_rng(0)).replace({"new": "<b>Swin</b>", "old": "U-Net"})
    table["assd"] = 2 - table["kappa"]
    claim = make_claim(better="<b>Swin</b>", than="U-Net", says="Swin & co. help.")
    metrics = {"assd": {"words": "tumor ASSD", "higher_is_better": False, "unit": "mm"}}
    content = {"claims": [claim, claim | {"id": "surface", "metric": "assd"}], "metrics": metrics, "kind": "phantom"}
    return judged(table, as_claims(content), "/home/me/results.csv")


def test_the_report_tells_all_and_needs_nothing_else(found):
    html = render(found)
    assert html == render(found)
    for said in (
        *("<title>results.csv: What results.csv says about 2 claims</title>", "Swin &amp; co. help.", "phantom</span>"),
        *("One seed: training noise cannot be told from fold differences.", "it knows no noise of runs"),
        *("These trained models, new patients: 0.1", "Higher is taken as better in kappa", "5 pairs of runs"),
        *("tumor ASSD mm (less is better)", "all of them count as post hoc", "surface 0.02 mm"),
    ):
        assert said in html
    assert "<b>Swin" not in html
    assert "&lt;b&gt;Swin&lt;/b&gt; raised kappa by 0.1" in html
    assert not re.search(r'<script|<link|src="(?!data:)|href="(?!#)|@import|nan\b', html)
    assert "--ink: #1f2933" in html  # the studies' style sheet


def test_exploratory_comparisons_are_called_so(trainers):
    from litsexp.evidence.foreign.nnunet import default_claims, read_nnunet

    folders = read_nnunet(trainers)
    html = render(judged(folders.table, default_claims(folders, trainers), str(trainers), exploratory=True))
    assert "What Dataset003_Liver says about 2 comparisons" in html
    assert "Nobody claimed anything before these results" in html


def test_one_pair_of_runs_has_one_interval_and_no_nan(make_table, make_claim):
    table = make_table(np.random.default_rng(0), folds=1, patients=12)
    html = render(judged(table, as_claims({"claims": [make_claim()]}), "results.csv"))
    assert "One run an arm" in html
    assert "What can be told is about these trained models alone" in html
    assert not re.search(r"\bnan\b", html)


def test_arms_that_share_no_patient_can_be_shown(make_claim):
    table = pd.DataFrame({"arm": ["new", "old"], "case": [1, 2], "kappa": [0.5, 0.4]})
    html = render(judged(table, as_claims({"claims": [make_claim()]}), "results.csv"))
    assert "share no test patient" in html
    assert not re.search(r"\bnan\b", html)


def test_tables_for_papers(found, tmp_path):
    write_all(found, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("arms.csv", "arms.tex", "report.html"),
        *("verdicts.csv", "verdicts.tex"),
    ]
    verdicts = pd.read_csv(tmp_path / "verdicts.csv")
    assert verdicts["effect"].tolist() == pytest.approx([v.effect for v in found.verdicts])
    assert verdicts["models_low"].tolist() == pytest.approx([v.models_low for v in found.verdicts])
    assert verdicts["cohort"].tolist() == ["30 phantom patients of results.csv"] * 2
    arms = pd.read_csv(tmp_path / "arms.csv")
    assert arms["arm"].tolist() == ["U-Net", "U-Net", "<b>Swin</b>", "<b>Swin</b>"]
    assert arms["metric"].tolist() == ["kappa", "assd"] * 2
    expected = found.cases[found.cases["arm"] == "U-Net"].groupby("case")["kappa"].mean().mean()
    assert arms["mean"][0] == pytest.approx(expected)
    tex = (tmp_path / "verdicts.tex").read_text()
    assert "These models [95 \\% CI]" in tex
    assert "Claim (phantom)" in tex
    assert "tumor ASSD mm (less is better)" in (tmp_path / "arms.tex").read_text()


def test_a_percentage_is_never_shown_as_0():
    assert [percent(share) for share in (0.0, 0.0004, 0.001, 0.0623, 0.5)] == [
        *("< 0.1 %", "< 0.1 %", "0.1 %", "6.2 %"),
        "50.0 %",
    ]


def test_text_names_of_patients_stand_upright_and_numbers_lie(make_table, make_claim):
    table = make_table(np.random.default_rng(0))
    claims = as_claims({"claims": [make_claim()]})
    (named,) = judged(table, claims, "results.csv").verdicts
    (numbered,) = judged(table.assign(case=table["case"].rank(method="dense")), claims, "results.csv").verdicts
    texts, numbers = (figures.pairs(verdict, ("#000000", "#0072b2")) for verdict in (named, numbered))
    assert re.search(r"rotate\(-90[^>]*>p0_0<", texts)
    assert "case number" not in texts
    assert "(case number)" in numbers
    assert not re.search(r"rotate\(-90[^>]*>12<", numbers)


def test_a_long_arm_keeps_both_ends_beside_the_forest(make_table, make_claim):
    long = "nnUNetTrainerDA5__nnUNetPlans__3d_fullres"
    table = make_table(np.random.default_rng(0)).replace({"new": long})
    verdicts = judged(table, as_claims({"claims": [make_claim(better=long)]}), "results.csv").verdicts
    assert "nnUNetTrainerDA…_fullres − old" in figures.forest(verdicts)
