"""Simulated studies: the generator is as described, and the procedure keeps its promises on a few rows."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from litsexp.evidence import simulation, stats
from litsexp.evidence.simulation import COLLAPSED, Row, Setting

STUDIES = 1500
CALM = [Setting(20, 3, 3, 0.05), Setting(36, 5, 1, 0.10), Setting(36, 3, 3, 0.0), Setting(20, 3, 2, 0.10, crossed=True)]


@pytest.fixture(scope="module")
def rows() -> dict[Setting, Row]:
    return {row.setting: row for row in simulation.simulate(CALM, STUDIES, seed=1)}


@pytest.mark.parametrize("setting", CALM)
def test_what_is_asked_holds_within_two_standard_errors(rows: dict[Setting, Row], setting: Setting) -> None:
    row = rows[setting]
    assert setting.promised
    assert row.by_chance, row.misses
    assert 0.005 < row.false_single < 0.065  # not silent either
    assert row.coverage > 0.93


def test_the_earlier_procedure_is_wrong_where_runs_differ_and_right_where_they_do_not(rows: dict[Setting, Row]) -> None:
    noisy, calm = rows[CALM[1]], rows[CALM[2]]
    assert noisy.patients_only_single > 0.15
    assert noisy.patients_only_family > 0.2
    assert 0.03 < calm.patients_only_single < 0.075


def test_more_runs_more_power_and_holm_costs_some() -> None:
    few, many = (simulation.simulate_row(Setting(36, 3, seeds, 0.05), 400) for seeds in (2, 5))
    assert many.power > few.power + 0.05
    assert many.half_width < few.half_width
    assert few.power_family < few.power


def test_rows_that_fail_say_so() -> None:
    worst = simulation.simulate_row(Setting(20, 3, 1, 0.16, crossed=True), 400)
    broken = dataclasses.replace(worst, coverage=0.80, false_family=0.20, wrong_equivalence=0.1)
    assert broken.misses == [
        "coverage 0.800, asked 0.940",
        "false in a family 0.200, asked 0.055",
        "wrong equivalence 0.100, asked 0.050",
    ]
    assert not broken.by_chance
    assert dataclasses.replace(broken, coverage=0.95, false_family=0.06, wrong_equivalence=0.0).by_chance
    assert not any(Setting(20, 3, 3, *noise).promised for noise in ((0.16, 0.0), (0.05, COLLAPSED)))
    assert not Setting(20, 3, 1, 0.0).promised


def test_a_seed_repeats_another_differs_and_other_rows_change_nothing() -> None:
    setting = CALM[0]
    alone = simulation.simulate_row(setting, 100, seed=5)
    assert [alone] == [row for row in simulation.simulate(CALM[:2], 100, seed=5) if row.setting == setting]
    assert alone != simulation.simulate_row(setting, 100, seed=6)


@pytest.mark.parametrize("crossed", [False, True])
def test_the_generator_is_as_described(crossed: bool) -> None:
    setting = Setting(12, 3, 2, 0.10, crossed=crossed)
    patients, runs = simulation.layout(setting)
    assert len(patients) == 12 * (6 if crossed else 2)
    assert all((runs[patients == 4] // 2 == 1).tolist()) is not crossed  # patient 4 is tested in fold 1
    null, real = simulation.differences(setting, 6000, np.random.default_rng(0))
    assert null.shape == (6000, 4, len(patients))
    finds = (null != 0).all(1)
    assert 1 - finds.mean() == pytest.approx(0.10, abs=0.01)
    there = null[:, 0][finds]
    assert there.var() == pytest.approx(0.15**2 + 0.10**2 + 0.08**2, rel=0.05)
    assert np.mean(there**3) / there.std() ** 3 > 0.3  # skewed
    assert real.mean((0, 2)) == pytest.approx([0.1, -0.1, 0.1, -0.1], abs=0.006)
    assert (real[null == 0] == 0).all()
    assert np.corrcoef(null[:, 0, 0], null[:, 1, 0])[0, 1] == pytest.approx(0.5, abs=0.06)  # the baseline's part


def test_collapses_are_of_one_side_and_cost_nothing_on_average() -> None:
    null, _ = simulation.differences(Setting(8, 2, 2, 0.0, 0.5), 4000, np.random.default_rng(0))
    assert null.mean() == pytest.approx(0, abs=0.01)
    assert null[..., 0].var() > 0.9 * (0.15**2 + 0.08**2 + 0.3**2 / 4)


def test_holm_of_rows_is_holm() -> None:
    p = np.random.default_rng(0).uniform(size=(50, 4)) ** 2
    assert simulation.holm(p) == pytest.approx(np.array([stats.holm(row) for row in p.tolist()]))


def test_sign_flips_agree_with_all_of_them() -> None:
    values = np.array([[0.3, 0.1, 0.2, -0.1, 0.25, 0.3, 0.05, 0.2]])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1)
    exact = np.mean(np.abs(values @ signs) >= abs(values.sum()) - 1e-12)
    found = np.mean([simulation._sign_flip_p(values, np.arange(8), np.random.default_rng(s))[0] for s in range(20)])
    assert found == pytest.approx(exact, abs=0.01)


def test_the_whole_table_and_its_selection() -> None:
    whole = simulation.settings()
    assert len(whole) == len(set(whole)) == 2 * 4 * 8 * 6
    assert set(simulation.selection()) <= set(whole)
    assert {setting.crossed for setting in simulation.settings([True])} == {True}


def test_progress_counts_rows() -> None:
    seen: list[Any] = []
    list(simulation.simulate(CALM[:2], 100, progress=lambda *at: seen.append(at)))
    assert seen == [(1, 2), (2, 2)]
