"""The A/A test: the runs of one arm, dealt to two pretended arms. What is found to differ there is found falsely.

Runs of different folds are independent of each other (a run's randomness comes from seed and fold), so every fold is
dealt by itself. Deals share runs: however many there are, they come from one sample of runs, and the share of them that
is false is an estimate from few draws. What all deals are made of are the pairs of runs that a fold can form; the band
around 5 % takes each of these as one draw and no deal as another. That is on the wide side: of simulated i.i.d. runs
(8 seeds on 3 folds, 4 on 3 or 5, 10 on 1; no collapsed runs, or one in ten) the shares' standard deviation is 0.2 to
0.7 of the binomial one, and 97.5 % of the shares lie below 7 %.
"""

import itertools
import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import bdtr

from litsexp.evidence import stats
from litsexp.evidence.judge import ALPHA, MIN_PATIENTS, MIN_RUN_PAIRS
from litsexp.evidence.measures import Measured, main_metrics, measure_of
from litsexp.evidence.stats import Floats
from litsexp.evidence.variance import components
from litsexp.spec.catalog import MEASURES
from litsexp.spec.study import StudyConfig

Deals = NDArray[np.intp]  # (deals, folds, 2, k): which of its runs a fold gives to either arm, paired by position
DEALS = 2000  # all there are, or this many draws
COLLAPSED = 0.5  # of the median run of the fold


@dataclass(frozen=True)
class AATest:
    """Shares of false verdicts and the scatter of the runs, on the test patients and on the external cohort."""

    name: str  # of the study
    study: StudyConfig  # as it was asked, with its factors and claims
    seeds: int
    cohorts: Mapping[str, str]  # "test", "external" -> "phantom, 36 patients, seed 0"
    shares: pd.DataFrame  # cohort, and the columns of ``false_verdicts``
    spread: pd.DataFrame  # cohort, and the columns of ``run_spread``

    @property
    def caveat(self) -> str:
        """What to know before believing a share."""
        runs = self.spread.loc[self.spread["cohort"] == "test", "runs"].max()
        return (
            f"All deals come from one sample of {runs} runs and share them: a share is an estimate from few draws. "
            "Around 5 % lies the band in which 95 % of tests would be that are wrong in exactly 5 %, each pair of runs "
            f"taken as one draw. In parentheses: fewer than {MIN_RUN_PAIRS} pairs of runs or {MIN_PATIENTS} patients, "
            "on which the judge gives no verdict."
        )

    @property
    def note(self) -> str:
        """In Markdown, for a run's page: the largest number of seeds an arm, of each cohort."""
        lines = [f"**{aa_study(self.study, self.seeds).question}**"]
        for cohort, words in self.cohorts.items():
            rows = self.shares[self.shares["cohort"] == cohort]
            most = rows[rows["seeds"] == rows["seeds"].max()].to_dict("records")
            lines.append(f"{cohort} patients ({words}): share of false verdicts; in brackets: by patients alone")
            shares = [f"{row['metric']}, {seeds_an_arm(row['seeds'])}: {_both(row)}" for row in most]
            lines.append("\n".join(f"- {share}" for share in shares))
        return "\n\n".join([*lines, self.caveat])

    @property
    def scalars(self) -> dict[str, float]:
        """As metrics of a run: ``aa/false/dice_tumor/k2``, ``aa/run_sd_external/dice_liver`` ..."""
        found: dict[str, float] = {}
        for row in self.shares.to_dict("records"):
            end = f"{_suffix(row)}/{row['metric']}/k{row['seeds']}"
            found |= {f"aa/{what}{end}": float(row[what]) for what in ("false", "patients_only")}
        for row in self.spread.to_dict("records"):
            found[f"aa/run_sd{_suffix(row)}/{row['metric']}"] = float(row["run_sd"])
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def as_json(self) -> str:
        """All of it; what is undefined is null."""
        content = {
            "study": self.name,
            "question": self.study.question,
            "cohorts": dict(self.cohorts),
            "seeds": list(range(self.seeds)),
            "folds": self.study.split.n_folds,
            "allowed": ALPHA,
            "caveat": self.caveat,
            "false_verdicts": json.loads(self.shares.to_json(orient="records", double_precision=15)),
            "runs": json.loads(self.spread.to_json(orient="records", double_precision=15)),
        }
        return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def seeds_an_arm(number: int) -> str:
    """``1 seed an arm``, ``4 seeds an arm``."""
    return f"{number} seed{'s' * (number != 1)} an arm"


