"""Which slices a run learns from and is tested on, with the leak and without it."""

import numpy as np
import pandas as pd
import pytest

from litsexp.data.rows import held_out_rows, learning_rows, scored_rows
from litsexp.data.splits import Split, make_splits
from litsexp.data.store import Store
from litsexp.spec.cohort import SplitConfig
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig

HONEST, LEAKING = RunConfig(), RunConfig(split_unit="slice")
SPLIT = Split(train=(0, 1, 2), valid=(3,), test=(4, 5))


class Shelf:
    """As much of a store as rows are asked of: cases of so many slices each, all with tumor."""

    def __init__(self, *slices: int):
        self.index = pd.DataFrame({"case": np.repeat(np.arange(len(slices)), slices)})
        self.has_tumor = dict.fromkeys(range(len(slices)), True)

    def rows_of(self, cases):
        return np.flatnonzero(self.index["case"].isin(list(cases)))


def test_an_honest_run_learns_from_every_slice_of_its_patients() -> None:
    shelf = Shelf(2, 1, 3, 2, 1, 2)
    train, valid = learning_rows(shelf, SPLIT, HONEST, seed=0)
    assert (train.tolist(), valid.tolist()) == ([0, 1, 2, 3, 4, 5], [6, 7])
    assert scored_rows(shelf, SPLIT, held_out=False).tolist() == [8, 9, 10]


def test_a_leaking_run_learns_from_as_many_slices_and_from_none_that_is_tested() -> None:
    shelf = Shelf(*[30] * 6)  # a third of them is tested: 10 of each
    train, valid = learning_rows(shelf, SPLIT, LEAKING, seed=0)
    tested = scored_rows(shelf, SPLIT, held_out=True)
    assert (len(train), len(valid), len(tested)) == (90, 30, 20)
    assert len({*train, *valid, *tested}) == 140
    assert all((np.diff(rows) > 0).all() for rows in (train, valid, tested))  # slices of a case ascend
    by_case = np.bincount(train // 30)
    assert by_case.min() >= 9  # 15 of each on average
    assert set(shelf.index["case"][tested]) == {4, 5}
    beside = np.isin(tested - 1, train) | np.isin(tested + 1, train)
    assert beside.mean() > 0.6  # a random half of its neighbours trains: 3 of 4


def test_the_leak_is_decided_by_the_fold_alone_and_a_smaller_fraction_is_a_part_of_it() -> None:
    shelf = Shelf(*[30] * 6)
    less = LEAKING.changed({"train_fraction": 0.3})
    whole, again, small, other = (
        learning_rows(shelf, split, run, seed)
        for split, run, seed in (
            (SPLIT, LEAKING, 0),
            (SPLIT, LEAKING, 1),
            (SPLIT, less, 0),
            (Split((0, 1, 4), (3,), (2, 5)), LEAKING, 0),
        )
    )
    assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))
    assert len(small[0]) == len(learning_rows(shelf, SPLIT, HONEST.changed({"train_fraction": 0.3}), 0)[0]) == 30
    assert set(small[0]) < set(whole[0])
    assert np.array_equal(small[1], whole[1])
    assert not np.array_equal(other[0], whole[0])


def test_every_test_patient_has_a_held_out_slice_and_too_few_slices_are_refused() -> None:
    assert len(scored_rows(Shelf(9, 9, 9, 9, 1, 2), SPLIT, held_out=True)) == 2
    thin = Shelf(1, 1, 1, 1)  # both test patients' only slices are held out
    with pytest.raises(LitsexpError, match=r"found 2 slices beside the held-out ones, 2 of which would train"):
        learning_rows(thin, Split((0, 1), (), (2, 3)), LEAKING, seed=0)


@pytest.mark.parametrize("config", [SplitConfig(folds=3), SplitConfig(train=0.5, valid=0.25, test=0.25)])
def test_on_the_phantom_no_fold_learns_from_a_slice_that_it_tests(phantom_store: Store, config: SplitConfig) -> None:
    splits = make_splits(phantom_store.has_tumor, config)
    for split in splits:
        honest, leaking = (learning_rows(phantom_store, split, run, 0) for run in (HONEST, LEAKING))
        tested = scored_rows(phantom_store, split, held_out=True)
        cases = phantom_store.index["case"].to_numpy()
        assert set(cases[tested]) == set(split.test)
        assert set(cases[leaking[0]]) & set(split.test)
        assert len(honest[0]) == len(leaking[0])
        assert len({*leaking[0], *leaking[1], *tested}) == sum(map(len, (*leaking, tested)))
        assert not set(tested) & {*honest[0], *honest[1]}
    assert len(held_out_rows(phantom_store, splits)) == sum(len(scored_rows(phantom_store, s, True)) for s in splits)
