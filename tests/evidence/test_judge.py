"""Verdicts: the rules, who is the unit, what is left out, and that nothing else decides."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litsexp.evidence.judge import judge
from litsexp.spec.study import StudyConfig

CLAIM = {"id": "transfer", "says": "Pretraining helps.", "factor": "init", "better": "imagenet", "than": "scratch"}


def study(claims=(CLAIM,), **changes):
    content = {"question": "Does it help?", "factors": {"init": ["scratch"]}, "claims": list(claims)}
    return StudyConfig.model_validate(content | changes)


def table(scores, seeds=(0,), **columns):
    """``scores``: arm -> one tumor Dice a case, the same for every seed."""
    rows = [
        {"arm": arm, "fold": case % 3, "seed": seed, "case": case, "dice_tumor": value} | columns
        for arm, values in scores.items()
        for seed in seeds
        for case, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def one(differences, margin=0.02, **kwargs):
    cases = table({"baseline": 0.5 + np.asarray(differences), "init=scratch": [0.5] * len(differences)})
    claim = CLAIM | {"margin": margin}
    return judge(study([claim]), cases, None, draws=2000, **kwargs)[0]


ALTERNATING = np.tile([-1.0, 1.0], 10)


class TestRules:
    def test_supported_substantially(self):
        verdict = one(0.1 + 0.01 * ALTERNATING)
        assert (verdict.verdict, verdict.substantial) == ("supported", True)
        assert verdict.effect == pytest.approx(0.1)
        assert verdict.low > 0
        assert verdict.superiority == 1
        assert verdict.sentence == (
            "init=imagenet raised tumor Dice by 0.10 [0.10, 0.10] over init=scratch on 20 patients "
            "(adjusted p < 0.001): supported, substantially."
        )

    def test_supported_but_too_small_to_matter(self):
        verdict = one(0.004 + 0.001 * ALTERNATING)
        assert (verdict.verdict, verdict.substantial) == ("supported", False)
        assert "[0.004, 0.004]" in verdict.sentence  # not [0.00, 0.00]: it excludes 0
        assert verdict.sentence.endswith("supported, though by no more than the margin of 0.02.")

    def test_an_effect_equal_to_the_margin_is_not_above_it(self):
        assert not one([0.25] * 10, margin=0.25).substantial
        assert one([0.25] * 10, margin=0.24).substantial

    def test_substantially_is_about_the_effect_and_not_about_all_of_its_interval(self):
        verdict = one(0.025 + 0.02 * ALTERNATING)
        assert 0 < verdict.low < 0.02 < verdict.effect
        assert (verdict.verdict, verdict.substantial) == ("supported", True)

    def test_contradicted(self):
        verdict = one(-0.1 + 0.01 * ALTERNATING)
        assert (verdict.verdict, verdict.substantial) == ("contradicted", True)
        assert "init=imagenet lowered tumor Dice by 0.10 [0.10, 0.10] against init=scratch" in verdict.sentence

    def test_equivalent(self):
        verdict = one(0.01 * ALTERNATING)
        assert verdict.verdict == "equivalent"
        assert verdict.patients_needed is None
        assert verdict.sentence.endswith("equivalent within 0.02.")

    def test_an_interval_that_touches_the_margin_is_not_inside(self):
        assert one([0.0] * 10, margin=0.0).verdict == "inconclusive"

    def test_inconclusive_says_how_many_would_settle_it(self):
        verdict = one(0.01 + 0.1 * ALTERNATING)
        assert verdict.verdict == "inconclusive"
        assert verdict.patients_needed > 20
        assert "inconclusive; about " in verdict.sentence

    def test_fewer_than_six_patients_settle_nothing(self):
        verdict = one([0.001, -0.001, 0.001])
        assert verdict.verdict == "inconclusive"
        assert "3 patients cannot settle a claim" in verdict.sentence

    def test_one_patient_has_no_interval(self):
        verdict = one([0.25])
        assert math.isnan(verdict.low)
        assert "by 0.25 over" in verdict.sentence.replace("against", "over")
        assert "1 patient (" in verdict.sentence

    def test_significant_alone_but_not_among_many_claims(self):
        differences = np.array([0.03, 0.05, 0.02, 0.04, 0.06, 0.01])  # p = 2 / 64
        names = {"baseline": 0.5 + differences, "init=scratch": [0.5] * 6}
        alone = judge(study(), table(names), None)[0]
        pair = judge(study([CLAIM, CLAIM | {"id": "again", "margin": 0.001}]), table(names), None)
        assert alone.verdict == "supported"
        assert alone.p == pair[0].p == 2 / 64
        assert [v.p_adjusted for v in pair] == [4 / 64, 4 / 64]
        assert [v.verdict for v in pair] == ["inconclusive", "inconclusive"]
        assert pair[0].patients_needed > 6


class TestPatientsAreTheUnit:
    def test_seeds_are_averaged_first(self):
        scores = {"baseline": [0.6] * 8, "init=scratch": [0.5] * 8}
        once, five = (judge(study(), table(scores, seeds), None)[0] for seeds in ([0], range(5)))
        assert once.n_patients == five.n_patients == 8
        assert once.p == five.p == 2 / 2**8

    def test_average_over_seeds_by_hand(self):
        cases = pd.concat(
            [
                table({"baseline": [0.6] * 6, "init=scratch": [0.5] * 6}, seeds=[0]),
                table({"baseline": [0.8] * 6, "init=scratch": [0.3] * 6}, seeds=[1]),
            ]
        )
        verdict = judge(study(), cases, None)[0]
        assert (verdict.better_mean, verdict.than_mean) == pytest.approx((0.7, 0.4))
        assert verdict.effect == pytest.approx(0.3)

    def test_only_seeds_that_both_arms_finished_are_compared(self):
        cases = pd.concat(
            [
                table({"baseline": [0.6] * 6, "init=scratch": [0.5] * 6}, seeds=[0]),
                table({"baseline": [0.9] * 6}, seeds=[1]),
            ]
        )
        assert judge(study(), cases, None)[0].effect == pytest.approx(0.1)

    def test_contexts_of_a_factorial_are_averaged(self):
        factorial = study(design="factorial", factors={"init": ["imagenet", "scratch"], "augment": ["paper", "none"]})
        gain = {"paper": 0.1, "none": 0.3}
        arms = {f"init=imagenet, augment={a}": [0.4 + g] * 6 for a, g in gain.items()}
        arms |= {f"init=scratch, augment={a}": [0.4] * 6 for a in gain}
        verdict = judge(factorial, table(arms), None)[0]
        assert len(verdict.arms) == 2
        assert verdict.n_patients == 6
        assert verdict.effect == pytest.approx(0.2)


class TestWhatIsLeftOut:
    def test_undefined_in_one_arm_leaves_the_patient_out(self):
        scores = {"baseline": [math.nan, *[0.6] * 7], "init=scratch": [0.5, math.nan, *[0.5] * 6]}
        verdict = judge(study(), table(scores), None)[0]
        assert (verdict.n_patients, verdict.n_undefined, verdict.n_missing) == (6, 2, 0)

    def test_a_fold_that_failed_is_missing_from_both(self):
        cases = table({"baseline": [0.6] * 9, "init=scratch": [0.5] * 9})
        verdict = judge(study(), cases[(cases["arm"] == "baseline") | (cases["fold"] < 2)], None)[0]
        assert (verdict.n_patients, verdict.n_undefined, verdict.n_missing) == (6, 0, 3)

    @pytest.mark.parametrize(
        ("cases", "reason"),
        [
            (pd.DataFrame(), "no finished run of baseline and init=scratch"),
            (table({"baseline": [0.6] * 9}), "no finished run of init=scratch"),
            (
                table({"baseline": [math.nan] * 9, "init=scratch": [0.1] * 9}),
                "tumor Dice is undefined in every patient",
            ),
        ],
    )
    def test_nothing_to_compare(self, cases, reason):
        verdict = judge(study(), cases, None)[0]
        assert verdict.verdict == "inconclusive"
        assert verdict.reason == reason
        assert (verdict.n_patients, verdict.p) == (0, 1)
        assert verdict.sentence.endswith(f"inconclusive; {reason}.")


def fewer(differences, margin=0.5, **changes):
    """False lesions a case: ``differences`` is what the baseline has more than the other arm's 5."""
    cases = table({"baseline": 5 + np.asarray(differences), "init=scratch": [5] * len(differences)})
    cases = cases.rename(columns={"dice_tumor": "lesions_false"})
    claim = CLAIM | {"metric": "lesions_false", "margin": margin} | changes
    return judge(study([claim]), cases, None, draws=2000)[0]


