"""Cautions: what stands beside a verdict, where it makes sense, and which way is better."""

import math

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence.judge import judge
from litsexp.evidence.words import cautions, enough_digits, patients, plain


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
