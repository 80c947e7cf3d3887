"""The patients-and-runs interval: by hand, against slow plain Python and scipy, nested, crossed, and at its edges."""

import itertools
import math
import statistics
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from litsexp.evidence import stats


def rng(seed=0):
    return np.random.default_rng(seed)


def nested(folds, seeds, patients, generator):
    """Differences, patients and runs: so many patients a fold, each tested by the runs of its own fold."""
    cells = [(f, s, f * patients + p) for f in range(folds) for s in range(seeds) for p in range(patients)]
    values = generator.normal(0.1, 0.2, len(cells))
    return values, np.array([c[2] for c in cells]), np.array([c[0] * seeds + c[1] for c in cells])


def crossed(runs, patients, generator):
    """Every run meets every patient."""
    cells = list(itertools.product(range(patients), range(runs)))
    return generator.normal(0.1, 0.2, len(cells)), *np.array(cells).T


def plainly(values, patients, runs, level=0.95):
    """The docstring's formulas, one number at a time: (effect, low, high, p, df, V_patients, V_runs)."""
    rows = list(zip(map(float, values), patients, runs, strict=True))
    people, pairs = sorted(set(patients)), sorted(set(runs))
    means = [statistics.mean(d for d, p, _ in rows if p == one) for one in people]
    run_means = [statistics.mean(d for d, _, r in rows if r == one) for one in pairs]
    tests = {one: sum(p == one for _, p, _ in rows) for one in people}
    share = [sum(1 / tests[p] for _, p, r in rows if r == one) / len(people) for one in pairs]
    assert sum(share) == pytest.approx(1)
    v_patients = statistics.variance(means) / len(people)
    v_runs = statistics.variance(run_means) * sum(w * w for w in share)
    total, effect = v_patients + v_runs, statistics.mean(means)
    df = total**2 / (v_patients**2 / (len(people) - 1) + v_runs**2 / (len(pairs) - 1))
    low, high = scipy_stats.t.interval(level, df, effect, math.sqrt(total))
    p = 2 * scipy_stats.t.sf(abs(effect) / math.sqrt(total), df)
    return effect, low, high, p, df, v_patients, v_runs


