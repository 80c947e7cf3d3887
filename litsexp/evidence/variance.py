"""Where scores vary: between patients, between runs, and what is left (patient x run)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Components:
    """Variance components of scores, or of differences, in squared units of the measure; NaN where one run is all.

    ``patient``: of patients' means; ``run``: of what a run has in common over all its patients; ``residual``: the rest.
    """

    patient: float
    run: float
    residual: float
    patients: int = 0
    runs: int = 0
    run_df: int = 0  # degrees of freedom that ``run`` rests on: few of them make it rough

    @property
    def known(self) -> bool:
        """Whether some block had two runs at least."""
        return not math.isnan(self.run)


def components(table: pd.DataFrame, block: Sequence[str] = ("fold",), run: Sequence[str] = ("seed",)) -> Components:
    """Two-way analysis of variance (patient + run + residual) within blocks, pooled over them; truncated at 0.

    Args:
        table: a row a patient and run: ``case``, ``value``, and the columns that ``block`` and ``run`` name. Patients
            that lack a value under one of their block's runs are left out.
        block: what runs have in common that test the same patients: ``("fold",)``; empty where every run meets every
            patient, as on an external cohort.
        run: what tells the runs of a block apart.
    """
    patient_ss = run_ss = residual_ss = 0.0
    patient_df = run_df = residual_df = 0
    sizes: list[int] = []  # patients of each run of each block
    widths: list[int] = []  # runs of each patient
    groups = [part for _, part in table.groupby(list(block), sort=True)] if block else [table]
    for part in groups:
        grid = part.pivot_table(index="case", columns=list(run), values="value", sort=True).dropna()
        n, k = grid.shape
        if n < 2 or k < 2:
            continue
        values = grid.to_numpy()
        grand, of_patient, of_run = values.mean(), values.mean(1), values.mean(0)
        patient_ss += k * float(((of_patient - grand) ** 2).sum())
        run_ss += n * float(((of_run - grand) ** 2).sum())
        residual_ss += float(((values - of_patient[:, None] - of_run[None] + grand) ** 2).sum())
        patient_df, run_df, residual_df = patient_df + n - 1, run_df + k - 1, residual_df + (n - 1) * (k - 1)
        sizes += [n] * k
        widths += [k] * n
    if not run_df:
        return Components(math.nan, math.nan, math.nan)
    residual = residual_ss / residual_df
    return Components(
        patient=max(0.0, (patient_ss / patient_df - residual) / (sum(widths) / len(widths))),
        run=max(0.0, (run_ss / run_df - residual) / (sum(sizes) / len(sizes))),
        residual=residual,
        patients=len(widths),
        runs=len(sizes),
        run_df=run_df,
    )
