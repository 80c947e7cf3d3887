"""What a study found, gathered for its report and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from litsexp.config import StudyConfig, arms
from litsexp.evidence.claims import Verdict

MAIN_METRICS = ("dice_tumor", "dice_liver", "sensitivity_tumor", "precision_tumor", "foreground_acc", "pixel_acc")


@dataclass(frozen=True)
class Picture:
    """A PNG with its words."""

    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Evidence:
    """All that a report shows. Tables are long: a row a case and cell, an epoch and metric, a run, a trial."""

    name: str
    study: StudyConfig
    cohort: str  # "phantom, 30 patients, seed 0"
    verdicts: Sequence[Verdict]
    cases: pd.DataFrame  # arm, fold, seed, case, a column a metric, tp_tumor, fp_tumor, fn_tumor (pixels)
    curves: pd.DataFrame  # arm, fold, seed, epoch, metric (train/loss, valid/dice_tumor ...), value
    runs: pd.DataFrame  # arm, fold, seed, status (FINISHED | FAILED), reason, minutes, best_epoch, epochs, lr
    trivial: pd.DataFrame  # predictor (all background | liver everywhere), case, a column a metric
    split: pd.DataFrame  # case, test_fold (-1: never tested), liver_pixels, tumor_pixels, slices, spacing
    pictures: Sequence[Picture] = ()
    facts: dict[str, str] | None = None  # versions, digests, fingerprint, device, where MLflow is, command
    search: pd.DataFrame | None = None  # params, value, state; only of ``design: search``
    notes: Sequence[str] = ()

    @property
    def arm_names(self) -> list[str]:
        """Arms that ran or should have: the design's order, then a search's own."""
        planned = [arm.name for arm in arms(self.study)]
        seen = [str(name) for table in (self.runs, self.cases) if len(table) for name in table["arm"].unique()]
        if self.study.design == "search":
            planned = [name for name in planned if name in seen]
        return list(dict.fromkeys([*planned, *sorted(seen)]))

    @property
    def metrics(self) -> list[str]:
        """The main metrics and the claims' own, of those that were measured."""
        wanted = dict.fromkeys([*MAIN_METRICS, *(claim.metric for claim in self.study.claims)])
        return [metric for metric in wanted if metric in self.cases.columns]
