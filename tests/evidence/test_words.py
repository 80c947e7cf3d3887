"""Cautions: what stands beside a verdict, where it makes sense, and which way is better."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence.judge import judge
from litsexp.evidence.noise import Noise
from litsexp.evidence.words import cautions, enough_digits, limits, named, noise, patients, plain, uncertainty


def verdict_of(make_study, metric, better, than, **columns):
    """A verdict on eight patients whose arms score ``better`` and ``than`` in a column."""
    levels = {"factor": "init", "better": "imagenet", "than": "scratch"}
    asked = make_study(claims=[{"id": "a", "says": "x", "metric": metric, **levels}])
    rows = [
        {"arm": arm, "fold": case % 3, "seed": 0, "case": case} | {name: f(value) for name, f in columns.items()}
        for arm, value in (("baseline", better), ("init=scratch", than))
        for case in range(8)
    ]
    return judge(asked, pd.DataFrame(rows), None)[0]


def same(value):
    return value


def trivial(**scores):
    """``scores``: predictor -> its score in the same eight patients; two others are scored, too."""
    return lambda column: pd.DataFrame(
        [
            {"predictor": name.replace("_", " "), "case": case, column: value if case < 8 else 99}
            for name, value in scores.items()
            for case in range(10)
        ]
    )


def test_neither_arm_beats_what_learns_nothing(make_study):
    nothing = trivial(all_background=0.93, liver_everywhere=0.07)("pixel_acc")
    found = cautions(verdict_of(make_study, "pixel_acc", 0.9, 0.8, pixel_acc=same), nothing)
    assert found == ["Neither arm beats “all background”, which scores 0.93 in pixel accuracy and learns nothing."]
    assert cautions(verdict_of(make_study, "pixel_acc", 0.95, 0.8, pixel_acc=same), nothing) == []


def test_a_score_of_0_beats_nobody_where_more_is_better(make_study):
    found = cautions(
        verdict_of(make_study, "dice_tumor", 0.0, 0.0, dice_tumor=same), trivial(all_background=0.0)("dice_tumor")
    )
    assert found == ["Both arms stay below 0.1: two models that hardly segment are compared."]


def test_where_less_is_better_the_lower_score_beats(make_study):
    verdict = verdict_of(make_study, "lesions_false", 3.0, 4.0, lesions_false=same)
    nothing = trivial(all_background=0.0, liver_everywhere=3.5)("lesions_false")
    assert cautions(verdict, nothing) == [
        "Neither arm beats “all background”, which scores 0.00 a case in false lesions and learns nothing."
    ]
    few = verdict_of(make_study, "burden_error", 0.01, 0.02, burden_predicted=same, burden_true=lambda _: 0.0)
    assert cautions(few, nothing) == []  # errors below 0.1 are no failure; these predictors have no burden scored


def test_why_patients_are_left_out(make_study):
    verdict = verdict_of(make_study, "lesion_recall", 1, 1, lesions_detected=same, lesions_true=lambda _: 1)
    assert (verdict.n_undefined, cautions(verdict, pd.DataFrame())) == (0, [])
    none = verdict_of(make_study, "lesion_recall", 0, 0, lesions_detected=same, lesions_true=lambda _: 0)
    assert cautions(none, pd.DataFrame()) == [
        "Left out: 8 patients whose lesion recall is undefined (no lesion to find)."
    ]
    assert none.reason == "lesion recall is undefined in every patient"


def test_scores_that_one_pair_lacks_are_counted(make_study):
    verdict = dataclasses.replace(verdict_of(make_study, "dice_tumor", 0.5, 0.4, dice_tumor=same), n_dropped=3)
    assert cautions(verdict, pd.DataFrame()) == [
        "Left out: 3 scores of the others, undefined (no tumor to find) in one run of a pair or in both."
    ]
    (one,) = cautions(dataclasses.replace(verdict, n_dropped=1), pd.DataFrame())
    assert one.startswith("Left out: 1 score of the others, undefined")


def test_what_the_interval_covers_what_limits_it_and_these_models(shown):
    verdict = dataclasses.replace(shown.verdicts[0], runs_share=0.626, models_low=0.0612, models_high=0.1388)
    assert uncertainty(verdict) == (
        "The interval covers new patients and new runs, on these training sets: "
        "63 % of its variance comes from runs, 37 % from patients. These trained models, new patients: [0.06, 0.14]."
    )
    lowered = dataclasses.replace(verdict, verdict="contradicted", models_low=-0.1388, models_high=-0.0612)
    assert "lowered tumor Dice" in lowered.sentence
    assert uncertainty(lowered) == uncertainty(verdict)  # turned as the sentence turns its numbers


def test_without_an_interval_nothing_is_claimed_of_it(shown):
    one_pair = dataclasses.replace(shown.verdicts[0], low=math.nan, high=math.nan, runs_share=math.nan)
    assert uncertainty(one_pair).startswith("No interval covers new runs. These trained models, new patients: [")
    one_patient = dataclasses.replace(one_pair, models_low=math.nan, models_high=math.nan)
    assert uncertainty(one_patient) == "No interval covers new runs."
    assert uncertainty(dataclasses.replace(one_patient, n_patients=0)) == ""
    assert limits(dataclasses.replace(one_pair, runs_share=0.0)).startswith(
        "0 % of its variance comes from runs, 100 %"
    )


def test_the_noise_of_training_in_words():
    apart = Noise("dice_tumor", "baseline", run_sd=0.04, halves=0.0234, halves_max=0.0512, runs=6, deals=8)
    assert noise(apart) == "two halves of baseline differ by 0.02 in tumor Dice on average, by 0.05 at most"
    less = dataclasses.replace(apart, metric="lesions_false", halves=0.5, halves_max=1.25)
    assert (
        noise(less)
        == "two halves of baseline differ by 0.50 a case in false lesions on average, by 1.25 a case at most"
    )


def test_of_many_three_are_named():
    assert named(["a", "b", "c"]) == "a; b; c"
    assert named(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"


def test_what_nobody_scored_is_not_called_undefined(make_study):
    verdict = verdict_of(make_study, "lesion_recall", 0.5, 0.5, dice_tumor=same)
    assert cautions(verdict, trivial(all_background=0.0)("lesion_recall")) == []


def test_predictors_that_are_undefined_beat_nobody(make_study):
    verdict = verdict_of(make_study, "dice_tumor", 0.5, 0.4, dice_tumor=same)
    assert cautions(verdict, trivial(all_background=math.nan)("dice_tumor")) == []


@pytest.mark.parametrize(
    ("number", "kind", "text"), [(1, "", "1 patient"), (12, "external phantom", "12 external phantom patients")]
)
def test_patients_in_words(number, kind, text):
    assert patients(number, kind) == text


def test_digits_show_the_margin_and_what_is_not_0():
    assert (enough_digits(0.02, 0.5), enough_digits(0.005, 0.5), enough_digits(0.02, 0.0004)) == (2, 3, 4)
    assert (plain(-0.0001, 2), plain(np.float64(-1.5), 1)) == ("0.00", "-1.5")
