import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litsexp.evidence import stats


def rng(seed=0):
    return np.random.default_rng(seed)


scores = st.lists(st.integers(-100, 100).map(lambda i: i / 100), min_size=1, max_size=10)


class TestBootstrapMean:
    def test_nobody_has_neither_mean_nor_interval(self):
        assert all(math.isnan(value) for value in stats.bootstrap_mean([], rng()))

    def test_one_patient_has_a_mean_and_no_interval(self):
        effect, low, high = stats.bootstrap_mean([0.3], rng())
        assert effect == 0.3
        assert math.isnan(low)
        assert math.isnan(high)

    def test_equal_differences_leave_no_doubt(self):
        assert stats.bootstrap_mean([0.25] * 5, rng()) == (0.25, 0.25, 0.25)

    def test_two_patients_get_the_percentile_interval(self):
        assert stats.bootstrap_mean([0.0, 1.0], rng()) == (0.5, 0.0, 1.0)  # 1/4 of the resamples at each end

    def test_a_seed_repeats_and_another_differs(self):
        values = rng(5).normal(size=20)
        assert stats.bootstrap_mean(values, rng(1)) == stats.bootstrap_mean(values, rng(1))
        assert stats.bootstrap_mean(values, rng(1)) != stats.bootstrap_mean(values, rng(2))

    def test_agrees_with_scipys_bca(self):
        scipy_stats = pytest.importorskip("scipy.stats")
        values = rng(3).exponential(size=25)
        theirs = scipy_stats.bootstrap((values,), np.mean, n_resamples=20_000, rng=4).confidence_interval
        ours = stats.bootstrap_mean(values, rng(4), 20_000)
        assert ours[1:] == pytest.approx(theirs, abs=0.03)

    def test_skewed_data_shift_the_interval_to_the_long_tail(self):
        values = rng(0).exponential(size=30)
        effect, low, high = stats.bootstrap_mean(values, rng())
        assert high - effect > effect - low

    def test_memory_stays_bounded_in_chunks(self, monkeypatch):
        values = rng(2).normal(size=40)
        monkeypatch.setattr(stats, "CHUNK", 400)
        assert stats.bootstrap_mean(values, rng(), 1001).effect == pytest.approx(values.mean())
        assert len(stats._resampled_means(values, rng(), 1001)) == 1001

    def test_covers_the_truth_about_as_often_as_it_says(self):
        generator, covered = rng(7), 0
        for _ in range(300):
            _, low, high = stats.bootstrap_mean(generator.normal(0.1, 0.2, size=25), generator, 1000)
            covered += low <= 0.1 <= high
        assert 0.89 <= covered / 300 <= 0.98

    @given(scores)
    @settings(max_examples=40, deadline=None)
    def test_turning_the_differences_round_mirrors_it(self, values):
        effect, low, high = stats.bootstrap_mean(values, rng(), 500)
        mirrored = stats.bootstrap_mean([-value for value in values], rng(), 500)
        assert mirrored == pytest.approx((-effect, -high, -low), nan_ok=True, abs=1e-9)

    def test_refuses_undefined_values(self):
        with pytest.raises(ValueError, match="one finite number a patient"):
            stats.bootstrap_mean([0.1, math.nan], rng())


class TestSignFlip:
    def test_by_hand(self):
        # sums of +-1 +-2 +-3: 6, 4, 2, 0 and their negatives; two of eight reach 6
        assert stats.sign_flip_p([1, 2, 3], rng()) == 2 / 8
        # of the same sums, 6, 4 and their negatives reach 4
        assert stats.sign_flip_p([-1, 2, 3], rng()) == 4 / 8

    @given(scores)
    @settings(max_examples=40, deadline=None)
    def test_exact_equals_full_enumeration(self, values):
        hundredths = [round(100 * value) for value in values]
        sums = [sum(signed) for signed in itertools.product(*((v, -v) for v in hundredths))]
        expected = np.mean([abs(total) >= abs(sum(hundredths)) for total in sums])
        assert stats.sign_flip_p(values, rng()) == pytest.approx(expected)

    def test_nobody_and_no_difference_are_no_evidence(self):
        assert stats.sign_flip_p([], rng()) == 1
        assert stats.sign_flip_p([0.0] * 4, rng()) == 1
        assert stats.sign_flip_p([0.0] * 40, rng()) == 1

    def test_many_patients_are_drawn_and_p_is_never_zero(self):
        assert stats.sign_flip_p([0.1] * 60, rng(), draws=999) == 1 / 1000

    def test_drawn_is_close_to_exact(self, monkeypatch):
        values = rng(8).normal(0.2, 0.5, size=12)
        exact = stats.sign_flip_p(values, rng())
        monkeypatch.setattr(stats, "EXACT_UP_TO", 1)
        assert stats.sign_flip_p(values, rng(), 20_000) == pytest.approx(exact, abs=0.015)


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


class TestPatientsNeeded:
    def test_by_hand_for_an_interval_that_excludes_zero(self):
        # mean 0.1, sd 0.2 (n = 3): (1.96 + 0.8416)^2 * 4 = 31.4; the effect is beyond the margin
        assert stats.patients_needed([-0.1, 0.1, 0.3], 0.02) == 32

    def test_by_hand_for_an_interval_inside_the_margin(self):
        # mean 0, sd 0.1: (2.8016 * 0.1 / 0.05)^2 = 31.4
        assert stats.patients_needed([-0.1, 0.0, 0.1], 0.05) == 32

    def test_takes_the_smaller(self):
        # effect 0.04 of margin 0.05, sd 0.1: 49.1 patients exclude 0, 785 fit inside
        assert stats.patients_needed([-0.06, 0.04, 0.14], 0.05) == 50

    def test_more_claims_need_more(self):
        assert stats.patients_needed([-0.1, 0.1, 0.3], 0.02, claims=5) > 32

    @pytest.mark.parametrize("values", [[], [0.1, 0.2], [0.1] * 5])
    def test_cannot_be_told(self, values):
        assert stats.patients_needed(values, 0.02) is None

    def test_no_effect_and_no_margin_is_never_settled(self):
        assert stats.patients_needed([-0.1, 0.0, 0.1], 0.0) is None

    def test_that_many_do_settle_it(self):
        generator, settled = rng(1), 0
        for _ in range(100):
            values = generator.normal(0.1, 0.2, size=32)
            settled += stats.bootstrap_mean(values, generator, 500).low > 0
        assert 70 <= settled <= 95  # promised: 80


def test_imports_without_pandas_and_matplotlib():
    code = "import sys, litsexp.evidence.stats; print({'pandas', 'matplotlib', 'torch', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
