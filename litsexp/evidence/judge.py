"""From results to verdicts: what the runs say about each claim.

A verdict is a pure function of the claims with the arms that they compare, the scores per case, and the claims as they
stood before the first run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from litsexp.evidence import planning, stats, words
from litsexp.evidence.kinds import Arms, Kind, Tables, kind_of
from litsexp.evidence.kinds.kind import CELL_CASE, SIDES, runs_of
from litsexp.evidence.measures import Measured, measure_of
from litsexp.spec.claim import Claim
from litsexp.spec.design import contexts
from litsexp.spec.study import StudyConfig

if TYPE_CHECKING:
    import pandas as pd

Ruling = Literal["supported", "contradicted", "equivalent", "inconclusive"]
ALPHA = 0.05  # of the adjusted p; the intervals are at 1 - ALPHA
MIN_PATIENTS = 6  # fewer say nothing about patients
MIN_RUN_PAIRS = planning.MIN_RUN_PAIRS  # fewer say nothing about training


@dataclass(frozen=True)
class Verdict:
    """What the runs say about one claim. Differences are ``better`` minus ``than``.

    They keep their sign where less is better: there a claim is supported when they lie below 0.
    """

    claim: Claim
    arms: Arms  # every pair that the claim compares; every four where it compares two gains
    measure: Measured = field(compare=False, repr=False)  # what the claim is about: its words, unit and direction
    effect: float  # mean over patients of each patient's mean difference over its runs, units of the measure
    low: float  # 95 % interval of the effect: new patients and new runs
    high: float
    p: float  # two-sided, of that interval
    models_low: float  # 95 % interval: new patients, these trained models
    models_high: float
    false_claim: float  # probability of a false claim as Claims Reloaded computes it (Christodoulou 2025): no run noise
    runs_share: float  # of the effect's variance: what comes from runs; the rest comes from patients
    superiority: float  # P(better serves better) over patients
    n_patients: int
    n_run_pairs: int
    n_undefined: int  # patients tested in both arms whose measure is undefined in every pair (no tumor to find ...)
    n_dropped: int  # scores of the other patients, left out of one pair because one of the two is undefined
    n_missing: int  # patients that the study tested, but not in a finished run of each arm
    better_mean: float
    than_mean: float
    pairs: pd.DataFrame = field(compare=False, repr=False)  # context, fold, seed, case, better, than: both defined
    differences: pd.DataFrame = field(compare=False, repr=False)  # better, than, difference; index case, ascending
    asked: Kind = field(default_factory=Kind, compare=False, repr=False)  # what kind of claim it is
    verdict: Ruling = "inconclusive"
    substantial: bool = False  # has a direction, and the effect itself (not all of its interval) is beyond the margin
    post_hoc: bool = True  # the claim was not fixed, as it stands, before the first run
    p_adjusted: float = math.nan  # Holm, over the claims judged together
    reason: str = ""  # why it is inconclusive, where no number says so
    advice: str = ""  # what would settle it, where it is inconclusive
    kind: str = ""  # what the sentence calls its patients: phantom, external, or both
    leaking: tuple[str, ...] = ()  # those of its arms that learned from slices beside the tested ones

    @property
    def sentence(self) -> str:
        """The verdict in plain words: what changed, by how much, on how many patients and runs, and what follows."""
        return words.sentence(self)

    @property
    def all_leak(self) -> bool:
        """Whether no arm of it says anything about unseen patients."""
        return {name for names in self.arms for name in names} == set(self.leaking)

    @property
    def comparison(self) -> tuple[str, str]:
        """The two sides in words: ``init=imagenet``, ``init=scratch``; named arms with the settings that differ."""
        return words.comparison(self.claim)

    @property
    def sides(self) -> tuple[str, str]:
        """The same in short, as figures show it: named arms by their names alone."""
        return words.sides(self.claim)


def judge(
    study: StudyConfig,
    cases: pd.DataFrame | Tables,
    preregistered: Mapping[str, str] | None,
    kind: str = "",
    external: bool = False,
) -> list[Verdict]:
    """One verdict a claim of the study, in the order of its file; see ``judge_claims``.

    ``external``: the cases are those of another cohort, so only the claims are judged that can be asked there.
    """
    asked = [claim for claim in study.claims if kind_of(claim).portable or not external]
    compared = [(claim, tuple(tuple(arm.name for arm in names) for names in contexts(study, claim))) for claim in asked]
    return judge_claims(compared, cases, preregistered, kind)


def judge_claims(
    compared: Sequence[tuple[Claim, Arms]],
    cases: pd.DataFrame | Tables,
    preregistered: Mapping[str, str] | None,
    kind: str = "",
    measures: Mapping[str, Measured] | None = None,
) -> list[Verdict]:
    """One verdict a claim, in the order given.

    Args:
        compared: each claim with the pairs of arms (better, than) that answer it.
        cases: a row a test case and finished cell: ``arm, fold, seed, case``, and what measures are made of: a column
            a metric (NaN = undefined), pixel and lesion counts. Of a measure whose columns are missing nothing is
            concluded. A case may stand in several folds, as an external one does. Or ``Tables``: these, and what
            other kinds of claims are about.
        preregistered: claim id -> ``Claim.digest`` as fixed before the first run. A claim that is absent from it, or
            has another digest now, is post hoc; None: nothing was fixed.
        kind: of the patients, in the sentences: ``phantom`` where they are synthetic.
        measures: what claims' metrics mean in this table; any other is the registered one of its name.

    Raises:
        ValueError: ``arm``, ``fold``, ``seed`` or ``case`` is missing, or a case stands twice in one cell.
    """
    tables, own = cases if isinstance(cases, Tables) else Tables(cases), measures or {}
    for table in (tables.cases, tables.train):
        _check(table)
    meant = [own.get(claim.metric) or measure_of(claim.metric, claim.share) for claim, _ in compared]
    measured = [_measure(claim, measure, arms, tables) for (claim, arms), measure in zip(compared, meant, strict=True)]
    adjusted = stats.holm([1.0 if math.isnan(verdict.p) else verdict.p for verdict in measured])
    verdicts = []
    for verdict, p in zip(measured, adjusted, strict=True):
        fixed = (preregistered or {}).get(verdict.claim.id) == verdict.claim.digest
        whose = " ".join(part for part in (kind, verdict.asked.patients) if part)
        ruled = dataclasses.replace(verdict, p_adjusted=p, kind=whose, post_hoc=not fixed)
        verdicts.append(_rule(ruled, claims=len(compared)))
    return verdicts


def _check(cases: pd.DataFrame | None) -> None:
    """Refuse a table that would be misread; one without rows (every run failed) needs no columns."""
    if cases is None or cases.empty:
        return
    missing = sorted({"arm", *CELL_CASE} - set(cases.columns))
    if missing:
        raise ValueError(f"cases: no column {missing[0]!r}; found {sorted(map(str, cases.columns))}")
    twice = cases[cases.duplicated(["arm", *CELL_CASE])]
    if len(twice):
        row = twice.iloc[0]
        cell = f"arm {row['arm']!r}, fold {row['fold']}, seed {row['seed']}"
        raise ValueError(f"cases: case {row['case']} stands twice in {cell}; expected one row a case and finished cell")


def _measure(claim: Claim, measure: Measured, arms: Arms, tables: Tables) -> Verdict:
    """The numbers of one claim, not yet ruled upon."""
    asked = kind_of(claim)
    tested = asked.pairs(claim, measure, arms, tables)
    pairs = tested.dropna(subset=SIDES, ignore_index=True)
    table, number = asked.by_patient(pairs), asked.number(pairs)
    found = asked.estimate(pairs, 1 - ALPHA)
    total = float(found.patients_variance + found.runs_variance)
    cases, scored, patients = asked.table(tables), asked.scored(claim, measure, tables), set(pairs["case"])
    better_mean, than_mean = asked.means(pairs)
    return Verdict(
        claim=claim,
        arms=arms,
        measure=measure,
        effect=float(found.effect),
        low=float(found.low),
        high=float(found.high),
        p=float(found.p),
        models_low=float(found.models_low),
        models_high=float(found.models_high),
        false_claim=float(found.models_p) / 2,
        runs_share=float(found.runs_variance) / total if total > 0 else math.nan,
        superiority=stats.superiority(measure.sign * table["difference"].to_numpy()),
        n_patients=number,
        n_run_pairs=int(runs_of(pairs).nunique()),
        n_undefined=tested["case"].nunique() - len(patients) if scored else 0,
        n_dropped=int(tested["case"].isin(patients).sum()) - len(pairs) if scored else 0,
        n_missing=len(set(cases["case"]) - set(tested["case"])) if len(cases) else 0,
        better_mean=better_mean,
        than_mean=than_mean,
        pairs=pairs,
        differences=table,
        asked=asked,
        reason="" if number else _nothing_to_compare(tables, arms, measure, asked, scored, len(tested)),
    )


def _nothing_to_compare(
    tables: Tables, arms: Arms, measure: Measured, asked: Kind, scored_at_all: bool, pairs: int
) -> str:
    """Why a claim has not one difference; ``pairs``: that there are, defined or not."""
    names = sorted({name for context in arms for name in context})
    ran, scored = (set(table["arm"]) if len(table) else set() for table in (tables.cases, asked.table(tables)))
    lost, unscored = ([name for name in names if name not in these] for these in (ran, scored))
    if lost:
        return f"no finished run of {' and '.join(lost)}"
    if unscored and len(unscored) < len(names):
        return f"no finished run of {' and '.join(unscored)} has scored {measure.words}"
    if unscored or not scored_at_all:
        return f"no finished run has scored {measure.words}"
    if pairs:
        return f"{measure.words} is undefined in every patient"
    return "the arms' finished runs share no test patient"


def _rule(verdict: Verdict, claims: int) -> Verdict:
    """Apply the rules, in this order: supported, contradicted, equivalent, else inconclusive, with what would help."""
    margin, significant = verdict.claim.margin, verdict.p_adjusted < ALPHA
    least_gain, largest_gain = sorted(verdict.measure.sign * bound for bound in (verdict.low, verdict.high))
    substantial = abs(verdict.effect) > margin
    few = words.too_few(verdict, MIN_PATIENTS, MIN_RUN_PAIRS) if verdict.n_patients else ""
    if few:
        return dataclasses.replace(verdict, reason=few)
    if significant and least_gain > 0:
        return dataclasses.replace(verdict, verdict="supported", substantial=substantial)
    if significant and largest_gain < 0:
        return dataclasses.replace(verdict, verdict="contradicted", substantial=substantial)
    if -margin < verdict.low and verdict.high < margin:
        return dataclasses.replace(verdict, verdict="equivalent")
    if not verdict.n_patients:
        return verdict
    if not verdict.asked.planned:
        return verdict
    return dataclasses.replace(verdict, advice=planning.advice(verdict.pairs, margin, claims, verdict.measure.per))
