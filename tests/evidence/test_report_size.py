"""A report that mail carries: sixty runs with all their figures, and pictures up to their limit."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence import report, search_page, tables
from litsexp.evidence.judge import judge
from litsexp.evidence.material import Panel, SideBySide
from litsexp.spec.design import cells

WINDOWS = ["liver", "custom", "wide"]
CLAIMS = [
    {"id": f"claim-{factor}-{level}", "says": "It helps.", "factor": factor, "better": best, "than": level}
    for factor, best, levels in (
        ("window", "notebook", WINDOWS),
        ("dice_weight", 0.5, [0.0, 0.25, 0.75]),
        ("init", "imagenet", ["scratch", "shuffled"]),
        ("augment", "paper", ["none"]),
    )
    for level in levels
]


def test_sixty_runs_of_a_hundred_patients_stay_under_3_mb(make_evidence, make_study):
    claims = [claim | {"id": claim["id"].replace(".", "")} for claim in CLAIMS]
    factors = {
        "window": WINDOWS,
        "dice_weight": [0.0, 0.25, 0.75],
        "init": ["scratch", "shuffled"],
        "augment": ["none"],
    }
    asked = make_study(factors=factors, claims=claims, seeds=[0, 1])
    assert len(cells(asked)) == 60
    rng = np.random.default_rng(0)
    rows = [
        {"arm": cell.arm.name, "fold": cell.fold, "seed": cell.seed, "case": case}
        | {name: rng.uniform(0.2, 0.9) for name in ("dice_tumor", "dice_liver", "pixel_acc")}
        for cell in cells(asked)
        for case in range(cell.fold, 118, 3)
    ]
    cases = pd.DataFrame(rows)
    panels = [Panel("truth" if i == 0 else f"arm {i}", "tumor Dice 0.50", rng.bytes(12_000)) for i in range(11)]
    shown = [SideBySide(f"case {i}, z 9", "best", panels) for i in range(9)]
    made = make_evidence(asked, verdicts=judge(asked, cases, None))
    made = dataclasses.replace(made, cases=cases, pictures=shown, verdicts=judge(asked, cases, None))
    html = report.render(made)
    assert "more would make this file too large" in html
    assert html.count('role="img"') >= 11
    assert len(html.encode()) < 3_000_000, len(html.encode())


@pytest.fixture(scope="module")
def huge(make_evidence, make_study):
    """10,000 runs, of which 2,000 failed and 2,000 of the others learned nothing; 600 epochs of the first of them."""
    asked = make_study(factors={"init": ["scratch"]}, split={"folds": 5}, seeds=list(range(1000)))
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"arm": c.arm.name, "fold": c.fold, "seed": c.seed, "status": "FINISHED", "reason": "", "minutes": 1.5}
        for c in cells(asked)
    )
    assert len(table) == 10_000
    failed = table.index % 5 == 0
    table.loc[failed, ["status", "reason"]] = "FAILED", "the loss was not finite"
    done = table.loc[~failed, ["arm", "fold", "seed"]]
    cases = pd.concat([done.assign(case=2 * done["fold"] + patient) for patient in (0, 1)], ignore_index=True)
    cases["dice_liver"] = cases["dice_tumor"] = np.where(
        cases["seed"] % 4 == 1, 0.01, rng.uniform(0.6, 0.9, len(cases))
    )
    longer = done.iloc[:2].merge(pd.DataFrame({"epoch": range(600)}), how="cross")
    curves = pd.concat([longer, done.merge(pd.DataFrame({"epoch": range(3)}), how="cross")])
    curves = curves.assign(metric="valid/dice_tumor", value=rng.uniform(0.3, 0.6, len(curves)))
    notes = [f"run {number} failed: the loss was not finite" for number in range(2000)]
    of_runs = {"cases": cases, "runs": table, "curves": curves, "notes": notes, "verdicts": judge(asked, cases, None)}
    return dataclasses.replace(make_evidence(make_study()), study=asked, **of_runs)


def test_ten_thousand_runs_stay_under_10_mb_and_the_page_says_what_it_leaves_out(huge, tmp_path):
    html = report.render(huge)
    assert len(html.encode()) < 1_500_000, len(html.encode())
    assert "8000 of 10000 runs finished" in html
    for words in (
        "<summary>10000 runs</summary>",
        "The first 500 of 10,000; all are in runs.csv, beside this file.",
        "The first 500 of 2,000; all are in runs.csv, beside this file.",
        'And 1980 more: see <a href="#runs">Runs</a>.',
        "And 1500 more: all are in runs.csv, beside this file.",
        "Drawn are 200 of 600 epochs.",
        "1000 seeds (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, …)",
    ):
        assert words in html, words
    written = {path.name: path for path in tables.write_tables(huge, tmp_path)}
    runs = pd.read_csv(written["runs.csv"], keep_default_na=False)
    assert len(runs) == 10_000 and (runs["status"] == "FAILED").sum() == 2000
    assert runs["failed_to_learn"].str.contains("below 0.1").sum() == 2000
    assert set(runs["cohort"]) == {huge.cohort}
    assert "split.csv" not in written


def test_a_search_of_thousands_of_trials_names_the_file_of_all_of_them(make_evidence, make_study, tmp_path):
    asked = make_study(design="search", factors={}, search={"trials": 3000}, claims=[])
    rng = np.random.default_rng(0)
    trials = pd.DataFrame({"trial": range(3000), "state": "COMPLETE", "valid/score": rng.uniform(size=3000)})
    trials["lr"] = rng.uniform(1e-4, 1e-2, 3000)
    arms = [f"lr={lr:.12g}" for lr in trials["lr"]]
    cases = pd.DataFrame({"arm": arms, "fold": 0, "seed": 0, "case": 1, "dice_tumor": math.nan})
    cases = cases.assign(tp_tumor=0, fp_tumor=range(3000), fn_tumor=0)  # of a patient without tumor
    runs = pd.DataFrame({"arm": arms, "fold": 0, "seed": 0, "status": "FINISHED", "reason": "", "minutes": 1.0})
    made = make_evidence(asked, search=trials, cases=cases, runs=runs, curves=pd.DataFrame(), verdicts=[])
    html, page = report.render(made), search_page.render(made)
    assert len(html.encode()) < 1_500_000 and len(page.encode()) < 3_000_000, (len(html), len(page))
    assert "The first 500 of 3,000; all are in arms.csv, beside this file." in html
    assert "The first 500 of 3,000; all are in trials.csv, beside this file." in page
    tables.write_tables(made, tmp_path)
    assert "The first 500 of 3,000; all are in tumor_free.csv, beside this file." in html
    free = pd.read_csv(tmp_path / "tumor_free.csv")
    assert list(free) == ["cohort", "arm", "patients", "with_false_positives", "pixels_a_patient"]
    assert free[free["arm"] == arms[-1]].to_numpy().tolist() == [[made.cohort, arms[-1], 1, 1, 2999]]
    assert len(pd.read_csv(tmp_path / "trials.csv")) == pd.read_csv(tmp_path / "arms.csv")["arm"].nunique() == 3000


def test_a_small_studys_page_leaves_nothing_out_and_has_no_file_more(shown, tmp_path):
    html = report.render(shown)
    assert "<summary>All 18 runs</summary>" in html and "<summary>All 12 patients</summary>" in html
    assert "beside this file" not in html and "Drawn are" not in html
    assert not {"runs.csv", "split.csv", "trials.csv", "tumor_free.csv"} & {
        path.name for path in tables.write_tables(shown, tmp_path)
    }