class TestWhereLessIsBetter:
    def test_supported_when_it_is_lower(self):
        verdict = fewer(-2 + 0.5 * ALTERNATING)
        assert (verdict.verdict, verdict.substantial) == ("supported", True)
        assert verdict.effect == -2 and verdict.high < 0  # the difference keeps its sign
        assert verdict.low < -2 < verdict.high
        assert verdict.superiority == 1
        assert verdict.sentence == (
            "init=imagenet lowered false lesions by 2.00 a case [1.80, 2.20] against init=scratch on 20 patients "
            "(adjusted p < 0.001): supported, substantially."
        )

    def test_contradicted_when_it_is_higher(self):
        verdict = fewer(2 + 0.5 * ALTERNATING)
        assert (verdict.verdict, verdict.superiority) == ("contradicted", 0)
        assert verdict.sentence.startswith(
            "init=imagenet raised false lesions by 2.00 a case [1.80, 2.20] over init=scratch on 20 patients"
        )

    def test_the_margin_has_the_unit(self):
        assert "no more than the margin of 0.5 a case." in fewer(-0.2 + 0.1 * ALTERNATING).sentence
        assert fewer(0.1 * ALTERNATING).sentence.endswith("equivalent within 0.5 a case.")

    def test_it_mirrors_a_measure_where_more_is_better(self):
        """The same numbers, and every word about better and worse turned around."""
        mirror = {"supported": "contradicted", "contradicted": "supported"}
        for shift in (-2, -0.2, 0, 0.3, 2):
            more, less = one(shift + 0.4 * ALTERNATING, margin=0.5), fewer(shift + 0.4 * ALTERNATING)
            assert less.verdict == mirror.get(more.verdict, more.verdict)
            assert (less.low, less.high, less.p) == pytest.approx((more.low, more.high, more.p))
            assert less.superiority == pytest.approx(1 - more.superiority)
            assert (less.substantial, less.patients_needed) == (more.substantial, more.patients_needed)


