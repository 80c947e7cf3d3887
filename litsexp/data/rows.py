"""Which slices of a store a run learns from and is tested on; and the notebook's leak, made on purpose to be measured.

With ``split_unit: patient`` a run trains on every slice of the training patients. With ``slice`` it does what
RandomSplitter over slices does: every patient's slices are dealt to test, training and validation in the shares that
the split gives to patients, so that most tested slices have neighbours, of the same liver and the same tumors, among
those that are learned. What stays equal: who is tested, how many slices are trained on, and how many steps.

Where an arm of a study leaks, all its arms are scored on the same ``held_out`` slices of the test patients: none of
them has trained on one or chosen its checkpoint by one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from litsexp.data.splits import Split, limit_training
from litsexp.data.store import Store
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig

Rows = NDArray[np.int64]  # of a store, ascending
DEAL = 20  # sets the deal's random numbers apart from those of ``limit_training``


def learning_rows(store: Store, split: Split, run: RunConfig, seed: int) -> tuple[Rows, Rows]:
    """Rows to train on and to validate on; ``seed`` chooses the patients of a ``train_fraction``.

    A leaking run gets as many to train on as an honest one with the same settings; smaller fractions are nested. To
    validate it gets as many as there are left, at most those of an honest run.

    Raises:
        LitsexpError: a leaking run for which the held-out slices leave too few to train and to validate on.
    """
    patients = limit_training(split, run.train_fraction, seed, store.has_tumor)
    train, valid = store.rows_of(patients.train), store.rows_of(split.valid)
    if run.split_unit == "patient":
        return train, valid
    _, pool = _deal(store, split)
    whole = len(store.rows_of(split.train))
    if len(pool) <= whole:
        found = f"{len(pool)} slices beside the held-out ones, {whole} of which would train"
        raise LitsexpError(f"split.unit = slice: found {found}; expected one more to validate; add cases or slices")
    return np.sort(pool[: len(train)]), np.sort(pool[whole : whole + len(valid)])


def scored_rows(store: Store, split: Split, held_out: bool) -> Rows:
    """All slices of the test patients; ``held_out``: those of them that no arm of a leaking study learns from."""
    rows = store.rows_of(split.test)
    return np.intersect1d(rows, _deal(store, split)[0]) if held_out else rows


def held_out_rows(store: Store, splits: Sequence[Split]) -> Rows:
    """All that the folds of a leaking study test."""
    return np.sort(np.concatenate([scored_rows(store, split, held_out=True) for split in splits]))


def _deal(store: Store, split: Split) -> tuple[Rows, Rows]:
    """Held-out rows of every patient, and the others in random order; decided by the test patients of the fold.

    The share that is held out is the test patients' share of all slices, rounded down, but of a test patient one at
    least.
    """
    rng = np.random.default_rng([DEAL, *split.test])
    cases = sorted([*split.train, *split.valid, *split.test])
    tested, total = len(store.rows_of(split.test)), len(store.rows_of(cases))
    held_out, others = [], []
    for case in cases:
        rows = rng.permutation(store.rows_of([case]))
        count = max(len(rows) * tested // total, int(case in split.test))
        held_out.append(rows[:count])
        others.append(rows[count:])
    return np.concatenate(held_out), rng.permutation(np.concatenate(others))
