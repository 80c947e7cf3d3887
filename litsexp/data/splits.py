"""Patient-level splits: nobody is in two sets, nobody is lost, tumor-free patients are spread evenly."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from litsexp.data.store import Store
from litsexp.spec.cohort import SplitConfig
from litsexp.spec.errors import LitsexpError


@dataclass(frozen=True)
class Split:
    """Case numbers, sorted; a case is in one of the three."""

    train: tuple[int, ...]
    valid: tuple[int, ...]
    test: tuple[int, ...]


def make_splits(cases: Mapping[int, bool], config: SplitConfig) -> list[Split]:
    """One Split a fold, or one for a holdout, decided by ``config.seed`` and the case numbers alone.

    ``cases`` says of each case whether it has tumor. With folds every patient is tested exactly once, and the share
    ``valid`` of the others (at least one) validates. Where they suffice, each set has tumor-bearing patients;
    otherwise training comes first, then validation. LitsexpError where the patients are too few.
    """
    _check_enough(len(cases), config)
    rng = np.random.default_rng(config.seed)
    if config.folds is None:
        assert config.test is not None
        n_test, n_valid = _holdout_sizes(len(cases), config.test, config.valid)
        test = _pick(cases, n_test, later_sets=2, rng=rng)
        return [_with_rest(cases, test, n_valid, rng)]
    order = [case for has_tumor in (True, False) for case in _shuffled(cases, has_tumor, rng)]
    tests = [order[fold :: config.folds] for fold in range(config.folds)]
    sizes = [len(cases) - len(test) for test in tests]
    valids = [min(max(_round(config.valid * size), 1), size - 1) for size in sizes]
    return [_with_rest(cases, test, n_valid, rng) for test, n_valid in zip(tests, valids, strict=True)]


def limit_training(split: Split, fraction: float, seed: int, cases: Mapping[int, bool] | None = None) -> Split:
    """The split with ``fraction`` of its training patients, rounded, at least one; valid and test stay as they are.

    Subsets of one seed are nested: all that are in the 0.25 subset are in the 0.5 subset. With ``cases`` (case -> has
    tumor) the first patient taken is a tumor-bearing one, so that no subset lacks tumor while the training set has it.
    """
    if not 0 < fraction <= 1:
        raise LitsexpError(f"train_fraction = {fraction:g}; expected more than 0 and at most 1")
    rng = np.random.default_rng([seed, *split.test])  # each fold draws its own order
    order = [int(case) for case in rng.permutation(sorted(split.train))]
    bearing = [case for case in order if cases is not None and cases[case]]
    if bearing:
        order.remove(bearing[0])
        order.insert(0, bearing[0])
    kept = max(_round(fraction * len(order)), 1)
    return replace(split, train=tuple(sorted(order[:kept])))


def _check_enough(patients: int, config: SplitConfig) -> None:
    """Each Split needs a patient to test, one to validate and one to train."""
    folds = config.folds
    needed, what = (3, "a holdout") if folds is None else (max(folds, 4 if folds == 2 else 3), f"{folds} folds")
    if patients < needed:
        advice = "add cases" if folds is None or patients < 3 else "add cases, or lower split.folds"
        raise LitsexpError(f"split: found {patients} patients; expected at least {needed} for {what}; {advice}")


def _holdout_sizes(patients: int, test: float, valid: float) -> tuple[int, int]:
    """Rounded shares of at least one patient each that leave at least one for training."""
    n_test, n_valid = max(_round(test * patients), 1), max(_round(valid * patients), 1)
    while n_test + n_valid >= patients:
        n_test, n_valid = (n_test - 1, n_valid) if n_test > n_valid else (n_test, n_valid - 1)
    return n_test, n_valid


def _with_rest(cases: Mapping[int, bool], test: Iterable[int], n_valid: int, rng: np.random.Generator) -> Split:
    rest = {case: cases[case] for case in cases.keys() - set(test)}
    valid = _pick(rest, n_valid, later_sets=1, rng=rng)
    return Split(*(tuple(sorted(side)) for side in (rest.keys() - valid, valid, test)))


def _pick(cases: Mapping[int, bool], size: int, later_sets: int, rng: np.random.Generator) -> set[int]:
    """Draw ``size`` cases with the cohort's share of tumor-free ones; ``later_sets`` are still to be filled."""
    bearing, free = _shuffled(cases, True, rng), _shuffled(cases, False, rng)
    n_free = _tumor_free(size, len(bearing), len(free), later_sets)
    return {*bearing[: size - n_free], *free[:n_free]}


def _tumor_free(size: int, bearing: int, free: int, later_sets: int) -> int:
    """How many of ``size`` patients should be tumor-free.

    Their share of the cohort, rounded, but one at least where one is left for each later set too. Tumor-bearing
    patients come before that: one for each later set, the training set last to go without, then one for this set.
    """
    wanted = _round(size * free / (bearing + free))
    if free > later_sets:
        wanted = max(wanted, 1)
    most_bearing = max(bearing - later_sets, 0)
    least_bearing = min(most_bearing, 1)
    wanted = max(min(wanted, size - least_bearing), size - most_bearing)
    return max(min(wanted, free), size - bearing)


def _shuffled(cases: Mapping[int, bool], has_tumor: bool, rng: np.random.Generator) -> list[int]:
    return [int(case) for case in rng.permutation(sorted(c for c, tumor in cases.items() if bool(tumor) == has_tumor))]


def _round(x: float) -> int:
    """Half up, unlike Python's round, and not tripped by 0.15 * 10 = 1.4999999999999998."""
    return math.floor(x + 0.5 + 1e-9)


def split_table(store: Store, splits: list[Split]) -> pd.DataFrame:
    """A row a case: the fold that tests it (-1 for none), pixels, slices and voxel size in mm."""
    tested = {case: fold for fold, split in enumerate(splits) for case in split.test}
    by_case = store.index.groupby("case", sort=True)
    table = by_case.agg(
        liver_pixels=("liver_pixels", "sum"), tumor_pixels=("tumor_pixels", "sum"), slices=("z", "size")
    ).reset_index()
    table.insert(1, "test_fold", [tested.get(case, -1) for case in table["case"]])
    spacing = by_case[["spacing_x_mm", "spacing_y_mm", "spacing_z_mm"]].first()
    table["spacing"] = [_millimetres(row) for row in spacing.to_numpy()]
    return table


def _millimetres(spacing: NDArray[np.float64]) -> str:
    """``0.70 × 0.70 × 5.00``; where the volume's header does not tell, ``unknown``."""
    if np.isnan(spacing).all():
        return "unknown"
    return " × ".join("unknown" if np.isnan(value) else f"{value:.2f}" for value in spacing)
