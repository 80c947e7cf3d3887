"""Verdicts on other measures than tumor Dice: where less is better, and what no run has scored."""

import math

import numpy as np
import pytest

from litsexp.evidence.judge import judge

from .toy import ALTERNATING, CLAIM, one, study, table


def fewer(differences, margin=0.5, **changes):
    """False lesions a case: ``differences`` is what the baseline has more than the other arm's 5."""
    cases = table({"baseline": 5 + np.asarray(differences), "init=scratch": [5] * len(differences)})
    cases = cases.rename(columns={"dice_tumor": "lesions_false"})
    claim = CLAIM | {"metric": "lesions_false", "margin": margin} | changes
    return judge(study([claim]), cases, None)[0]


class TestWhereLessIsBetter:
    def test_supported_when_it_is_lower(self):
        verdict = fewer(-2 + 0.5 * ALTERNATING)
        assert (verdict.verdict, verdict.substantial) == ("supported", True)
        assert verdict.effect == -2 and verdict.high < 0  # the difference keeps its sign
        assert verdict.low < -2 < verdict.high
        assert verdict.superiority == 1
        assert verdict.sentence == (
            "init=imagenet lowered false lesions by 2.00 a case [1.78, 2.22] against init=scratch "
            "on 24 patients and 6 pairs of runs (adjusted p < 0.001): supported, substantially."
        )

    def test_contradicted_when_it_is_higher(self):
        verdict = fewer(2 + 0.5 * ALTERNATING)
        assert (verdict.verdict, verdict.superiority) == ("contradicted", 0)
        assert verdict.sentence.startswith(
            "init=imagenet raised false lesions by 2.00 a case [1.78, 2.22] over init=scratch on 24 patients"
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
            assert less.substantial == more.substantial


class TestWhatNoRunHasScored:
    def test_says_so(self):
        cases = table({"baseline": [0.6] * 9, "init=scratch": [0.5] * 9})
        for metric, words in (("lesion_f1", "lesion F1"), ("dice_liver", "liver Dice")):
            unscored, scored = judge(study([CLAIM | {"metric": metric}, CLAIM | {"id": "dice"}]), cases, None)
            assert (unscored.verdict, unscored.n_patients, unscored.n_undefined) == ("inconclusive", 0, 0)
            assert unscored.reason == f"no finished run has scored {words}"
            assert unscored.sentence.endswith(f"inconclusive; no finished run has scored {words}.")
            assert (scored.verdict, unscored.p_adjusted) == ("supported", 1)

    def test_precision_counts_silence(self):
        """Left out, the silent patients would make the arms alike."""
        cases = table({"baseline": [math.nan] * 8, "init=scratch": [math.nan] * 8}, fn_tumor=9, fp_tumor=1)
        cases["tp_tumor"] = 1
        silent = (cases["arm"] == "init=scratch") & (cases["case"] < 4)
        cases.loc[silent, ["tp_tumor", "fp_tumor"]] = 0
        verdict = judge(study([CLAIM | {"metric": "precision_tumor"}]), cases, None)[0]
        assert (verdict.n_patients, verdict.n_undefined) == (8, 0)
        assert (verdict.better_mean, verdict.than_mean) == (0.5, 0.25)
