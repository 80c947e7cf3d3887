"""What counts as a change: identical scores never, chance rarely, a shift that is there."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence import stats
from litsexp.evidence.compare.comparison import compare
from litsexp.spec.errors import LitsexpError


def rows(found):
    return {(change.what, change.measure.name): change for change in found.arms}


@pytest.mark.parametrize("how", ["by seed", "by order", "unpaired"])
def test_the_same_training_is_seldom_called_changed(make_study, make_scores, make_side, how):
    """A/A: two studies of one method; a family is every arm, measure and claim. Wanted: at most 0.05, and chance."""
    rng, false, times = np.random.default_rng(0), 0, 100
    asked = make_study(seeds=[0, 1])
    other = make_study(seeds=[2, 3] if how == "by order" else [0, 1])
    for _ in range(times):
        levels = rng.normal(0.45, 0.12, (2, 24))
        one = make_side(make_scores(asked, rng, levels=levels[0]), asked)
        then = make_scores(other, rng, levels=levels[int(how == "unpaired")])
        found = compare(one, make_side(then, other, fingerprint="other" if how == "unpaired" else "same"))
        changed = [change.verdict for change in [*found.arms, *(claim.change for claim in found.claims)]]
        false += any(verdict in ("better", "worse") for verdict in changed)
        assert len(changed) == 5
        assert "identical" not in changed
    assert false / times <= 0.06


@pytest.mark.parametrize(("shift", "verdict", "code"), [(-0.2, "worse", 1), (0.2, "better", 0)])
@pytest.mark.parametrize("seeds", [[0, 1], [2, 3]])
def test_a_real_shift_is_found_in_its_direction(make_study, make_scores, make_side, shift, verdict, code, seeds):
    asked, other = make_study(), make_study(seeds=seeds)
    rng = np.random.default_rng(1)
    found = compare(make_side(make_scores(asked, rng)), make_side(make_scores(other, rng, shift=shift), other))
    change = rows(found)["baseline", "dice_tumor"]
    assert change.verdict == verdict
    assert change.substantial
    assert change.effect == pytest.approx(shift, abs=0.07)
    assert change.low < shift < change.high
    assert rows(found)["init=scratch", "dice_tumor"].verdict in ("same", "unclear")
    assert found.exit_code() == code
    assert bool(found.worse) == bool(code)


def test_a_shift_between_other_patients_is_found_unpaired(make_scores, make_side, make_study):
    rng, asked = np.random.default_rng(2), make_study(seeds=range(4))
    new = make_scores(asked, rng, shift=-0.3, levels=rng.normal(0.45, 0.12, 24))
    found = compare(make_side(make_scores(asked, rng), asked), make_side(new, asked, fingerprint="other"))
    change = rows(found)["baseline", "dice_tumor"]
    assert not change.paired
    assert (change.verdict, change.n_patients, change.n_runs) == ("worse", 24, 12)
    assert "data fingerprints differ" in found.pairing.words


def test_bitwise_equal_scores_are_identical_and_cost_the_others_nothing(make_scores, make_side, make_study):
    cases = make_scores(make_study(), np.random.default_rng(3))
    found = compare(make_side(cases), make_side(cases.copy()))
    assert {change.verdict for change in found.arms} == {"identical"}
    assert found.claims[0].change.verdict == "identical"
    assert (found.claims[0].then, found.claims[0].now) == ("supported", "supported")
    assert found.conclusion.startswith("Identical")
    assert found.exit_code(strict=True) == 0
    touched = cases.assign(dice_tumor=cases["dice_tumor"] + 1e-9 * (cases["arm"] == "baseline"))
    found = compare(make_side(cases), make_side(touched))
    assert rows(found)["baseline", "dice_tumor"].verdict == "same"  # not bitwise, and far within the margin
    assert rows(found)["baseline", "dice_liver"].verdict == "identical"
    assert found.exit_code(strict=True) == 0


def test_undefined_scores_are_identical_only_where_both_are(make_scores, make_side, make_study):
    cases = make_scores(make_study(), np.random.default_rng(3))
    cases.loc[cases["case"] == 0, "dice_tumor"] = np.nan
    assert rows(compare(make_side(cases), make_side(cases)))["baseline", "dice_tumor"].verdict == "identical"
    now_defined = cases.fillna(0.5)
    change = rows(compare(make_side(cases), make_side(now_defined)))["baseline", "dice_tumor"]
    assert change.verdict == "same"
    assert change.n_patients == 23


def test_holm_counts_every_row_that_differs(make_scores, make_side, make_study):
    asked, rng = make_study(), np.random.default_rng(4)
    found = compare(make_side(make_scores(asked, rng)), make_side(make_scores(asked, rng, shift=-0.1)))
    every = [*found.arms, *(claim.change for claim in found.claims)]
    assert [change.p_adjusted for change in every] == stats.holm([change.p for change in every])


def test_few_runs_or_patients_settle_nothing(make_scores, make_side, make_study):
    """One seed on three folds: three pairs of runs, however large the shift."""
    asked, rng = make_study(seeds=[0]), np.random.default_rng(5)
    found = compare(make_side(make_scores(asked, rng), asked), make_side(make_scores(asked, rng, shift=-0.4), asked))
    change = rows(found)["baseline", "dice_tumor"]
    assert change.verdict == "unclear"
    assert change.words == "unclear; 3 pairs of runs cannot settle it; at least 5 are needed"
    assert (found.exit_code(), found.exit_code(strict=True)) == (0, 1)
    assert "baseline, tumor Dice" in found.unclear


def test_a_claims_margin_stands_for_its_measure_and_the_given_one_for_others(make_scores, make_side, make_study):
    asked, rng = make_study(), np.random.default_rng(6)
    found = rows(compare(make_side(make_scores(asked, rng)), make_side(make_scores(asked, rng)), margin=0.3))
    assert found["baseline", "dice_tumor"].margin == 0.05
    assert found["baseline", "dice_liver"].margin == 0.3
    assert found["baseline", "dice_liver"].verdict == "same"


def test_less_is_better_turns_the_direction(make_scores, make_side, make_study):
    claim = {"id": "quiet", "says": "Fewer.", "metric": "lesions_false", "factor": "init", "better": "imagenet"}
    asked, rng = make_study(claims=[claim | {"than": "scratch", "margin": 0.5}]), np.random.default_rng(7)
    cases = make_scores(asked, rng)
    counts = pd.Series(rng.poisson(3, len(cases)), index=cases.index).astype(float)
    one, other = cases.assign(lesions_false=counts), cases.assign(lesions_false=counts + rng.integers(2, 5, len(cases)))
    change = rows(compare(make_side(one, asked), make_side(other, asked)))["baseline", "lesions_false"]
    assert change.effect > 2
    assert change.verdict == "worse"


def test_nothing_in_common_is_refused(make_scores, make_side, make_study):
    cases = make_scores(make_study(), np.random.default_rng(8))
    factorial = make_study(design="factorial", factors={"init": ["imagenet", "scratch"]})
    renamed = cases.assign(arm=cases["arm"].replace({"baseline": "init=imagenet"}))
    only = renamed[renamed["arm"] == "init=imagenet"]
    content = make_side(only, factorial)
    asked = make_study(factors={}, claims=[])
    alone = dataclasses.replace(make_side(cases[cases["arm"] == "baseline"], asked))
    with pytest.raises(LitsexpError, match=r"--compare: found arms baseline in A .* expected an arm with finished"):
        compare(alone, content)