def _both(row: Mapping[Hashable, Any]) -> str:
    return f"{row['false']:.1%} ({row['patients_only']:.1%})"


def _suffix(row: Mapping[Hashable, Any]) -> str:
    return "" if row["cohort"] == "test" else f"_{row['cohort']}"


def aa_test(name: str, study: StudyConfig, seeds: int, cases: Mapping[str, tuple[str, pd.DataFrame]]) -> AATest:
    """Deal the runs on every cohort; ``cases``: ``test`` (and ``external``) -> the cohort in words, and its cases."""
    shares: list[pd.DataFrame] = []
    spread: list[pd.DataFrame] = []
    for cohort, (_, table) in cases.items():
        measures = aa_measures(study, table)
        for found, tables in ((false_verdicts(table, measures), shares), (run_spread(table, measures), spread)):
            found.insert(0, "cohort", cohort)
            tables.append(found)
    words = {cohort: name for cohort, (name, _) in cases.items()}
    return AATest(name, study, seeds, words, pd.concat(shares, ignore_index=True), pd.concat(spread, ignore_index=True))


def aa_study(study: StudyConfig, seeds: int) -> StudyConfig:
    """The baseline alone, on the same patients and folds, with seeds 0, 1, ...: no factors, no claims, no search."""
    alone: dict[str, Any] = {
        "design": "ablation",
        "factors": {},
        "arms": {},
        "claims": (),
        "search": None,
        "seeds": tuple(range(seeds)),
    }
    question = f"A/A test: does the verdict tell identical arms apart? Baseline of: {study.question}"
    return study.model_copy(update={**alone, "question": question})


def aa_measures(study: StudyConfig, cases: pd.DataFrame) -> list[Measured]:
    """Main metrics, every measure, and what the study's claims are about: those that the cases have scored."""
    names = dict.fromkeys([*main_metrics(), *MEASURES, *(claim.metric for claim in study.claims)])
    return [measure for measure in map(measure_of, names) if measure.scored(cases)]


