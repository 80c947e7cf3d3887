"""What a study found, gathered for its report and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from litsexp.evidence import leaks
from litsexp.evidence.external import Replication, replications
from litsexp.evidence.failed import EVERYWHERE, failed_to_learn
from litsexp.evidence.judge import Verdict
from litsexp.evidence.measures import main_metrics, measure_of
from litsexp.evidence.noise import Noise, noise_floor
from litsexp.spec.claim import LESION_SIZE
from litsexp.spec.design import arms
from litsexp.spec.study import StudyConfig

if TYPE_CHECKING:
    import pandas as pd


PICTURE_ARMS = 12  # side by side: more cannot be looked at


@dataclass(frozen=True)
class Panel:
    """What one arm makes of a slice, or the slice itself with the truth; WebP."""

    title: str
    caption: str
    webp: bytes


@dataclass(frozen=True)
class SideBySide:
    """A slice as all arms see it."""

    title: str  # "phantom case 3, z 12"
    why: str  # "worst": why this patient
    panels: Sequence[Panel]  # the truth first

    @property
    def size(self) -> int:
        """Bytes of all its panels."""
        return sum(len(panel.webp) for panel in self.panels)


@dataclass(frozen=True)
class External:
    """What the same runs scored on a second cohort, from which none of them learned; reported apart."""

    cohort: str  # "phantom, 12 patients, seed 1, site B"
    phantom: bool
    verdicts: Sequence[Verdict]  # the study's claims that can be asked of these patients, adjusted among themselves
    cases: pd.DataFrame  # arm, fold, seed, case, a column a metric: each case once a run
    trivial: pd.DataFrame  # predictor, case, a column a metric
    pictures: Sequence[SideBySide] = ()


def arm_names(study: StudyConfig, *tables: pd.DataFrame) -> list[str]:
    """The design's arms in its order, then others that these tables have; of a search those that ran."""
    planned = [arm.name for arm in arms(study)]
    seen = [str(name) for table in tables if len(table) for name in table["arm"].unique()]
    if study.design == "search":
        planned = [name for name in planned if name in seen]
    return list(dict.fromkeys([*planned, *sorted(seen)]))


@dataclass(frozen=True)
class Evidence:
    """All that a report shows. Tables are long: a row a case and cell, an epoch and metric, a run, a trial."""

    name: str
    study: StudyConfig
    cohort: str  # "phantom, 30 patients, seed 0"
    phantom: bool  # its patients are synthetic, which has to be said wherever a result is shown
    verdicts: Sequence[Verdict]
    cases: pd.DataFrame  # arm, fold, seed, case, a column a metric, pixel counts (tp_tumor ...), lesion counts
    curves: pd.DataFrame  # arm, fold, seed, epoch, metric (train/loss, valid/dice_tumor ...), value
    runs: pd.DataFrame  # arm, fold, seed, status (FINISHED | FAILED), reason, minutes, best_epoch, epochs, lr
    trivial: pd.DataFrame  # predictor (all background | liver everywhere), case, a column a metric
    split: pd.DataFrame  # case, test_fold (-1: never tested), liver_pixels, tumor_pixels, slices, spacing
    pictures: Sequence[SideBySide] = ()
    facts: dict[str, str] | None = None  # versions, digests, fingerprint, device, where MLflow is, command
    search: pd.DataFrame | None = None  # trial, state, valid/score, a column a param; only of ``design: search``
    importances: dict[str, float] | None = None  # of a search's settings, each a part of 1
    notes: Sequence[str] = ()
    external: External | None = None
    native: pd.DataFrame | None = None  # like cases, on whole volumes in their own pixels; None or empty: not scored

    @property
    def arm_names(self) -> list[str]:
        """Arms that ran or should have: the design's order, then a search's own."""
        return arm_names(self.study, self.runs, self.cases)

    @property
    def warning(self) -> str:
        """What has to stand beside a phantom's results; empty where the patients are real."""
        words = f"Phantom results ({self.cohort}): the patients are synthetic."
        return f"{words} They show how the instrument answers, not what holds in patients." if self.phantom else ""

    @property
    def leak_warning(self) -> str:
        """What has to stand beside results of which some come from leaking arms; empty where none does."""
        return leaks.warning(self.study)

    @property
    def tested_trivial(self) -> pd.DataFrame:
        """The trivial predictors on the patients that some run has tested: what the arms are to be read against."""
        return self.trivial[self.trivial["case"].isin(self.cases["case"])] if len(self.cases) else self.trivial

    @property
    def replications(self) -> list[Replication]:
        """Each claim on both cohorts; empty without an external one."""
        there = self.external
        return replications(self.verdicts, there.verdicts) if there else []

    @cached_property
    def failed(self) -> pd.DataFrame:
        """The runs that failed to learn: ``arm, fold, seed, metric, score, typical``."""
        about = [claim.metric for claim in self.study.claims if claim.factor != LESION_SIZE]  # that compares no arms
        return failed_to_learn(self.cases, [*EVERYWHERE, *about])

    @cached_property
    def noise(self) -> list[Noise]:
        """How noisy training is, told by the first arm's runs; empty with one seed, and for a search."""
        return self._noise(self.cases, crossed=False)

    @cached_property
    def external_noise(self) -> list[Noise]:
        """The same on the external cohort."""
        return self._noise(self.external.cases, crossed=True) if self.external else []

    def _noise(self, cases: pd.DataFrame, crossed: bool) -> list[Noise]:
        if self.study.design == "search":
            return []
        return noise_floor(cases, arms(self.study)[0].name, self.scored(cases, main_metrics()), crossed)

    @property
    def metrics(self) -> list[str]:
        """The main metrics and the claims' own measures, of those that were scored."""
        return self.scored(self.cases, main_metrics())

    def scored(self, cases: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
        """These metrics and the claims' own measures, of those that the cases have."""
        wanted = dict.fromkeys([*metrics, *(claim.metric for claim in self.study.claims)])
        return [metric for metric in wanted if measure_of(metric).scored(cases)]
