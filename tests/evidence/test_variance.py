"""Variance components: an analysis of variance worked by hand, what is left out, and truth that was put in."""

import math

import numpy as np
import pandas as pd
import pytest

from litsexp.evidence.variance import components


def table(grid, fold=0, first=0):
    """``grid``: a row a patient, a column a seed."""
    grid = np.asarray(grid, dtype=float)
    return pd.DataFrame(
        {"fold": fold, "seed": seed, "case": first + case, "value": value}
        for (case, seed), value in np.ndenumerate(grid)
    )


HAND = [[1, 2], [3, 6], [5, 7]]  # grand mean 4; patients 1.5, 4.5, 6; runs 3, 5


def test_by_hand():
    """Mean squares: patients 2 * (6.25 + 0.25 + 4) / 2 = 10.5, runs 3 * 2 / 1 = 6, the rest 4 * 0.25 / 2 = 0.5."""
    found = components(table(HAND))
    assert (found.patient, found.run, found.residual) == pytest.approx(((10.5 - 0.5) / 2, (6 - 0.5) / 3, 0.5))
    assert (found.patients, found.runs, found.run_df, found.known) == (3, 2, 1, True)


def test_blocks_are_pooled_by_their_degrees_of_freedom():
    """A second fold like the first but 10 higher changes nothing: what folds differ in is nobody's variance."""
    two = pd.concat([table(HAND), table(np.array(HAND) + 10, fold=1, first=3)])
    one, found = components(table(HAND)), components(two)
    assert (found.patient, found.run, found.residual) == pytest.approx((one.patient, one.run, one.residual))
    assert (found.patients, found.runs, found.run_df) == (6, 4, 2)


def test_crossed_runs_are_told_apart_by_fold_and_seed():
    crossed = pd.concat([table(HAND), table(np.array(HAND)[:, ::-1] + 1, fold=1)])
    found = components(crossed, block=(), run=("fold", "seed"))
    assert (found.patients, found.runs, found.run_df) == (3, 4, 3)
    grid = np.hstack([HAND, np.array(HAND)[:, ::-1] + 1]).astype(float)
    run_ms = 3 * grid.mean(0).var(ddof=1)
    residual = grid - grid.mean(1, keepdims=True) - grid.mean(0) + grid.mean()
    assert found.run == pytest.approx((run_ms - (residual**2).sum() / 6) / 3)


def test_a_component_is_never_below_0():
    assert components(table([[1, 2], [2, 1]])).run == 0


def test_a_patient_without_a_value_under_one_run_is_left_out():
    holed = pd.concat([table(HAND), table([[9, math.nan]], first=3)])
    assert components(holed) == components(table(HAND))


@pytest.mark.parametrize("grid", [[[1], [2], [3]], [[1, 2]]])
def test_one_run_or_one_patient_tells_nothing(grid):
    found = components(table(grid))
    assert not found.known
    assert np.isnan([found.patient, found.run, found.residual]).all()
    assert (found.patients, found.runs, found.run_df) == (0, 0, 0)


def test_finds_what_was_put_in():
    """60 studies of 3 folds x 4 seeds, 12 patients a fold: SD 0.2 of patients, 0.1 of runs, 0.05 of the rest."""
    rng, found = np.random.default_rng(0), []
    for _ in range(60):
        folds = []
        for fold in range(3):
            grid = rng.normal(0, 0.2, (12, 1)) + rng.normal(0, 0.1, (1, 4)) + rng.normal(0, 0.05, (12, 4))
            folds.append(table(grid, fold, first=12 * fold))
        found.append(components(pd.concat(folds)))
    means = [np.mean([getattr(each, name) for each in found]) for name in ("patient", "run", "residual")]
    assert means == pytest.approx([0.04, 0.01, 0.0025], rel=0.12)
