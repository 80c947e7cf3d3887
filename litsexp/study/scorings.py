"""What a trained cell's weights are asked to label, each known by a key of its own: none causes a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from litsexp.data.store import Store
from litsexp.evaluation.truths import NativeCohort
from litsexp.spec.catalog import METRICS
from litsexp.spec.keys import digest
from litsexp.spec.study import StudyConfig
from litsexp.study.cohorts import cohort_name

SCORE_FORMAT = 1  # raise it when the same weights would no longer give the same table: every run is scored again

CohortKind = Literal["test", "external", "train", "native"]


@dataclass(frozen=True)
class Scoring:
    """Cases that a run's best weights are to label: its own test or training cases, or a whole other cohort.

    ``native``: its test cases once more, on all slices of their volumes, in the volumes' own pixels.
    """

    kind: CohortKind
    store: Path
    fingerprint: str
    name: str  # of the cohort, for people
    key: str  # identity of the result by content: weights, slices, metrics
    folder: str = ""  # among the run's artifacts: where the table is put
    held_out: bool = False  # of its test cases only the slices that are tested where an arm leaks
    truths: Mapping[int, Path] = field(default_factory=dict)  # of ``native``: case -> its segmentation

    @property
    def tag(self) -> str:
        """Of a run in MLflow that has this result; its value is the folder, ``.`` for none."""
        return f"scored.{self.key}"


def wanted_scorings(
    study: StudyConfig,
    run_key: str,
    store: Store,
    external: Store | None,
    native: NativeCohort | None,
    first: bool = False,
) -> list[Scoring]:
    """What is wanted of a trained cell: its test cases, and its training cases where a claim is about them.

    And the external cohort, and whole volumes, where that is asked.
    """
    name = cohort_name(study.data, store)
    wanted = [scoring_of("test", run_key, store, name, first, study.leaks)]
    if "train" in study.needs:
        wanted.append(scoring_of("train", run_key, store, name, first))
    if external is not None and study.external is not None:
        wanted.append(scoring_of("external", run_key, external, cohort_name(study.external, external), first))
    if native is not None:
        wanted.append(native_scoring_of(run_key, native, name))
    return wanted


def scoring_of(kind: CohortKind, run_key: str, store: Store, name: str, first: bool, held_out: bool = False) -> Scoring:
    """The scoring of a run's test or training cases, or of a whole store; ``first``: with the training.

    The first scoring of test cases needs no folder. ``held_out``: of the test cases only the slices of
    ``data.rows.scored_rows``, for a study in which an arm leaks.
    """
    key = _key(kind, run_key, store.fingerprint, _slices(held_out))
    folder = "" if first and kind == "test" else f"{kind}/{key}"
    return Scoring(kind, store.directory, store.fingerprint, name, key, folder, held_out)


def scoring_tag(kind: CohortKind, run_key: str, fingerprint: str, held_out: bool = False) -> str:
    """``Scoring.tag`` of a run's test or training cases, for readers that have the store's fingerprint alone."""
    return f"scored.{_key(kind, run_key, fingerprint, _slices(held_out and kind == 'test'))}"


def native_scoring_of(run_key: str, cohort: NativeCohort, name: str) -> Scoring:
    """The scoring of a run's test cases at native resolution."""
    store, fingerprint = cohort.store, cohort.fingerprint
    key = _key("native", run_key, fingerprint, {})
    return Scoring("native", store.directory, fingerprint, name, key, f"native/{key}", truths=cohort.truths)


def _slices(held_out: bool) -> dict[str, str]:
    return {"slices": "held out"} if held_out else {}


def _key(kind: CohortKind, run_key: str, fingerprint: str, asked: Mapping[str, str]) -> str:
    registered = {metric: source for metric in METRICS if (source := METRICS.source(metric))}
    of = {"run": run_key, "kind": kind, "data": fingerprint, "registered": registered}
    return digest({"format": SCORE_FORMAT, **of, **asked})
