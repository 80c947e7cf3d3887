"""Verdicts: the rules, the gates, who is the unit, what is left out, and that nothing else decides."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litsexp.evidence import stats
from litsexp.evidence.judge import judge

from .toy import ALTERNATING, CLAIM, one, study, table


class TestRules:
    def test_supported_substantially(self):
        verdict = one(0.1 + 0.01 * ALTERNATING)
        assert (verdict.verdict, verdict.substantial) == ("supported", True)
        assert verdict.effect == pytest.approx(0.1)
        assert verdict.low > 0
        assert verdict.superiority == 1
        assert verdict.sentence == (
            "init=imagenet raised tumor Dice by 0.10 [0.10, 0.10] over init=scratch on 24 patients and 6 pairs of runs "
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
        assert verdict.sentence.endswith("equivalent within 0.02.")

    def test_an_interval_that_touches_the_margin_is_not_inside(self):
        assert one([0.0] * 10, margin=0.0).verdict == "inconclusive"

    def test_an_interval_that_reaches_over_the_margin_is_neither(self):
        verdict = one(0.01 + 0.1 * ALTERNATING)
        assert verdict.low < 0 < 0.02 < verdict.high
        assert verdict.verdict == "inconclusive"
        assert "(adjusted p = 0.6" in verdict.sentence and ": inconclusive" in verdict.sentence

    def test_significant_alone_but_not_among_many_claims(self):
        names = {"baseline": 0.536 + 0.05 * ALTERNATING[:12], "init=scratch": [0.5] * 12}
        alone = judge(study(), table(names), None)[0]
        pair = judge(study([CLAIM, CLAIM | {"id": "again", "margin": 0.001}]), table(names), None)
        assert alone.verdict == "supported"
        assert 0.025 < alone.p == alone.p_adjusted == pair[0].p < 0.05
        assert [v.p_adjusted for v in pair] == [2 * alone.p] * 2
        assert [v.verdict for v in pair] == ["inconclusive", "inconclusive"]
        assert pair[0].low > 0  # its own interval is not the whole matter


class TestGates:
    @pytest.mark.parametrize("difference", [0.25, 0.0])
    def test_four_pairs_of_runs_settle_nothing_and_five_may(self, difference):
        four, five = (one([difference] * 10, folds=folds) for folds in (4, 5))
        assert (four.n_run_pairs, five.n_run_pairs) == (4, 5)
        assert four.verdict == "inconclusive"
        assert four.reason == "4 pairs of runs cannot settle a claim about training; at least 5 are needed"
        assert four.sentence.endswith(f"inconclusive; {four.reason}.")
        assert (four.effect, four.p) == (five.effect, five.p)
        assert five.verdict == ("supported" if difference else "equivalent")
        assert five.reason == ""

    def test_five_patients_settle_nothing_and_six_may(self):
        """Each seed is a run: patients are few, runs are not."""
        five, six = (one([0.25] * n, seeds=range(5)) for n in (5, 6))
        assert (five.n_patients, six.n_patients, six.n_run_pairs) == (5, 6, 15)
        assert five.verdict == "inconclusive"
        assert five.reason == "5 patients cannot settle a claim, at least 6 are needed"
        assert six.verdict == "supported"

    def test_one_patient_has_no_interval(self):
        verdict = one([0.25])
        assert math.isnan(verdict.low) and math.isnan(verdict.models_low)
        assert "by 0.25 against" in verdict.sentence
        assert "1 patient and 1 pair of runs (" in verdict.sentence


class TestPatientsAndRunsAreTheUnits:
    def test_the_numbers_are_those_of_patients_and_run_pairs(self):
        rng = np.random.default_rng(3)
        cases = table({"baseline": rng.normal(0.6, 0.1, 20), "init=scratch": rng.normal(0.5, 0.1, 20)}, seeds=[0, 1])
        cases["dice_tumor"] += rng.normal(0, 0.05, len(cases))
        verdict, (better, than) = judge(study(), cases, None)[0], (part for _, part in cases.groupby("arm"))
        found = stats.paired(
            better["dice_tumor"].to_numpy() - than["dice_tumor"].to_numpy(),
            better["case"],
            10 * better["fold"] + better["seed"],
        )
        numbers = (verdict.effect, verdict.low, verdict.high, verdict.p, verdict.models_low, verdict.models_high)
        theirs = (found.effect, found.low, found.high, found.p, found.models_low, found.models_high)
        assert numbers == pytest.approx(tuple(map(float, theirs)))
        total = found.runs_variance + found.patients_variance
        assert verdict.runs_share == pytest.approx(float(found.runs_variance / total))
        assert verdict.false_claim == pytest.approx(float(found.models_p) / 2)
        assert (verdict.n_patients, verdict.n_run_pairs, len(verdict.pairs)) == (20, 12, 40)

    def test_patients_that_share_a_run_are_not_independent(self):
        """The same differences: dealt to runs by chance, or each run with luck of its own."""
        luck = np.repeat([0.3, -0.2, 0.25, -0.15, 0.1, 0.0], 2).tolist() * 2
        spread = np.random.default_rng(0).permutation(luck)
        shared, alone = one(np.array(luck)), one(spread)
        assert (shared.models_low, shared.models_high) == pytest.approx((alone.models_low, alone.models_high))
        assert shared.high - shared.low > 1.5 * (shared.models_high - shared.models_low)
        assert shared.runs_share > 0.7 > alone.runs_share

    def test_seeds_are_averaged_first(self):
        scores = {"baseline": 0.6 + 0.01 * ALTERNATING, "init=scratch": [0.5] * 24}
        once, five = (judge(study(), table(scores, seeds), None)[0] for seeds in ([0], range(5)))
        assert once.n_patients == five.n_patients == 24
        assert (once.n_run_pairs, five.n_run_pairs) == (6, 30)
        assert (once.low, once.high) == pytest.approx((five.low, five.high))  # no run is luckier than another

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
        assert (verdict.n_patients, verdict.n_run_pairs) == (6, 6)  # two contexts of three folds
        assert verdict.effect == pytest.approx(0.2)


class TestWhatIsLeftOut:
    def test_undefined_in_one_arm_leaves_the_patient_out(self):
        scores = {"baseline": [math.nan, *[0.6] * 7], "init=scratch": [0.5, math.nan, *[0.5] * 6]}
        verdict = judge(study(), table(scores), None)[0]
        assert (verdict.n_patients, verdict.n_undefined, verdict.n_missing) == (6, 2, 0)

    def test_a_score_that_one_pair_of_runs_lacks_is_counted_and_its_patient_stays(self):
        cases = table({"baseline": [0.6] * 12, "init=scratch": [0.5] * 12}, seeds=[0, 1])
        gone = (cases["arm"] == "baseline") & (cases["seed"] == 1) & (cases["case"] < 2)
        cases.loc[gone, "dice_tumor"] = math.nan
        verdict = judge(study(), cases, None)[0]
        assert (verdict.n_patients, verdict.n_undefined, verdict.n_dropped) == (12, 0, 2)
        assert verdict.n_run_pairs == 11  # fold 0, seed 1 tested these two alone
        assert verdict.effect == pytest.approx(0.1)
        cases.loc[cases["case"] == 0, "dice_tumor"] = math.nan
        verdict = judge(study(), cases, None)[0]
        assert (verdict.n_patients, verdict.n_undefined, verdict.n_dropped) == (11, 1, 1)

    def test_a_fold_that_failed_is_missing_from_both(self):
        cases = table({"baseline": [0.6] * 9, "init=scratch": [0.5] * 9})
        verdict = judge(study(), cases[(cases["arm"] == "baseline") | (cases["fold"] < 2)], None)[0]
        assert (verdict.n_patients, verdict.n_undefined, verdict.n_missing) == (4, 0, 5)

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
        assert (verdict.n_patients, verdict.n_run_pairs, verdict.p_adjusted) == (0, 0, 1)
        assert math.isnan(verdict.p) and math.isnan(verdict.runs_share)
        assert verdict.sentence.endswith(f"inconclusive; {reason}.")


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
        ours, theirs = judge(study(), cases, None)[0], judge(study(), cases.iloc[order], None)[0]
        assert ours == theirs
        pd.testing.assert_frame_equal(ours.differences, theirs.differences)

    @given(st.lists(st.integers(-30, 30).map(lambda i: i / 100), min_size=6, max_size=20))
    @settings(max_examples=25, deadline=None)
    def test_swapping_better_and_than_mirrors_the_verdict(self, differences):
        cases = table({"baseline": 0.5 + np.array(differences), "init=scratch": [0.5] * len(differences)})
        swapped = study([CLAIM | {"better": "scratch", "than": "imagenet"}])
        ours, theirs = (judge(asked, cases, None)[0] for asked in (study(), swapped))
        assert {ours.verdict, theirs.verdict} in ({"supported", "contradicted"}, {"equivalent"}, {"inconclusive"})
        mirrored = (-ours.effect, -ours.high, -ours.low)
        assert (theirs.effect, theirs.low, theirs.high) == pytest.approx(mirrored, abs=1e-9)
        assert (theirs.p, theirs.substantial) == (ours.p, ours.substantial)
        assert theirs.superiority == pytest.approx(1 - ours.superiority)


def test_refuses_a_case_twice_in_a_cell():
    with pytest.raises(ValueError, match="case 0 stands twice in arm 'baseline', fold 0, seed 0"):
        judge(study(), pd.concat([table({"baseline": [0.6], "init=scratch": [0.5]})] * 2), None)


@pytest.mark.parametrize("column", ["arm", "fold", "seed", "case"])
def test_refuses_a_table_that_does_not_say_whose_row_it_is(column):
    with pytest.raises(ValueError, match=f"no column '{column}'"):
        judge(study(), table({"baseline": [0.6]}).drop(columns=column), None)
