"""Runs that failed to learn: the rule's two bounds, what it looks at, and how it is told."""

import math

import pandas as pd
import pytest

from litsexp.evidence.failed import COLUMNS, failed_to_learn, reasons
from litsexp.evidence.judge import judge
from litsexp.evidence.words import cautions


def table(scores, patients=4, **columns):
    """``scores``: arm -> mean tumor Dice of each of its runs, one fold a run; patients lie 0.05 to either side."""
    return pd.DataFrame(
        {"arm": arm, "fold": fold, "seed": 0, "case": fold * patients + case}
        | {"dice_tumor": score + 0.05 * (-1) ** case, "dice_liver": 0.9}
        | columns
        for arm, runs in scores.items()
        for fold, score in enumerate(runs)
        for case in range(patients)
    )


def found(scores, **columns):
    failed = failed_to_learn(table(scores, **columns))
    return list(failed[["arm", "fold", "metric"]].itertuples(index=False, name=None))


def test_below_a_tenth():
    assert found({"a": [0.09, 0.11], "b": [0.5, 0.5]}) == [("a", 0, "dice_tumor")]


def test_below_half_of_its_arms_median_of_three_runs():
    assert found({"a": [0.19, 0.4, 0.5], "b": [0.4, 0.4, 0.5]}) == [("a", 0, "dice_tumor")]
    assert found({"a": [0.21, 0.4, 0.5], "b": [0.4, 0.4, 0.5]}) == []
    assert found({"a": [0.12, 0.5]}) == []  # of two runs nobody knows which one is typical
    assert found({"a": [0.2, 0.2, 0.2], "b": [0.6, 0.6, 0.6]}) == []  # another arm's runs are no measure


def test_a_fold_of_hard_patients_is_no_failure():
    hard = {"a": [0.19, 0.4, 0.5], "b": [0.25, 0.5, 0.6], "c": [0.24, 0.5, 0.6]}
    assert found(hard) == []
    assert found(hard | {"a": [0.11, 0.5, 0.6]}) == [("a", 0, "dice_tumor")]  # usual there: 0.5 * median(0.5, 0.48)
    easy = {"a": [0.35, 0.5, 0.4], "b": [0.9, 0.5, 0.4], "c": [0.95, 0.5, 0.4]}
    assert found(easy) == [("a", 0, "dice_tumor")]  # near its arm's median of 0.4, but the others do twice as well here


def test_an_arm_that_learned_nothing_tells_nothing_of_a_fold():
    assert found({"a": [0.19, 0.4, 0.5], "b": [0.01, 0.02, 0.03]})[0] == ("a", 0, "dice_tumor")


def test_the_numbers():
    failed = failed_to_learn(table({"a": [0.15, 0.4, 0.5]}))
    assert list(failed.columns) == COLUMNS
    assert failed.loc[0, ["score", "typical"]].tolist() == pytest.approx([0.15, 0.4])


def test_liver_dice_fails_too_and_undefined_scores_are_left_out():
    assert found({"a": [0.5]}, dice_liver=0.05) == [("a", 0, "dice_liver")]
    cases = table({"a": [0.15, 0.4, 0.5]})
    cases.loc[cases["case"] == 1, "dice_tumor"] = math.nan  # the fold's lower patients are at 0.1
    assert failed_to_learn(cases)["score"].tolist() == pytest.approx([(0.2 + 0.2 + 0.1) / 3])
    assert len(failed_to_learn(cases.assign(dice_tumor=math.nan))) == 0


def test_only_shares_where_more_is_better_tell():
    """Few false lesions are no failure, nor is a small error; what nobody has scored says nothing."""
    cases = table({"a": [0.5, 0.5, 0.5]}, lesions_false=0.0, burden_predicted=0.0, burden_true=0.0, pixel_acc=0.01)
    asked = ["lesions_false", "burden_error", "lesion_f1", "dice_tumor"]
    assert len(failed_to_learn(cases, asked)) == 0
    assert set(failed_to_learn(cases, [*asked, "pixel_acc"])["metric"]) == {"pixel_acc"}


def test_no_run_no_failure():
    for cases in (pd.DataFrame(), table({"a": [0.5]})):
        assert list(failed_to_learn(cases).columns) == COLUMNS
        assert reasons(failed_to_learn(cases)) == {}


def test_reasons_name_measure_score_and_bound():
    failed = failed_to_learn(table({"a": [0.099999, 0.4, 0.5]}, dice_liver=0.02))
    assert reasons(failed)["a", 0, 0] == "tumor Dice 0.09, below 0.1; liver Dice 0.02, below 0.1"
    failed = failed_to_learn(table({"b": [0.171, 0.44, 0.5]}, dice_liver=0.02))
    assert reasons(failed)["b", 0, 0].startswith("tumor Dice 0.17, below half of its arm's usual 0.44; liver")


def verdict_and_failed(make_study, scores):
    cases = table(scores, patients=2)
    return judge(make_study(), cases, None)[0], failed_to_learn(cases)


def test_a_verdict_counts_them_and_names_three(make_study):
    scores = {"baseline": [0.5] * 9, "init=scratch": [0.15, 0.5, 0.06, *[0.5] * 6], "augment=none": [0.06] * 9}
    verdict, failed = verdict_and_failed(make_study, scores)
    assert cautions(verdict, pd.DataFrame(), failed) == [
        "2 of 9 runs of init=scratch failed to learn, counted like any other: "
        "fold 0, seed 0 (tumor Dice 0.15, below half of its arm's usual 0.50); "
        "fold 2, seed 0 (tumor Dice 0.06, below 0.1)."
    ]
    assert cautions(verdict, pd.DataFrame()) == []
    verdict, failed = verdict_and_failed(make_study, scores | {"init=scratch": [0.06] * 9})
    (said,) = cautions(verdict, pd.DataFrame(), failed)
    assert said.startswith("9 of 9 runs of init=scratch") and said.endswith("(tumor Dice 0.06, below 0.1); and 6 more.")


def test_none_is_dropped(make_study):
    verdict, _ = verdict_and_failed(make_study, {"baseline": [0.5] * 6, "init=scratch": [0.02, *[0.5] * 5]})
    assert (verdict.n_run_pairs, verdict.n_patients) == (6, 12)
    assert verdict.effect == pytest.approx(0.48 / 6)


def test_a_factorials_arm_counts_each_run_once(make_study):
    """The arms with and without augmentation each fail once; each context has its own runs."""
    asked = make_study(design="factorial", factors={"init": ["imagenet", "scratch"], "augment": ["paper", "none"]})
    arms = [f"init={i}, augment={a}" for i in ("imagenet", "scratch") for a in ("paper", "none")]
    cases = table({arm: [0.05 if "scratch" in arm else 0.5, 0.5, 0.5] for arm in arms})
    said = cautions(judge(asked, cases, None)[0], pd.DataFrame(), failed_to_learn(cases))
    assert [line.split(" failed")[0] for line in said if "failed" in line] == [
        f"1 of 3 runs of {arm}" for arm in arms[2:]
    ]