class TestWhatNoRunHasScored:
    def test_says_so(self):
        cases = table({"baseline": [0.6] * 9, "init=scratch": [0.5] * 9})
        for metric, words in (("lesion_f1", "lesion F1"), ("dice_liver", "liver Dice")):
            unscored, scored = judge(study([CLAIM | {"metric": metric}, CLAIM | {"id": "dice"}]), cases, None)
            assert (unscored.verdict, unscored.n_patients, unscored.n_undefined) == ("inconclusive", 0, 0)
            assert unscored.reason == f"no finished run has scored {words}"
            assert unscored.sentence.endswith(f"inconclusive; no finished run has scored {words}.")
            assert (scored.verdict, unscored.p) == ("supported", 1)

    def test_precision_counts_silence(self):
        """Left out, the silent patients would make the arms alike."""
        cases = table({"baseline": [math.nan] * 8, "init=scratch": [math.nan] * 8}, fn_tumor=9, fp_tumor=1)
        cases["tp_tumor"] = 1
        silent = (cases["arm"] == "init=scratch") & (cases["case"] < 4)
        cases.loc[silent, ["tp_tumor", "fp_tumor"]] = 0
        verdict = judge(study([CLAIM | {"metric": "precision_tumor"}]), cases, None)[0]
        assert (verdict.n_patients, verdict.n_undefined) == (8, 0)
        assert (verdict.better_mean, verdict.than_mean) == (0.5, 0.25)


