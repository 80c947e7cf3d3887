"""From results to verdicts: what the runs say about each claim of the study file.

A verdict is a pure function of the study, the scores per case, and the claims as they stood before the first run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from litsexp.evidence import stats, words
from litsexp.evidence.measures import Measured, measure_of
from litsexp.spec.claim import Claim
from litsexp.spec.design import contexts, format_level
from litsexp.spec.study import StudyConfig

if TYPE_CHECKING:
    import pandas as pd

Arms = tuple[tuple[str, str], ...]  # pairs (better, than) of arm names
Ruling = Literal["supported", "contradicted", "equivalent", "inconclusive"]
ALPHA = 0.05  # of the adjusted p; the intervals are at 1 - ALPHA
MIN_PATIENTS = 6  # with 5, no two-sided sign-flip p is below 0.05, and a bootstrap interval is too narrow to trust
CELL_CASE = ["fold", "seed", "case"]  # what two arms are paired on


@dataclass(frozen=True)
class Verdict:
    """What the runs say about one claim. Differences are ``better`` minus ``than``, one a patient.

    They keep their sign where less is better: there a claim is supported when they lie below 0.
    """

    claim: Claim
    arms: Arms  # every pair that the claim compares
    effect: float  # mean difference over patients, units of the measure
    low: float  # 95 % interval of the effect
    high: float
    p: float
    superiority: float  # P(better serves better) over patients
    n_patients: int
    n_undefined: int  # patients tested in both arms whose measure is undefined in one of them (no tumor to find ...)
    n_missing: int  # patients that the study tested, but not in a finished run of each arm
    better_mean: float
    than_mean: float
    differences: pd.DataFrame = field(compare=False, repr=False)  # better, than, difference; index case, ascending
    verdict: Ruling = "inconclusive"
    substantial: bool = False  # has a direction, and the effect itself (not all of its interval) is beyond the margin
    patients_needed: int | None = None  # about how many would settle it; only where inconclusive
    post_hoc: bool = True  # the claim was not fixed, as it stands, before the first run
    p_adjusted: float = math.nan  # Holm, over the claims of the study
    reason: str = ""  # why it is inconclusive, where no number says so
    kind: str = ""  # what the sentence calls its patients: phantom, external, or both

    @property
    def sentence(self) -> str:
        """The verdict in plain words: what changed, by how much, on how many patients, and what follows."""
        return words.sentence(self)

    @property
    def measure(self) -> Measured:
        """What the claim is about: its words, unit and direction."""
        return measure_of(self.claim.metric)

    @property
    def comparison(self) -> tuple[str, str]:
        """The two sides in words: ``init=imagenet``, ``init=scratch``."""
        claim = self.claim
        return f"{claim.factor}={format_level(claim.better)}", f"{claim.factor}={format_level(claim.than)}"


def judge(
    study: StudyConfig,
    cases: pd.DataFrame,
    preregistered: Mapping[str, str] | None,
    seed: int = 0,
    draws: int = 10_000,
    kind: str = "",
) -> list[Verdict]:
    """One verdict a claim, in the order of the study file.

    Args:
        study: the question, its arms and its claims.
        cases: a row a test case and finished cell: ``arm, fold, seed, case``, and what measures are made of: a column
            a metric (NaN = undefined), pixel and lesion counts. Of a measure whose columns are missing nothing is
            concluded. A case may stand in several folds, as an external one does: they are averaged like its seeds.
        preregistered: claim id -> ``Claim.digest`` as fixed before the first run. A claim that is absent from it, or
            has another digest now, is post hoc; None: nothing was fixed.
        seed: with the claim's id it seeds the claim's own generator, so no verdict depends on the other claims,
            the adjustment of p apart.
        draws: of the bootstrap, and of the sign-flip test where it is not exact.
        kind: of the patients, in the sentences: ``phantom`` where they are synthetic.

    Raises:
        ValueError: ``arm``, ``fold``, ``seed`` or ``case`` is missing, or a case stands twice in one cell.
    """
    _check(cases)
    verdicts = []
    for claim in study.claims:
        word = int.from_bytes(hashlib.sha256(claim.id.encode()).digest()[:8], "big")
        measured = _measure(study, claim, cases, np.random.default_rng([seed, word]), draws)
        fixed = (preregistered or {}).get(claim.id) == claim.digest
        verdicts.append(dataclasses.replace(measured, kind=kind, post_hoc=not fixed))
    adjusted = stats.holm([verdict.p for verdict in verdicts])
    return [_rule(dataclasses.replace(v, p_adjusted=p), len(verdicts)) for v, p in zip(verdicts, adjusted, strict=True)]


def _check(cases: pd.DataFrame) -> None:
    """Refuse a table that would be misread; one without rows (every run failed) needs no columns."""
    if cases.empty:
        return
    missing = sorted({"arm", *CELL_CASE} - set(cases.columns))
    if missing:
        raise ValueError(f"cases: no column {missing[0]!r}; found {sorted(map(str, cases.columns))}")
    twice = cases[cases.duplicated(["arm", *CELL_CASE])]
    if len(twice):
        row = twice.iloc[0]
        cell = f"arm {row['arm']!r}, fold {row['fold']}, seed {row['seed']}"
        raise ValueError(f"cases: case {row['case']} stands twice in {cell}; expected one row a case and finished cell")


def _measure(study: StudyConfig, claim: Claim, cases: pd.DataFrame, rng: np.random.Generator, draws: int) -> Verdict:
    """The numbers of one claim, not yet ruled upon."""
    arms = tuple((better.name, than.name) for better, than in contexts(study, claim))
    measure = measure_of(claim.metric)
    pairs = paired_scores(cases, arms, measure)
    tested, table = set(pairs["case"]), _differences(pairs)
    values = table["difference"].to_numpy()
    return Verdict(
        claim=claim,
        arms=arms,
        **stats.bootstrap_mean(values, rng, draws, 1 - ALPHA)._asdict(),
        p=stats.sign_flip_p(values, rng, draws),
        superiority=stats.superiority(measure.sign * values),
        n_patients=len(table),
        n_undefined=len(tested) - len(table) if measure.scored(cases) else 0,
        n_missing=len(set(cases["case"]) - tested) if len(cases) else 0,
        better_mean=float(table["better"].mean()),
        than_mean=float(table["than"].mean()),
        differences=table,
        reason=_nothing_to_compare(cases, arms, measure, len(pairs)) if not len(table) else "",
    )


def paired_scores(cases: pd.DataFrame, arms: Arms, measure: Measured) -> pd.DataFrame:
    """``context, fold, seed, case, better, than``: a row a case of a cell that both arms of a context have."""
    import pandas as pd

    if not len(cases):
        return pd.DataFrame(columns=["context", *CELL_CASE, "better", "than"], dtype=float)
    scored = cases.assign(value=measure.values(cases)).set_index(CELL_CASE)
    tables = []
    for context, names in enumerate(arms):
        better, than = (scored.loc[scored["arm"] == name, "value"] for name in names)
        both = pd.concat({"better": better, "than": than}, axis="columns", join="inner")
        tables.append(both.reset_index().assign(context=context))
    return pd.concat(tables).sort_values(["context", *CELL_CASE], ignore_index=True)


def _differences(pairs: pd.DataFrame) -> pd.DataFrame:
    """A row a patient: seeds averaged first, then contexts; only pairs whose two values are defined."""
    by_context = pairs.dropna().groupby(["context", "case"], sort=True)[["better", "than"]].mean()
    table = by_context.groupby("case", sort=True).mean()
    return table.assign(difference=table["better"] - table["than"])


def _nothing_to_compare(cases: pd.DataFrame, arms: Arms, measure: Measured, pairs: int) -> str:
    """Why a claim has not one difference."""
    if pairs and measure.scored(cases):
        return f"{measure.words} is undefined in every patient"
    if pairs:
        return f"no finished run has scored {measure.words}"
    lost = sorted({name for pair in arms for name in pair} - set(cases["arm"] if len(cases) else ()))
    return f"no finished run of {' and '.join(lost)}" if lost else "the arms' finished runs share no test patient"


def _rule(verdict: Verdict, claims: int) -> Verdict:
    """Apply the rules, in this order: supported, contradicted, equivalent, else inconclusive."""
    margin, significant = verdict.claim.margin, verdict.p_adjusted < ALPHA
    least_gain, largest_gain = sorted(verdict.measure.sign * bound for bound in (verdict.low, verdict.high))
    substantial = abs(verdict.effect) > margin
    if 0 < verdict.n_patients < MIN_PATIENTS:
        few = f"{words.patients(verdict.n_patients, verdict.kind)} cannot settle a claim"
        return dataclasses.replace(verdict, reason=f"{few}, at least {MIN_PATIENTS} are needed")
    if significant and least_gain > 0:
        return dataclasses.replace(verdict, verdict="supported", substantial=substantial)
    if significant and largest_gain < 0:
        return dataclasses.replace(verdict, verdict="contradicted", substantial=substantial)
    if -margin < verdict.low and verdict.high < margin:
        return dataclasses.replace(verdict, verdict="equivalent")
    needed = stats.patients_needed(verdict.differences["difference"].to_numpy(), margin, 1 - ALPHA, claims=claims)
    at_least = None if needed is None else max(needed, verdict.n_patients + 1)  # this many were not enough
    return dataclasses.replace(verdict, patients_needed=at_least)
