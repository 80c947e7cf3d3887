"""Splits by patient: nobody lost, nobody twice, tumor-free patients spread evenly."""

from collections import Counter
from itertools import chain, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litsexp.spec.cohort import SplitConfig
from litsexp.spec.errors import LitsexpError

from litsexp.data.splits import Split, limit_training, make_splits

LITS_TUMOR_FREE = {32, 34, 38, 41, 47, 87, 89, 91, 105, 106, 114, 115, 119}
LITS = {case: case not in LITS_TUMOR_FREE for case in range(131)}
HOLDOUT = SplitConfig(train=0.70, valid=0.15, test=0.15)

cohorts = st.dictionaries(st.integers(0, 200), st.booleans(), min_size=4, max_size=60)


def tumor_free(cases: dict[int, bool], part: tuple[int, ...]) -> int:
    return sum(not cases[case] for case in part)


def parts(split: Split) -> list[tuple[int, ...]]:
    return [split.train, split.valid, split.test]


def assert_partition(cases: dict[int, bool], split: Split) -> None:
    assert sorted(chain(*parts(split))) == sorted(cases)
    assert all(part and list(part) == sorted(part) for part in parts(split))


@settings(max_examples=200, deadline=None)
@given(cohorts, st.integers(2, 6), st.floats(0.05, 0.9), st.integers(0, 5))
def test_folds_lose_nobody_and_test_nobody_twice(cases: dict[int, bool], folds: int, valid: float, seed: int) -> None:
    if len(cases) < folds:
        return
    splits = make_splits(cases, SplitConfig(folds=folds, valid=valid, seed=seed))
    assert len(splits) == folds
    assert sorted(chain(*(split.test for split in splits))) == sorted(cases)
    for split in splits:
        assert_partition(cases, split)
    free = [tumor_free(cases, split.test) for split in splits]
    assert max(free) - min(free) <= 1
    sizes = [len(split.test) for split in splits]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=200, deadline=None)
@given(cohorts, st.floats(0.05, 0.6), st.floats(0.05, 0.35), st.integers(0, 5))
def test_holdout_loses_nobody(cases: dict[int, bool], valid: float, test: float, seed: int) -> None:
    config = SplitConfig(train=1 - valid - test, valid=valid, test=test, seed=seed)
    (split,) = make_splits(cases, config)
    assert_partition(cases, split)
    bearing = sum(cases.values())
    for part, needed in ((split.train, 1), (split.valid, 2), (split.test, 3)):
        assert bearing < needed or len(part) > tumor_free(cases, part)


@settings(max_examples=100, deadline=None)
@given(cohorts, st.integers(2, 4))
def test_training_and_validation_see_tumor_where_they_can(cases: dict[int, bool], folds: int) -> None:
    for split in make_splits(cases, SplitConfig(folds=folds)):
        bearing = sum(cases[case] for case in split.train + split.valid)
        for part, needed in ((split.train, 1), (split.valid, 2)):
            assert bearing < needed or any(cases[case] for case in part)


def test_lits_70_15_15() -> None:
    (split,) = make_splits(LITS, HOLDOUT)
    assert [len(part) for part in parts(split)] == [91, 20, 20]
    assert [tumor_free(LITS, part) for part in parts(split)] == [9, 2, 2]


def test_a_few_tumor_free_patients_reach_every_set() -> None:
    cases = {case: case >= 3 for case in range(30)}
    (split,) = make_splits(cases, HOLDOUT)
    assert [tumor_free(cases, part) for part in parts(split)] == [1, 1, 1]


def test_small_holdouts_by_hand() -> None:
    sizes = [
        [len(part) for part in parts(make_splits(dict.fromkeys(range(n), True), HOLDOUT)[0])] for n in (3, 4, 10, 20)
    ]
    assert sizes == [[1, 1, 1], [2, 1, 1], [6, 2, 2], [14, 3, 3]]
    greedy = SplitConfig(train=0.1, valid=0.45, test=0.45)
    assert [len(part) for part in parts(make_splits(dict.fromkeys(range(4), True), greedy)[0])] == [1, 1, 2]


def test_valid_is_a_share_of_those_not_tested() -> None:
    splits = make_splits(dict.fromkeys(range(30), True), SplitConfig(folds=3, valid=0.2))
    assert all([len(part) for part in parts(split)] == [16, 4, 10] for split in splits)


@pytest.mark.parametrize("config", [SplitConfig(folds=5), HOLDOUT])
def test_the_order_of_the_cases_does_not_matter_but_the_seed_does(config: SplitConfig) -> None:
    backwards = dict(reversed(LITS.items()))
    assert make_splits(LITS, config) == make_splits(backwards, config)
    assert make_splits(LITS, config) != make_splits(LITS, config.model_copy(update={"seed": 1}))


def test_valid_does_not_move_the_test_folds() -> None:
    small, large = (make_splits(LITS, SplitConfig(folds=3, valid=valid)) for valid in (0.1, 0.4))
    assert [split.test for split in small] == [split.test for split in large]


@pytest.mark.parametrize(
    ("patients", "config", "needed"),
    [
        (2, SplitConfig(folds=3), 3),
        (4, SplitConfig(folds=5), 5),
        (3, SplitConfig(folds=2), 4),
        (2, HOLDOUT, 3),
        (0, HOLDOUT, 3),
    ],
)
def test_too_few_patients(patients: int, config: SplitConfig, needed: int) -> None:
    with pytest.raises(LitsexpError) as error:
        make_splits(dict.fromkeys(range(patients), True), config)
    assert f"found {patients} patients; expected at least {needed}" in str(error.value)
    assert "\n" not in str(error.value)
    for split in make_splits(dict.fromkeys(range(needed), True), config):
        assert_partition(dict.fromkeys(range(needed), True), split)


@settings(max_examples=100, deadline=None)
@given(cohorts, st.integers(0, 3), st.booleans())
def test_training_subsets_are_nested(cases: dict[int, bool], seed: int, known: bool) -> None:
    split = make_splits(cases, SplitConfig(folds=2))[0]
    subsets = [limit_training(split, fraction, seed, cases if known else None) for fraction in (0.01, 0.25, 0.5, 1.0)]
    assert subsets[-1] == split
    for small, large in pairwise(subsets):
        assert set(small.train) <= set(large.train)
        assert (small.valid, small.test) == (split.valid, split.test)
    assert len(subsets[0].train) == 1
    if known and any(cases[case] for case in split.train):
        assert cases[subsets[0].train[0]]


def test_training_fraction_by_hand() -> None:
    (split,) = make_splits(LITS, HOLDOUT)
    assert len(limit_training(split, 0.25, seed=0).train) == 23  # of 91
    assert limit_training(split, 0.25, seed=0) == limit_training(split, 0.25, seed=0)
    assert limit_training(split, 0.25, seed=0) != limit_training(split, 0.25, seed=1)
    firsts = Counter(limit_training(split, 0.01, seed).train[0] for seed in range(40))
    assert len(firsts) > 15
    for fraction in (0, -1, 1.5):
        with pytest.raises(LitsexpError, match="train_fraction"):
            limit_training(split, fraction, seed=0)
