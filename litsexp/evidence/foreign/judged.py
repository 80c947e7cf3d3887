"""The judge for anybody's results, and what a table as it is lets it say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from litsexp.evidence.foreign.files import read_table
from litsexp.evidence.foreign.tidy import RUN, measures_of, tidy, unexplained
from litsexp.evidence.judge import MIN_RUN_PAIRS, Verdict, judge_claims
from litsexp.evidence.kinds import CELL_CASE
from litsexp.evidence.measures import Measured
from litsexp.evidence.words import patients, run_pairs
from litsexp.spec.reading import as_claims, load_claims
from litsexp.spec.table_claims import TableClaims

Claims = TableClaims | Path | str | Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Judged:
    """A table of results with its verdicts: all that its report and its tables show."""

    name: str  # of the table, or of the folder
    cases: pd.DataFrame  # arm, fold, seed, case, a column a score
    measures: Mapping[str, Measured]  # what the claims are about, in their order
    verdicts: Sequence[Verdict]
    notes: Sequence[str]  # what cannot be said from this table, what was left out, what was assumed
    exploratory: bool = False  # nobody claimed anything: every comparison that could be made
    kind: str = ""  # of the patients: phantom, external

    @property
    def phantom(self) -> bool:
        """Whether its patients are synthetic, which has to be said wherever a result is shown."""
        return "phantom" in self.kind

    @property
    def cohort(self) -> str:
        """``24 patients of results.csv``."""
        return f"{patients(self.cases['case'].nunique(), self.kind)} of {self.name}"

    @property
    def arm_names(self) -> list[str]:
        """The arms that claims name, in their order."""
        return list(dict.fromkeys(name for v in self.verdicts for pair in v.arms for name in reversed(pair)))


def judge_table(table: pd.DataFrame | Path | str, claims: Claims) -> list[Verdict]:
    """Judge claims on somebody's table of results: the same judge as a study's, one verdict a claim, in their order.

    ``litsexp.judge_table("results.csv", [{"id": "da5", "says": "DA5 helps.", "metric": "dice_tumor", "better": "DA5",
    "than": "plain", "margin": 0.02}])``

    Args:
        table: a file (CSV, parquet) or a data frame, a row a case and run: ``arm``, ``case``, and a column a score
            (NaN or empty = undefined); ``fold`` and ``seed`` where there were several.
        claims: a claims file (YAML), its content, or a list of claims: ``id, says, metric, better, than, margin``,
            where ``better`` and ``than`` are arms and ``margin`` is in the metric's units.

    Raises:
        LitsexpError: a mistake in either, in one line.
    """
    frame = table if isinstance(table, pd.DataFrame) else read_table(Path(table))
    name = "table" if isinstance(table, pd.DataFrame) else str(table)
    return list(judged(frame, _claims(claims), name).verdicts)


def judged(
    table: pd.DataFrame, claims: TableClaims, name: str, notes: Sequence[str] = (), exploratory: bool = False
) -> Judged:
    """Verdicts with what there is to know about the table; ``notes`` come first among it."""
    cases = tidy(table, claims, name)
    measures = measures_of(cases, claims, name)
    compared = [(claim, ((claim.better, claim.than),)) for claim in claims.claims]
    verdicts = judge_claims(compared, cases, None, claims.kind, measures)
    columns = {str(column).strip() for column in table.columns}
    said = [*notes, *_assumed(claims, measures), *_limits(columns, verdicts), *_unpaired(cases, verdicts)]
    return Judged(Path(name).name, cases, measures, verdicts, said, exploratory, claims.kind)


def _claims(claims: Claims) -> TableClaims:
    if isinstance(claims, TableClaims):
        return claims
    if isinstance(claims, Path | str):
        return load_claims(claims)
    return as_claims(claims if isinstance(claims, Mapping) else {"claims": list(claims)})


def _assumed(claims: TableClaims, measures: Mapping[str, Measured]) -> list[str]:
    unknown = ", ".join(measures[metric].name for metric in unexplained(claims))
    said = f"Higher is taken as better in {unknown}: the claims file has no row in metrics that says otherwise."
    return [said] if unknown else []


def _limits(columns: set[str], verdicts: Sequence[Verdict]) -> list[str]:
    """What pairs of runs like these cannot tell, whatever the numbers are."""
    said = [f"No column {column}: every row counts as {column} 0." for column in RUN if column not in columns]
    pairs = [v.pairs.drop_duplicates(["fold", "seed"]) for v in verdicts if v.n_patients]
    most = max((len(runs) for runs in pairs), default=0)
    if most == 1:
        lone = "One run an arm: another run of the same training may turn the difference around."
        said.append(f"{lone} What can be told is about these trained models alone; it stands under its own name.")
    elif most and all(runs["seed"].nunique() == 1 for runs in pairs):
        mixed = "One seed: training noise cannot be told from fold differences."
        said.append(f"{mixed} A pair of runs is a fold: what a run's luck did and what its training set did are mixed.")
    if 1 < most < MIN_RUN_PAIRS:
        few = f"{run_pairs(most)}: a claim about training needs {MIN_RUN_PAIRS}."
        said.append(f"{few} What can be told is about these trained models; it stands under its own name.")
    return said


def _unpaired(cases: pd.DataFrame, verdicts: Sequence[Verdict]) -> list[str]:
    """Rows of one arm that have no partner in the other: no verdict sees them."""
    said: dict[str, None] = {}
    for verdict in verdicts:
        better, than = (cases[cases["arm"] == name].set_index(CELL_CASE).index for name in verdict.arms[0])
        for arm, other, alone in (
            (*verdict.arms[0], better.difference(than)),
            (*verdict.arms[0][::-1], than.difference(better)),
        ):
            if len(alone):
                lack = f"{len(alone)} row{'s' * (len(alone) != 1)} of {arm} without a partner in {other}"
                said[f"Left out: {lack} (same fold, seed and case)."] = None
    return list(said)
