"""What the report says of runs: what intervals cover, how noisy training is, and which runs failed to learn."""

import dataclasses
import re

import pytest

from litsexp.evidence import report
from litsexp.evidence.controls import controls
from litsexp.evidence.judge import judge


def text_of(evidence):
    html = re.sub(r"<style>.*?</style>", "", report.render(evidence), flags=re.DOTALL)
    return " ".join(re.sub("<[^>]+>", " ", html).replace("\N{NO-BREAK SPACE}", " ").split())


@pytest.fixture(scope="module")
def text(shown):
    return text_of(shown)


def test_says_what_is_covered_and_by_which_statistics(text):
    for words in (
        "The interval covers new patients and new runs, on these training sets: ",
        "These trained models, new patients: [",
        "95 % interval: new patients and new runs, on these training sets; these models: these trained models",
        "Student’s t over patients and runs, adjusted for 2 claims (Holm)",
        "False claim: probability of a false claim as Claims Reloaded computes it (Christodoulou 2025)",
        "Patients and runs are the units.",
        "It does not cover other training cohorts: the folds’ training sets share patients.",
        "With fewer than 5 pairs of runs, or 6 patients, every verdict is inconclusive",
    ):
        assert words in text, words
    assert not re.search("bootstrap|BCa|sign-flip", text)


def test_the_verdict_table_holds_both_intervals_and_the_false_claim(shown):
    verdict = dataclasses.replace(shown.verdicts[0], false_claim=0.123, runs_share=0.626, n_run_pairs=77)
    text = text_of(dataclasses.replace(shown, verdicts=[verdict]))
    bounds = (verdict.low, verdict.high, verdict.models_low, verdict.models_high)
    low, high, models_low, models_high = (f"{bound:.3f}".replace("-", "−") for bound in bounds)
    assert f"[{low}, {high}] [{models_low}, {models_high}]" in text
    assert " 0.123 " in text
    assert "10 77 63 % " in text  # patients, run pairs, from runs


def test_the_noise_section_reads_the_baselines_halves(shown, text):
    tumor = next(each for each in shown.noise if each.metric == "dice_tumor")
    assert f"Here two halves of baseline differ by {tumor.halves:.2f} in tumor Dice on average" in text
    assert f"tumor Dice {tumor.run_sd:.3f} {tumor.halves:.3f} {tumor.halves_max:.3f}" in text
    assert "baseline, 6 runs." in text and "over 8 deals" in text


def test_with_one_seed_a_second_one_is_asked_for(make_evidence, make_study):
    text = text_of(make_evidence(make_study(seeds=[3])))
    assert "Run a second seed (seeds: [3, 4]) to see it." in text
    assert "two halves of" not in text and "Hatched" not in text


def test_two_seeds_of_which_one_is_missing_are_not_called_one(shown):
    cases = shown.cases[shown.cases["seed"] == 0]
    text = text_of(dataclasses.replace(shown, cases=cases))
    assert "No fold has two finished runs of baseline: run a second seed to see it." in text


def test_the_external_cohort_has_a_noise_floor_of_its_own(shown_elsewhere, text):
    assert "How noisy is training, seen from here" not in text
    there = text_of(shown_elsewhere)
    halves = shown_elsewhere.external_noise[0].halves
    assert "How noisy is training, seen from here" in there
    assert f"{halves:.3f}" in there.split("seen from here")[1]
    assert "All these patients meet the same runs; the interval covers that, too" in there


def test_runs_that_failed_to_learn_are_named_in_verdicts_and_runs(shown, text):
    assert "No finished run failed to learn." in text
    assert "A run failed to learn where its mean over its test patients lies below 0.1, or below half" in text
    cases = shown.cases.copy()
    cases.loc[(cases["arm"] == "init=scratch") & (cases["fold"] == 1) & (cases["seed"] == 0), "dice_tumor"] = 0.04
    made = dataclasses.replace(shown, cases=cases, verdicts=judge(shown.study, cases, None))
    text, why = text_of(made), "tumor Dice 0.04, below 0.1"
    caution = f"1 of 6 runs of init=scratch failed to learn, counted like any other: fold 1, seed 0 ({why})."
    assert text.count(caution) == 2  # one a claim that compares the arm
    assert f"1 of 17 finished runs failed to learn. init=scratch, fold 1, seed 0: {why}" in text
    assert "status reason failed to learn minutes" in text
    assert made.verdicts[0].n_run_pairs == 6


def test_a_search_has_no_noise_floor(make_evidence, make_study):
    asked = make_study(design="search", search={"trials": 5}, claims=[])
    assert make_evidence(asked).noise == []
    assert "A search does not tell" in text_of(make_evidence(asked))


def test_pretraining_stands_in_the_table_of_runs_where_some_run_has_it(shown):
    missing = float("nan")
    runs = shown.runs.assign(pretraining_steps=missing, pretraining_minutes=missing)
    assert "pretraining" not in text_of(dataclasses.replace(shown, runs=runs))
    runs.loc[0, ["pretraining_steps", "pretraining_minutes"]] = [500, 1.875]
    text = text_of(dataclasses.replace(shown, runs=runs))
    assert "pretraining steps pretraining minutes" in text and " 500 1.875 " in text


def pretraining_study(make_study, run, **parts):
    claim = {"id": "ssl", "says": "It helps.", "factor": "init", "better": "ssl:masked", "than": "scratch"}
    factors = {"factors": {"init": ["ssl:masked"]}, "claims": [claim]}
    return make_study(**factors, run={"init": "scratch", "epochs": 2, **run}, **parts)


def test_what_a_pretrained_arm_has_to_be_read_with(make_study):
    told = controls(pretraining_study(make_study, {"train_fraction": 0.25}))
    assert told == [
        "init=ssl:masked: pretrained on all training patients of its fold; train_fraction = 0.25 of them then trained "
        "with labels",
        "none for pretraining: a gain of ssl:masked over scratch may come from training longer alone; add an arm of "
        "scratch with the same compute to tell",
    ]
    longer = pretraining_study(make_study, {"steps_per_epoch": 5}, arms={"longer": {"steps_per_epoch": 50}})
    assert controls(longer) == []
    shorter = pretraining_study(make_study, {"steps_per_epoch": 5}, arms={"shorter": {"steps_per_epoch": 4}})
    assert len(controls(shorter)) == 1
