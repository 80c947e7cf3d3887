"""The noise floor: halves by hand, every deal or as many drawn ones, nested and crossed, and what cannot tell."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence import noise
from litsexp.evidence.noise import noise_floor
from litsexp.evidence.variance import components


def table(runs, patients=2, crossed=False, arm="baseline"):
    """``runs``: (fold, seed) -> tumor Dice; patients differ, and lie as far apart in every run."""
    return pd.DataFrame(
        {"arm": arm, "fold": fold, "seed": seed, "case": case + (0 if crossed else fold * patients)}
        | {"dice_tumor": value + 0.1 * case}
        for (fold, seed), value in runs.items()
        for case in range(patients)
    )


def one(cases, **how):
    (found,) = noise_floor(cases, "baseline", ["dice_tumor"], **how)
    return found


def test_two_folds_of_two_seeds_by_hand():
    """Fold 0 differs by 0.2, fold 1 by 0.1: over all patients 0.15 where both favour the same half, else 0.05."""
    found = one(table({(0, 0): 0.5, (0, 1): 0.3, (1, 0): 0.4, (1, 1): 0.3}))
    assert (found.halves, found.halves_max) == pytest.approx(((0.15 + 0.05) / 2, 0.15))
    assert (found.metric, found.arm, found.runs, found.deals) == ("dice_tumor", "baseline", 4, 4)
    assert found.run_sd == pytest.approx(math.sqrt((0.02 + 0.005) / 2))


def test_larger_folds_weigh_more():
    cases = table({(0, 0): 0.5, (0, 1): 0.3, (1, 0): 0.4, (1, 1): 0.4})
    assert one(cases).halves == pytest.approx(0.1)
    assert one(cases[(cases["case"] != 3)]).halves == pytest.approx(0.2 * 2 / 3)


def test_crossed_runs_score_every_patient():
    """A half is a run of each fold: 0.5 and 0.4 against 0.3 and 0.3, or 0.5 and 0.3 against 0.3 and 0.4."""
    runs = {(0, 0): 0.5, (0, 1): 0.3, (1, 0): 0.4, (1, 1): 0.3}
    found = one(table(runs, crossed=True), crossed=True)
    assert (found.halves, found.halves_max) == pytest.approx(((0.15 + 0.05) / 2, 0.15))
    assert found.run_sd == pytest.approx(np.std(list(runs.values()), ddof=1))


def test_of_an_odd_number_one_seed_is_left_over():
    found = one(table({(0, 0): 0.1, (0, 1): 0.2, (0, 2): 0.6}))
    assert (found.halves, found.halves_max, found.deals) == pytest.approx(((0.1 + 0.5 + 0.4) / 3, 0.5, 6))


def test_every_deal_is_the_slow_way():
    """One fold of four seeds with noise in patients, too: all splits two against two."""
    values = np.random.default_rng(0).normal(0.5, 0.1, (5, 4))
    cases = pd.DataFrame(
        {"arm": "baseline", "fold": 0, "seed": seed, "case": case, "dice_tumor": values[case, seed]}
        for case, seed in np.ndindex(5, 4)
    )
    slow = []
    for first in itertools.combinations(range(4), 2):
        second = [seed for seed in range(4) if seed not in first]
        slow.append(abs(values[:, first].mean() - values[:, second].mean()))
    found = one(cases)
    assert (found.halves, found.halves_max, found.deals) == pytest.approx((np.mean(slow), max(slow), 6))
    assert found.run_sd == pytest.approx(math.sqrt(components(cases.assign(value=cases["dice_tumor"])).run))


def test_of_many_deals_some_are_drawn_and_the_same_every_time(monkeypatch):
    rng = np.random.default_rng(1)
    cases = table({(fold, seed): rng.uniform(0.2, 0.6) for fold in range(3) for seed in range(6)})
    drawn = one(cases)
    assert drawn.deals == noise.MOST_DEALS == 200
    assert drawn == one(cases)
    monkeypatch.setattr(noise, "MOST_DEALS", 8000)
    every = one(cases)
    assert every.deals == 20**3
    assert drawn.halves == pytest.approx(every.halves, rel=0.15)
    assert drawn.halves_max <= every.halves_max


@pytest.mark.parametrize("runs", range(1, 7))
def test_halves_are_equal_and_counted(runs):
    deals = noise._halvings(runs)
    assert len(deals) == len({tuple(deal) for deal in deals}) == noise._ways(runs)
    assert all(sum(deal) == 0 and deal.count(0) == runs % 2 for deal in deals)
    assert sorted(noise._any_halving(runs)) == sorted(deals[0])


def test_runs_that_are_alike_make_no_noise():
    found = one(table({(fold, seed): 0.4 for fold in range(3) for seed in range(2)}))
    assert (found.run_sd, found.halves, found.halves_max) == pytest.approx((0, 0, 0), abs=1e-12)


def test_what_cannot_tell():
    once = table({(0, 0): 0.5, (1, 0): 0.4})
    assert noise_floor(once, "baseline", ["dice_tumor"]) == []  # seeds of different folds are no repetition
    assert noise_floor(once, "baseline", ["dice_tumor"], crossed=True) == []
    assert noise_floor(pd.DataFrame(), "baseline", ["dice_tumor"]) == []
    twice = table({(0, 0): 0.5, (0, 1): 0.4})
    assert noise_floor(twice, "init=scratch", ["dice_tumor"]) == []
    assert noise_floor(twice, "baseline", ["lesion_f1"]) == []
    assert noise_floor(twice.assign(dice_tumor=math.nan), "baseline", ["dice_tumor"]) == []


def test_a_fold_with_one_seed_and_a_patient_undefined_under_one_run_are_left_out():
    cases = table({(0, 0): 0.5, (0, 1): 0.4}, patients=3)
    alone = table({(1, 0): 0.9}, patients=3)
    assert one(pd.concat([cases, alone])) == one(cases)
    holed = cases.copy()
    holed.loc[(holed["case"] == 2) & (holed["seed"] == 1), "dice_tumor"] = math.nan
    assert one(holed) == one(cases[cases["case"] != 2])


def test_a_measure_is_asked_once_and_other_arms_are_not():
    cases = pd.concat([table({(0, 0): 0.5, (0, 1): 0.4}), table({(0, 0): 0.1, (0, 1): 0.9}, arm="init=scratch")])
    (found,) = noise_floor(cases, "baseline", ["dice_tumor", "dice_tumor"])
    assert found.halves == pytest.approx(0.1)
    assert found.measure.words == "tumor Dice"
