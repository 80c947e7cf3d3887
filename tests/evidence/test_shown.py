"""Which patients a report shows."""

import math

import pandas as pd
import pytest

from litsexp.evidence.shown import by_patient, deciding, shown_patients

SCORES = {"a": [0.9, 0.5, 0.1, 0.6, 0.30], "b": [0.7, 0.5, 0.1, 0.2, 0.35]}  # of cases 1 to 5


def table(scores=SCORES, **more):
    rows = [
        {"arm": arm, "fold": 0, "seed": seed, "case": case + 1, "dice_tumor": value + seed / 10, "dice_liver": 0.9}
        for arm, values in scores.items()
        for seed in (0, 1)
        for case, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(**more)


def chosen(cases, arms=("a", "b")):
    return {shown.why: shown.case for shown in shown_patients(cases, arms)}


def test_best_median_worst_and_where_arms_differ_most():
    apart = {"a": [0.9, 0.5, 0.1, 0.6, 0.7], "b": [0.7, 0.5, 0.1, 0.2, 0.75]}
    assert chosen(table(apart)) == {"best": 1, "median": 2, "worst": 3, "arms differ most": 4}
    assert shown_patients(table(apart), ["a", "b"])[0].score == pytest.approx(0.85)  # mean of both arms' seeds


def test_who_is_several_of_them_stands_once_with_all_reasons():
    assert chosen(table()) == {"best": 1, "median, arms differ most": 4, "worst": 3}
    assert chosen(table({"a": [0.2], "b": [0.3]})) == {"best, median, worst, arms differ most": 1}


def test_of_one_arm_no_difference_is_shown():
    assert "arms differ most" not in chosen(table(), ["a"])


def test_only_patients_that_every_arm_has_scored():
    cases = table()
    lost = cases[(cases["arm"] != "b") | (cases["case"] != 1)]
    assert list(by_patient(lost, ["a", "b"]).index) == [2, 3, 4, 5]
    assert 1 not in chosen(lost).values()
    assert chosen(cases, ["a", "nobody"]) == {}


def test_livers_decide_where_nobody_has_a_tumor():
    assert deciding(table()) == "dice_tumor"
    assert deciding(table(dice_tumor=math.nan)) == "dice_liver"
    assert deciding(table(dice_tumor=math.nan, dice_liver=math.nan)) is None
    assert deciding(pd.DataFrame()) is None
