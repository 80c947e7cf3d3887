"""A sceptic's questions: each answer is the study's own."""

import dataclasses

import pandas as pd

from litsexp.evidence import report
from litsexp.evidence.glance import glance
from litsexp.evidence.judge import judge


def answers(evidence):
    return {asked.question: asked.answer for asked in glance(evidence)}


def test_every_answer_of_a_finished_study(shown):
    told = answers(shown)
    assert told["How many patients?"] == "12 phantom patients tested."
    assert told["How many runs, which seeds?"] == "17 of 18: 3 arms × 3 folds × 2 seeds (0, 1)."
    assert told["Was the test set touched?"].startswith("No: scored once a run")
    assert told["What would no learning score?"] == (
        "0.00 in tumor Dice (all background); 0.14 in liver Dice (liver everywhere)."
    )
    assert told["How noisy is training?"].startswith("Two halves of baseline differ by ")
    assert told["Did every run learn?"] == "Yes, every finished one. 1 did not finish."
    assert told["Were claims made before?"] == "No, pixels: read it as a suggestion."
    worst = shown.cases.groupby("case")["dice_tumor"].mean().idxmin()
    assert f"cases {worst} (" in told["Which patients fail?"]
    assert "Does it hold elsewhere?" not in told


def test_what_changes_with_the_study(shown, shown_elsewhere, make_study, make_evidence):
    free = shown.split.assign(tumor_pixels=[0, *[60] * 11], test_fold=[0] * 11 + [-1])
    told = answers(dataclasses.replace(shown_elsewhere, split=free))
    assert told["How many patients?"] == (
        "11 phantom patients tested, 1 of them without tumor; 1 more only to learn from; 8 more in an external cohort."
    )
    assert told["Does it hold elsewhere?"].lower().startswith("transfer: ")
    cases = shown.cases.copy()
    cases.loc[(cases["arm"] == "init=scratch") & (cases["fold"] == 1) & (cases["seed"] == 0), "dice_tumor"] = 0.0
    told = answers(dataclasses.replace(shown, cases=cases))
    assert told["Did every run learn?"].startswith("No: 1 of 17 failed to learn (1 of init=scratch)")
    kept = make_study(claims=[shown.study.claims[0].model_dump()])
    verdicts = judge(kept, shown.cases, {"transfer": kept.claims[0].digest})
    told = answers(make_evidence(kept, verdicts=verdicts))
    assert told["Were claims made before?"].startswith("Yes, 1, by digest (")


def test_a_search_and_a_study_without_runs(make_evidence, make_study):
    search = make_study(design="search", search={"trials": 5}, claims=[])
    told = answers(make_evidence(search))
    assert told["How noisy is training?"] == "A search cannot tell."
    assert "chose nothing" in told["Was the test set touched?"]
    empty = pd.DataFrame()
    told = answers(make_evidence(cases=empty, runs=empty, trivial=empty, curves=empty, verdicts=[]))
    assert told["Did every run learn?"] == "No run has finished."
    assert told["What would no learning score?"] == "Nothing was scored."


def test_every_answer_names_a_section_that_is_there(shown_elsewhere):
    html = report.render(shown_elsewhere)
    assert all(f'<section id="{asked.section}"' in html for asked in glance(shown_elsewhere))
