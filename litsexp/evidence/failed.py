"""Runs that failed to learn, found by rule. They are shown, tagged and counted; none is ever dropped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from litsexp.evidence.measures import Measured, measure_of

if TYPE_CHECKING:
    import pandas as pd

Run = tuple[str, int, int]  # arm, fold, seed

FAILING = 0.1  # share below which a model does not segment
PART = 0.5  # of what is usual for its arm and fold: who stays below has missed what the others learned
FEWEST = 3  # runs that an arm's median is taken of: of two it lies between them
EVERYWHERE = ("dice_tumor", "dice_liver")  # what every study's runs are held against, beside its claims' measures
RUN = ["arm", "fold", "seed"]
COLUMNS = [*RUN, "metric", "score", "typical"]
RULE = (
    f"A run failed to learn where its mean over its test patients lies below {FAILING:g}, or below half of what is "
    "usual for its arm and fold, in tumor Dice, liver Dice or a share that a claim is about. Usual is the median of "
    f"its arm's runs ({FEWEST} or more), higher or lower as other arms' runs lie in that fold: a fold of hard patients "
    "is no failure. Such runs count like any other."
)


def failed_to_learn(cases: pd.DataFrame, metrics: Sequence[str] = EVERYWHERE) -> pd.DataFrame:
    """The runs that failed to learn: ``arm, fold, seed, metric, score, typical``, a row a run and measure it failed in.

    ``score`` is the run's mean over its test patients, undefined ones left out. ``typical`` is the median of its arm's
    scores times the median, over the other arms' runs in its fold, of what each is of its own arm's median: folds
    differ in how hard their patients are. A run failed where its score lies below 0.1, or below half of what is
    typical; the second needs three runs of the arm. An undefined score is no failure.

    Args:
        cases: a row a case and run, as ``judge`` takes them; of the study's own test.
        metrics: what to look at. A measure that is no share, where less is better, or that was not scored says nothing
            about learning and is passed over.
    """
    import pandas as pd

    found = []
    for measure in map(measure_of, dict.fromkeys(metrics)):
        if not len(cases) or not _tells(measure) or not measure.scored(cases):
            continue
        scores = cases.assign(score=measure.values(cases)).groupby(RUN, sort=True)["score"].mean().dropna()
        by_arm = scores.groupby("arm")
        typical, runs = by_arm.transform("median"), by_arm.transform("size")
        typical = typical * _difficulty(scores, scores / typical.where(typical >= FAILING))
        failed = (scores < FAILING) | ((scores < PART * typical) & (runs >= FEWEST))
        table = pd.DataFrame({"metric": measure.name, "score": scores, "typical": typical})
        found.append(table[failed].reset_index())
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=COLUMNS)


def _difficulty(scores: pd.Series[float], relative: pd.Series[float]) -> list[float]:
    """Of each run: the median of what the other arms' runs in its fold are of their medians; 1 where there is none."""
    folds = {fold: part.dropna() for fold, part in relative.groupby("fold")}
    known: dict[tuple[str, int], float] = {}
    for arm, fold, _ in scores.index:
        if (arm, fold) not in known:
            others = folds[fold][folds[fold].index.get_level_values("arm") != arm]
            known[arm, fold] = float(others.median()) if len(others) else 1.0
    return [known[arm, fold] for arm, fold, _ in scores.index]


def reasons(failed: pd.DataFrame) -> dict[Run, str]:
    """Run -> why it counts as failed: ``tumor Dice 0.17, below half of its arm's usual 0.44``."""
    said: dict[Run, list[str]] = {}
    for arm, fold, seed, metric, score, typical in failed[COLUMNS].itertuples(index=False, name=None):
        said.setdefault((arm, fold, seed), []).append(_reason(measure_of(metric), score, typical))
    return {run: "; ".join(told) for run, told in said.items()}


def _tells(measure: Measured) -> bool:
    return measure.higher_is_better and not measure.unit


def _reason(measure: Measured, score: float, typical: float) -> str:
    below = f"{FAILING:g}" if score < FAILING else f"half of its arm's usual {typical:.2f}"
    shown = math.floor(100 * score) / 100  # 0.0996 is below 0.1 and should look it
    return f"{measure.words} {shown:.2f}, below {below}"
