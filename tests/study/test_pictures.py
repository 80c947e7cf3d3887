"""Which slices are drawn."""

from pathlib import Path

import numpy as np
import pandas as pd

from litsexp.data.store import Store
from litsexp.study import pictures
from litsexp.study.pictures import fixed_slices, tallest


def store_of(index: pd.DataFrame, phantom: bool = False) -> Store:
    empty = np.zeros((len(index), 1, 1))
    return Store(Path("nowhere"), "f", index, empty.astype(np.int16), empty.astype(np.uint8), phantom)


INDEX = pd.DataFrame(
    [(1, 5, 0), (1, 9, 0), (2, 4, 3), (2, 8, 7), (2, 9, 7), (3, 6, 9), (5, 1, 1)],
    columns=["case", "liver_pixels", "tumor_pixels"],
)


def test_the_tallest_slice_is_the_one_with_most_tumor_or_else_most_liver() -> None:
    everything = np.arange(6)  # of the first three cases
    assert list(tallest(store_of(INDEX), everything)) == [1, 4, 5]
    assert list(tallest(store_of(INDEX), np.array([0, 2, 3, 5]))) == [0, 3, 5]  # of these slices alone
    assert list(tallest(store_of(INDEX), everything[:0])) == []


def test_the_watched_slices_are_the_tallest_tumors_of_the_cases() -> None:
    assert pictures.WATCHED_SLICES == 2
    assert list(fixed_slices(store_of(INDEX), np.arange(6))) == [5, 4]
    assert list(fixed_slices(store_of(INDEX), np.arange(2))) == [1]


def test_a_real_patients_slice_is_called_by_case_and_place() -> None:
    assert pictures.slice_title(store_of(INDEX.assign(z=7)), 2) == "case 2, z 7"