class TestFixedBeforehand:
    def test_post_hoc(self):
        cases = table({"baseline": [0.6] * 6, "init=scratch": [0.5] * 6})
        claim = study().claims[0]
        for fixed, post_hoc in [({"transfer": claim.digest}, False), ({"transfer": "other"}, True), ({}, True)]:
            assert judge(study(), cases, fixed)[0].post_hoc is post_hoc
        assert judge(study(), cases, None)[0].post_hoc

    def test_a_moved_margin_is_post_hoc(self):
        cases = table({"baseline": [0.6] * 6, "init=scratch": [0.5] * 6})
        fixed = {"transfer": study().claims[0].digest}
        assert judge(study([CLAIM | {"margin": 0.01}]), cases, fixed)[0].post_hoc


class TestPureFunction:
    def test_a_claim_is_measured_the_same_beside_others(self):
        values = np.random.default_rng(0).normal(0.6, 0.1, 20)
        cases = table({"baseline": values, "init=scratch": values[::-1]})
        other = CLAIM | {"id": "reverse", "better": "scratch", "than": "imagenet"}
        alone, both = judge(study(), cases, None)[0], judge(study([other, CLAIM]), cases, None)[1]
        assert (alone.effect, alone.low, alone.high, alone.p) == (both.effect, both.low, both.high, both.p)

    @given(st.randoms(use_true_random=False))
    @settings(max_examples=15, deadline=None)
    def test_the_order_of_rows_is_nothing(self, random):
        values = np.random.default_rng(1).normal(0.6, 0.1, 9)
        cases = table({"baseline": values, "init=scratch": values**2}, seeds=[0, 1])
        order = random.sample(range(len(cases)), len(cases))
        ours, theirs = judge(study(), cases, None, draws=200)[0], judge(study(), cases.iloc[order], None, draws=200)[0]
        assert ours == theirs
        pd.testing.assert_frame_equal(ours.differences, theirs.differences)

    @given(st.lists(st.integers(-30, 30).map(lambda i: i / 100), min_size=6, max_size=20))
    @settings(max_examples=25, deadline=None)
    def test_swapping_better_and_than_mirrors_the_verdict(self, differences):
        cases = table({"baseline": 0.5 + np.array(differences), "init=scratch": [0.5] * len(differences)})
        swapped = study([CLAIM | {"better": "scratch", "than": "imagenet"}])
        ours, theirs = (judge(asked, cases, None, draws=300)[0] for asked in (study(), swapped))
        assert {ours.verdict, theirs.verdict} in ({"supported", "contradicted"}, {"equivalent"}, {"inconclusive"})
        mirrored = (-ours.effect, -ours.high, -ours.low)
        assert (theirs.effect, theirs.low, theirs.high) == pytest.approx(mirrored, abs=1e-9)
        assert (theirs.p, theirs.substantial) == (ours.p, ours.substantial)
        assert theirs.superiority == pytest.approx(1 - ours.superiority)

    def test_seeds_of_the_resampling_differ(self):
        first, again, other = (one(np.random.default_rng(2).normal(0, 0.1, 20), seed=seed) for seed in (0, 0, 1))
        assert first == again and first.low != other.low


def test_refuses_a_case_twice_in_a_cell():
    with pytest.raises(ValueError, match="case 0 stands twice in arm 'baseline', fold 0, seed 0"):
        judge(study(), pd.concat([table({"baseline": [0.6], "init=scratch": [0.5]})] * 2), None)


@pytest.mark.parametrize("column", ["arm", "fold", "seed", "case"])
def test_refuses_a_table_that_does_not_say_whose_row_it_is(column):
    with pytest.raises(ValueError, match=f"no column '{column}'"):
        judge(study(), table({"baseline": [0.6]}).drop(columns=column), None)