def deal(runs: Sequence[int], k: int, rng: np.random.Generator, most: int = DEALS) -> Deals:
    """Two disjoint groups of ``k`` runs in every fold: all distinct deals where they are few, else ``most`` draws.

    Deals that differ in the order of their pairs, or in which arm comes first, are one.

    Args:
        runs: how many each fold has; ``2 * k`` or more.
        k: runs (seeds) that either arm gets of each fold.
        rng: of the draws.
        most: where there are more, so many are drawn, with replacement.
    """
    distinct = math.prod(math.perm(n, 2 * k) // math.factorial(k) for n in runs) // 2
    if distinct > most:
        orders = [rng.permuted(np.tile(np.arange(n), (most, 1)), axis=1)[:, : 2 * k] for n in runs]
        return np.stack(orders, axis=1).reshape(most, len(runs), 2, k)
    folds = [[order for order in itertools.permutations(range(n), 2 * k) if _ascending(order)] for n in runs]
    folds[0] = [order for order in folds[0] if order[0] < order[k]]
    return np.array(list(itertools.product(*folds))).reshape(distinct, len(runs), 2, k)


def _ascending(order: Sequence[int]) -> bool:
    """Whether the pairs (i, k + i) stand in the order of their smaller members."""
    k = len(order) // 2
    return all(a < b for a, b in itertools.pairwise(map(min, order[:k], order[k:])))


def p_values(folds: Sequence[pd.DataFrame], deals: Deals) -> tuple[Floats, Floats]:
    """Two-sided p of every deal, (deals,): over patients and runs, and over patients alone ("these trained models").

    A patient whose score is undefined in one of two paired runs is left out of that pair, as the judge does it; so
    deals are judged together that leave out the same. NaN where nothing is left, or nothing to estimate from.

    Args:
        folds: a table a fold, a row a patient (its index) and a column a run; NaN where undefined. Patients who stand
            in several folds are the same ones, as on an external cohort.
        deals: of those columns.
    """
    k = deals.shape[-1]
    parts, patients, runs = [], [], []
    for fold, table in enumerate(folds):
        scores = table.to_numpy(float)
        differences = scores[:, deals[:, fold, 0]] - scores[:, deals[:, fold, 1]]  # (patients, deals, k)
        parts.append(differences.swapaxes(0, 1).reshape(len(deals), -1))
        patients.append(np.repeat(table.index.to_numpy(), k))
        runs.append(np.tile(np.arange(k), len(table)) + fold * k)
    values, patient, run = (np.concatenate(each, axis=-1) for each in (parts, patients, runs))
    there = ~np.isnan(values)
    pattern, known = pd.factorize(np.array([row.tobytes() for row in there], dtype=object))
    p, models_p = np.full((2, len(deals)), math.nan)
    for number in range(len(known)):
        alike = pattern == number
        keep = there[alike][0]
        found = stats.paired(values[np.ix_(alike, keep)], patient[keep], run[keep], 1 - ALPHA)
        p[alike], models_p[alike] = found.p, found.models_p
    return p, models_p


def band(draws: int) -> tuple[float, float]:
    """Where 95 % of the shares lie that a test shows which is wrong in exactly 5 % of so many independent draws."""
    below = bdtr(np.arange(draws + 1, dtype=float), draws, ALPHA)
    low, high = np.searchsorted(below, (0.025, 0.975)) / draws
    return float(low), float(high)


def false_verdicts(cases: pd.DataFrame, measures: Sequence[Measured], seed: int = 0) -> pd.DataFrame:
    """How often identical arms are told apart, of each measure and number of seeds an arm; a row each.

    Columns: ``metric``; ``seeds`` an arm, 1 to half of what the poorest fold has; ``run_pairs``; ``patients`` with a
    score; ``deals``; ``false``, the share of deals with p < 0.05, of one claim, over patients and runs;
    ``patients_only``, the same of an interval over patients alone; ``low`` and ``high``, the band around 5 %;
    ``settled``: whether the judge would give a verdict at all on so many patients and pairs of runs.

    Args:
        cases: a row a case and run of one arm: ``fold, seed, case``, and what the measures are made of.
        measures: scored in ``cases``.
        seed: of the draws.
    """
    rows = []
    scored = [(measure, _by_fold(cases, measure)) for measure in measures]
    runs = [table.shape[1] for table in scored[0][1]] if scored else []
    around = band(sum(math.comb(n, 2) for n in runs)) if min(runs, default=0) > 1 else ()
    for k in range(1, min(runs, default=0) // 2 + 1):
        deals = deal(runs, k, np.random.default_rng([seed, k]))
        for measure, folds in scored:
            patients = len({case for table in folds for case in table.dropna(how="all").index})
            pairs = k * len(folds)
            settled = pairs >= MIN_RUN_PAIRS and patients >= MIN_PATIENTS
            shares = map(_share, p_values(folds, deals))
            rows.append([measure.name, k, pairs, patients, len(deals), *shares, *around, settled])
    counts, shown = ["metric", "seeds", "run_pairs", "patients", "deals"], ["false", "patients_only", "low", "high"]
    return pd.DataFrame(rows, columns=[*counts, *shown, "settled"])


def _share(p: Floats) -> float:
    """Of deals that are called different; one without a p is not. NaN where none has one."""
    return math.nan if np.isnan(p).all() else float((p < ALPHA).mean())


def _by_fold(cases: pd.DataFrame, measure: Measured) -> list[pd.DataFrame]:
    """A table a fold: a row a patient, a column a seed that has finished there."""
    scored = cases.assign(value=measure.values(cases))
    return [part.pivot(index="case", columns="seed", values="value") for _, part in scored.groupby("fold", sort=True)]


def run_spread(cases: pd.DataFrame, measures: Sequence[Measured]) -> pd.DataFrame:
    """How the runs themselves scatter; a row a measure, in its units.

    Columns: ``metric``; ``mean`` over patients of each patient's runs; ``run_sd``, of what a run has in common over
    all its patients, within folds (NaN with one run a fold); ``runs``; ``collapsed``, how many of them are below half
    of the median run of their fold (<NA> where less is better); ``seed_N``, the mean of that seed's runs.
    """
    rows = []
    for measure in measures:
        scored = cases.assign(value=measure.values(cases)).dropna(subset=["value"])
        of_run = scored.groupby(["fold", "seed"])["value"].mean()
        low = of_run < COLLAPSED * of_run.groupby("fold").transform("median")
        about = {
            "metric": measure.name,
            "mean": scored.groupby("case")["value"].mean().mean(),
            "run_sd": math.sqrt(components(scored).run),
            "runs": len(of_run),
            "collapsed": int(low.sum()) if measure.higher_is_better else pd.NA,
        }
        by_seed = scored.groupby(["seed", "case"])["value"].mean().groupby("seed").mean()
        rows.append(about | {f"seed_{seed}": mean for seed, mean in by_seed.items()})
    return pd.DataFrame(rows).astype({"collapsed": "Int64"}) if rows else pd.DataFrame()
