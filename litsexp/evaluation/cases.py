"""The table that every statistic starts from: a row a test case, counts and scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from litsexp.evaluation.lesions import TUMOR, score_lesions
from litsexp.evaluation.matching import Matching, box_of, match
from litsexp.evaluation.metrics import confusion, counts, score
from litsexp.spec.claim import TRIVIAL
from litsexp.spec.errors import LitsexpError

if TYPE_CHECKING:
    from litsexp.data.store import Store


@dataclass(frozen=True, eq=False)
class CaseMasks:
    """One case's truth and prediction: what a metric is given. What is derived is counted once, when asked for."""

    case: int
    truth: NDArray[np.uint8]  # (slices, height, width): 0 background, 1 liver, 2 tumor
    prediction: NDArray[np.uint8]  # the same shape
    spacing_mm: tuple[float, float, float]  # voxel size (z, y, x) of these arrays; NaN where unknown
    z: NDArray[np.int64]  # (slices,), slice numbers, ascending
    outside: int = 0  # voxels beyond these arrays, which are background in both masks
    whole: tuple[int, int, int] | None = None  # shape of the volume that these arrays are cut from; default: their own

    @property
    def volume_shape(self) -> tuple[int, int, int]:
        """Slices, height and width of the whole volume."""
        slices, height, width = self.whole or self.truth.shape
        return slices, height, width

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(3, 3) pixel counts of the whole volume, rows truth, columns prediction."""
        matrix = confusion(self.truth, self.prediction)
        matrix[0, 0] += self.outside
        return matrix

    @cached_property
    def counts(self) -> dict[str, int]:
        """``tp_liver`` ... ``tn_tumor``, in pixels."""
        return counts(self.confusion)

    @cached_property
    def matching(self) -> Matching:
        """The lesions of both masks, and which belong together."""
        return match(self.truth == TUMOR, self.prediction == TUMOR, self.z)

    @cached_property
    def lesions(self) -> dict[str, float | int]:
        """``lesions_true`` ..., as ``lesions.score_lesions`` names them."""
        return score_lesions(self.truth, self.prediction, self.spacing_mm, self.z, self.matching)


def boxed(case: CaseMasks) -> CaseMasks:
    """The case cut to the box of what is foreground in either mask, as views; counts stay those of the whole volume."""
    box = box_of(case.truth | case.prediction)
    truth, prediction = case.truth[box], case.prediction[box]
    if case.whole and truth.shape == case.truth.shape:
        return case  # and what it has counted
    outside = case.outside + case.truth.size - truth.size
    z = case.z[box[0]]
    return replace(case, truth=truth, prediction=prediction, z=z, outside=outside, whole=case.volume_shape)


def masks_of(index: pd.DataFrame, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> Iterator[CaseMasks]:
    """Case by case, ascending; a case's slices as they are in order, views where they stand in one run.

    ``index`` holds the store's rows of these slices (columns case, z, spacing_*_mm); truth and prediction are labels,
    (slices, height, width). ValueError: shapes that differ.
    """
    if truth.shape != prediction.shape or len(truth) != len(index):
        raise ValueError(f"truth {truth.shape}, prediction {prediction.shape}, {len(index)} rows of the index differ")
    numbers, z = index["case"].to_numpy(), index["z"].to_numpy()
    spacing_mm = index[[f"spacing_{axis}_mm" for axis in "zyx"]].to_numpy(dtype=np.float64)
    for number in np.unique(numbers):
        rows = np.flatnonzero(numbers == number)
        here = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] + 1 == len(rows) else rows
        depth, height, width = spacing_mm[rows[0]].tolist()
        yield CaseMasks(int(number), truth[here], prediction[here], (depth, height, width), z[here])


def score_cases(index: pd.DataFrame, truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> pd.DataFrame:
    """Counts, every metric, and lesion scores of each case of the slices that ``masks_of`` describes.

    Returns:
        A row a case, ascending: ``case``, ``slices``, ``tp_liver`` ..., the metrics in their table's order, and what
        ``lesions.score_lesions`` gives. NaN where undefined.

    Raises:
        ValueError: shapes that differ, or a label above 2.
        LitsexpError: a registered metric fails, gives no number, or has the name of another column.
    """
    rows = []
    for case in masks_of(index, truth, prediction):
        counted, scored = {"case": case.case, "slices": len(case.truth), **case.counts}, score(case)
        if taken := scored.keys() & (counted.keys() | case.lesions.keys()):
            found = f"metric {min(taken)!r}: the table of cases has that column"
            raise LitsexpError(f"{found}; expected another name; rename it")
        rows.append({**counted, **scored, **case.lesions})
    return pd.DataFrame(rows)


def trivial_cases(store: Store, among: NDArray[np.int64] | None = None) -> pd.DataFrame:
    """What no learning scores: ``score_cases`` of each trivial predictor, named in ``predictor``; a case at a time.

    ``among``: rows of the store that are scored, and with them the cases that have any; default: all.
    """
    tables = []
    for number in store.cases:
        index, truth = store.index[store.index["case"] == number], store.masks(number)
        if among is not None:
            scored = index.index.isin(among)
            index, truth = index[scored], truth[scored]
            if not len(index):
                continue
        for name, label in TRIVIAL.items():
            tables.append(score_cases(index, truth, np.full_like(truth, label)).assign(predictor=name))
    return pd.concat(tables, ignore_index=True)