class TestPaired:
    def test_by_hand(self):
        """Two patients a run, two runs: means 0.1, 0.3 | 0.5, 0.7 of patients, 0.2 | 0.6 of runs."""
        found = stats.paired([0.1, 0.3, 0.5, 0.7], [0, 1, 2, 3], [0, 0, 1, 1])
        assert found.effect == pytest.approx(0.4)
        assert found.patients_variance == pytest.approx(0.2 / 3 / 4)  # squares 0.09 + 0.01 + 0.01 + 0.09
        assert found.runs_variance == pytest.approx(0.08 * (0.25 + 0.25))
        assert found.df == pytest.approx((1 / 60 + 0.04) ** 2 / ((1 / 60) ** 2 / 3 + 0.04**2 / 1))

    @pytest.mark.parametrize("level", [0.95, 0.8])
    def test_equals_the_formulas_one_number_at_a_time(self, level):
        designs = [
            nested(3, 1, 6, rng(1)),
            nested(3, 3, 4, rng(2)),
            crossed(5, 7, rng(3)),
            tuple(part[:-5] for part in nested(4, 2, 5, rng(4))),  # the last run has lost its patients
            tuple(np.delete(part, [0, 3, 11, 12]) for part in nested(3, 2, 5, rng(5))),
            (rng(6).normal(size=9), np.arange(9), np.array([0, 0, 0, 0, 0, 1, 1, 2, 2])),
        ]
        for design in designs:
            found = stats.paired(*design, level)
            assert found[:7] == pytest.approx(plainly(*design, level), rel=1e-9)

    def test_these_models_interval_is_students_over_patient_means(self):
        values, patients, runs = nested(3, 2, 5, rng(2))
        means = [values[patients == one].mean() for one in np.unique(patients)]
        found, theirs = stats.paired(values, patients, runs), scipy_stats.ttest_1samp(means, 0)
        assert (found.models_low, found.models_high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
        assert found.models_p == pytest.approx(theirs.pvalue)

    def test_the_other_interval_is_wider_where_runs_differ(self):
        for seed in range(20):
            found = stats.paired(*nested(3, 2, 6, rng(seed)))
            assert found.low <= found.models_low <= found.effect <= found.models_high <= found.high

    def test_a_run_that_went_wrong_is_seen_by_the_first_alone(self):
        values, patients, runs = crossed(6, 10, rng(0))
        wrong = np.where(runs == 5, values - 1.0, values)
        before, after = stats.paired(values, patients, runs), stats.paired(wrong, patients, runs)
        assert after.high - after.low > 3 * (before.high - before.low)
        assert after.models_high - after.models_low == pytest.approx(before.models_high - before.models_low)

    def test_a_batch_is_a_loop(self):
        _, patients, runs = nested(3, 2, 4, rng())
        batch = rng(7).normal(size=(2, 3, len(runs)))
        found = stats.paired(batch, patients, runs)
        for index in np.ndindex(2, 3):
            np.testing.assert_allclose([part[index] for part in found], stats.paired(batch[index], patients, runs))

    @given(st.randoms(use_true_random=False), st.integers(0, 50))
    @settings(max_examples=25, deadline=None)
    def test_order_and_names_are_nothing(self, random, seed):
        values, patients, runs = (part[:-3] for part in nested(3, 2, 4, rng(seed)))
        order = np.array(random.sample(range(len(values)), len(values)))
        names = np.array(random.sample([f"run {i}" for i in range(6)], 6))
        found = stats.paired(values[order], 100 - patients[order], names[runs[order]])
        np.testing.assert_allclose(found, stats.paired(values, patients, runs))

    @given(st.lists(st.integers(-100, 100).map(lambda i: i / 100), min_size=8, max_size=8))
    @settings(max_examples=40, deadline=None)
    def test_turning_the_differences_round_mirrors_it(self, values):
        labels = [0, 1, 2, 3] * 2, [0, 0, 1, 1, 2, 2, 3, 3]
        one, other = stats.paired(values, *labels), stats.paired([-value for value in values], *labels)
        mirrored = (-one.effect, -one.high, -one.low, one.p, one.df)
        np.testing.assert_allclose(other[:5], mirrored, atol=1e-12)

    def test_identical_arms_differ_in_one_of_twenty(self):
        """Runs differ by 0.05 and patients meet their fold's three runs: 2,000 studies without a difference."""
        generator, (_, patients, runs) = rng(11), nested(3, 3, 12, rng())
        luck = generator.normal(0, 0.05, (2000, 9))[:, runs]
        values = generator.normal(0, 0.1, (2000, 36))[:, patients] + luck + generator.normal(0, 0.08, (2000, len(runs)))
        found = stats.paired(values, patients, runs)
        assert 0.01 < (found.p < 0.05).mean() < 0.06
        assert (found.models_p < 0.05).mean() > 0.1  # what an interval over patients calls different


class TestEdges:
    def test_nobody(self):
        assert all(math.isnan(part) for part in stats.paired([], [], []))
        assert np.isnan(stats.paired(np.empty((4, 0)), [], []).effect).shape == (4,)

    def test_one_pair_of_runs_says_nothing_about_runs(self):
        found = stats.paired([0.1, 0.2, 0.3], [0, 1, 2], [0, 0, 0])
        assert (float(found.effect), float(found.models_low)) == pytest.approx((0.2, 0.2 - 4.302653 * 0.1 / 3**0.5))
        assert np.isnan([found.low, found.high, found.p, found.runs_variance]).all()

    def test_one_patient_says_nothing_about_patients(self):
        found = stats.paired([0.1, 0.2, 0.3], [0, 0, 0], [0, 1, 2])
        assert found.effect == pytest.approx(0.2)
        assert np.isnan([found.low, found.high, found.p, found.models_low, found.models_high, found.models_p]).all()

    def test_equal_differences_leave_no_doubt(self):
        for value, p in ((0.25, 0), (0.0, 1)):
            found = stats.paired([value] * 6, range(6), [0, 0, 1, 1, 2, 2])
            assert tuple(found[:4]) == (value, value, value, p)
            assert (found.models_low, found.models_high, found.models_p) == (value, value, p)

    @pytest.mark.parametrize(
        ("values", "patients", "runs"),
        [([0.1, math.nan], [0, 1], [0, 1]), ([0.1, 0.2], [0, 1, 2], [0, 1]), ([0.1, 0.2], [0, 1], [0])],
    )
    def test_refuses_what_does_not_fit(self, values, patients, runs):
        with pytest.raises(ValueError, match=r"expected \(\.\.\., m\), \(m,\) and \(m,\), every difference finite"):
            stats.paired(values, patients, runs)


class TestMeanInterval:
    def test_is_students(self):
        values = rng(3).exponential(size=25)
        theirs = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.9)
        assert stats.mean_interval(values, 0.9) == pytest.approx((values.mean(), *theirs))

    def test_edges(self):
        assert all(math.isnan(value) for value in stats.mean_interval([]))
        effect, *bounds = stats.mean_interval([0.3])
        assert effect == 0.3
        assert np.isnan(bounds).all()
        assert stats.mean_interval([0.25] * 5) == (0.25, 0.25, 0.25)


class TestHolm:
    def test_known_example(self):
        # 4 * 0.005, 3 * 0.01, 2 * 0.03, then 0.04 raised to the one before it
        assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_none_and_cap(self):
        assert stats.holm([]) == []
        assert stats.holm([0.7, 0.9]) == [1, 1]

    @given(st.lists(st.floats(0, 1), max_size=8))
    def test_monotone_and_never_smaller(self, p):
        adjusted = stats.holm(p)
        assert all(q <= a <= 1 for q, a in zip(p, adjusted, strict=True))
        ordered = [a for _, a in sorted(zip(p, adjusted, strict=True))]
        assert ordered == sorted(ordered)


def test_superiority_counts_ties_half():
    assert stats.superiority([1, 2, -1, 0]) == (2 + 0.5) / 4
    assert math.isnan(stats.superiority([]))


def test_imports_without_pandas_and_matplotlib():
    code = "import sys, litsexp.evidence.stats; print({'pandas', 'matplotlib', 'torch', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_two_groups_differ_as_welch_says_where_runs_do_not_vary():
    """One run pair's variance is 0 when all runs have the same mean: what is left is Welch's test of patients."""
    generator = rng(5)
    groups = []
    for n, mean in ((20, 0.4), (31, 0.6)):
        patients = generator.normal(mean, 0.1, n)
        values = np.concatenate([patients, patients])  # two runs that score alike
        groups.append((patients, stats.paired(values, np.tile(np.arange(n), 2), np.repeat([0, 1], n))))
    (one, first), (other, second) = groups
    found, expected = stats.unpaired(first, second), scipy_stats.ttest_ind(one, other, equal_var=False)
    assert found.effect == pytest.approx(one.mean() - other.mean())
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_two_groups_without_a_variance_of_runs_have_no_interval():
    one_run = stats.paired([0.1, 0.2, 0.3], [0, 1, 2], [0, 0, 0])
    found = stats.unpaired(one_run, one_run)
    assert found.effect == 0
    assert math.isnan(found.low) and math.isnan(found.p)
