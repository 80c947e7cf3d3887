"""From cells to a table of cases: arms, runs, patients and scores to trust, or one line that says why not."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from operator import itemgetter

import pandas as pd

from litsexp.evidence.measures import Measured, measure_of
from litsexp.spec.catalog import MEASURES, METRICS
from litsexp.spec.errors import LitsexpError
from litsexp.spec.table_claims import SCORED, Column, TableClaim, TableClaims
from litsexp.spec.tables import nearest, one_of

NEEDED = ("arm", "case")
RUN = ("fold", "seed")  # 0 everywhere where the table has no such column
LABELS = (*NEEDED, *RUN)
WHOLE = re.compile(r"(-?(?:0|[1-9]\d{0,17}))(?:\.0+)?")
MISSING = ("", "nan", "na", "n/a", "none", "null", "-")  # cells without a number


def tidy(table: pd.DataFrame, claims: TableClaims, name: str) -> pd.DataFrame:
    """``arm, fold, seed, case`` and every column that holds numbers, a row a case and run.

    Arms are text. Fold, seed and case are whole numbers where all of them are, else text. Of the other columns those
    that claims are about have to be numbers (NaN = undefined); one that is not stays as it is.

    Args:
        table: as read, or made in a notebook.
        claims: which columns, and which arms are several names of the table.
        name: of the table, in errors.

    Raises:
        LitsexpError: a column that is missing, a label that is empty, a cell that is no number, a row that is there
            twice, an arm that no row has.
    """
    if table.empty:
        raise LitsexpError(f"{name}: found no rows; expected a row a case and run")
    cells = table.rename(columns=lambda column: str(column).strip()).reset_index(drop=True)
    if not cells.columns.is_unique:
        raise LitsexpError(f"{name}: found two columns of one name; expected names of their own; rename or remove one")
    for column in NEEDED:
        _refuse_missing(column, cells, name)
    labels = {column: _labels(cells, column, name) for column in LABELS if column in cells}
    labels |= {column: pd.Series(0, index=cells.index) for column in RUN if column not in cells}
    asked = {claim.metric for claim in claims.claims}
    others = {c: _numbers(cells[c], name, strict=c in asked) for c in cells.columns if c not in LABELS}
    cases = pooled(pd.DataFrame({column: labels[column] for column in ("arm", *RUN, "case")} | others), claims, name)
    _refuse_twins(cases, name)
    for claim in claims.claims:
        _refuse_unknown_arms(claim, cases, name)
    return cases


def measures_of(cases: pd.DataFrame, claims: TableClaims, name: str) -> dict[str, Measured]:
    """What each claim's metric means: by the claims file, else by litsexp's own tables, else its name says it all."""
    found = {}
    for metric in dict.fromkeys(claim.metric for claim in claims.claims):
        column = claims.metrics.get(metric) or SCORED.get(metric)
        known = measure_of(metric) if metric in MEASURES or metric in METRICS else None
        if metric not in cases and not (known and known.scored(cases)):
            scores = [str(c) for c in cases.select_dtypes("number") if c not in LABELS]
            expected = f"expected {one_of(scores)}{nearest(metric, scores)}" if scores else "expected one of scores"
            raise LitsexpError(f"{name}: no column {metric!r}, which a claim is about; {expected}")
        if known and column is None:
            its_own = itemgetter(metric) if metric in cases else known.function
            found[metric] = Measured(metric, known.words, known.unit, known.higher_is_better, known.undefined, its_own)
        else:
            column = column or Column()
            words = column.words or metric
            direction = column.higher_is_better
            found[metric] = Measured(metric, words, column.unit, direction, column.undefined, itemgetter(metric))
    return found


def unexplained(claims: TableClaims) -> list[str]:
    """Claimed columns that neither the claims file nor litsexp knows: higher is taken as better."""
    metrics = dict.fromkeys(claim.metric for claim in claims.claims)
    return [m for m in metrics if not any(m in known for known in (claims.metrics, METRICS, MEASURES, SCORED))]


def pooled(cases: pd.DataFrame, claims: TableClaims, name: str) -> pd.DataFrame:
    """Several names of the table as one arm, each of them one seed; LitsexpError where a name is not there."""
    names = sorted(cases["arm"].unique())
    arm, seed = cases["arm"].copy(), cases["seed"].copy()
    for pool, members in claims.arms.items():
        if pool in names and pool not in members:
            found = f"{pool!r} is an arm of the table too, and not among its names"
            raise LitsexpError(f"{name}: arms.{pool}: {found}; expected a name of its own; list it there, or rename")
        for number, member in enumerate(members):
            rows = cases["arm"] == member
            if not rows.any():
                raise LitsexpError(f"{name}: arms.{pool}: found {member!r}; {_expected_arm(member, names)}")
            own = cases.loc[rows, "seed"].nunique()
            if len(members) > 1 and own > 1:
                found = f"{member!r} has {own} seeds of its own"
                raise LitsexpError(f"{name}: arms.{pool}: {found}; expected one, where several names make one arm")
            arm[rows] = pool
            if len(members) > 1:
                seed = seed.mask(rows, number)
    return cases.assign(arm=arm, seed=seed)


def _refuse_missing(column: str, cells: pd.DataFrame, name: str) -> None:
    if column not in cells:
        found = ", ".join(cells.columns)
        hint = nearest(column, [c.lower() for c in cells.columns]) and "; column names are lower-case"
        raise LitsexpError(f"{name}: no column {column!r}; found {found}; expected arm, case and scores{hint}")


def _labels(cells: pd.DataFrame, column: str, name: str) -> pd.Series:
    """The column as whole numbers where all of it are, else as text."""
    missing = cells[column].isna() | (cells[column].astype(str).str.strip() == "")
    if missing.any():
        raise LitsexpError(f"{name}: {column}: found nothing in {_row(missing)}; expected a value in every row")
    text = cells[column].astype(str).str.strip()
    whole = text.str.fullmatch(WHOLE) if column != "arm" else text.eq("")
    return text.str.replace(WHOLE, r"\1", regex=True).astype("int64") if whole.all() else text


def _numbers(cells: pd.Series, name: str, strict: bool) -> pd.Series:
    """The column as numbers, NaN where it is empty; as it is where it holds something else and ``strict`` is false."""
    if pd.api.types.is_bool_dtype(cells):
        return cells.astype(float)
    text = cells.astype(str).str.strip().str.lower()
    empty = cells.isna() | text.isin(MISSING)
    numbers = pd.to_numeric(cells.mask(empty), errors="coerce").astype(float)
    for wrong, expected in (
        (numbers.isna() & ~empty, "a number, or nothing where it is undefined"),
        (numbers.abs() == math.inf, "a finite number; give what has none a value by a rule, or leave it empty"),
    ):
        if wrong.any():
            if not strict:
                return cells
            found = f"{str(cells[wrong].iloc[0])!r} in {_row(wrong)}"
            raise LitsexpError(f"{name}: {cells.name}: found {found}; expected {expected}")
    return numbers


def _refuse_twins(cases: pd.DataFrame, name: str) -> None:
    """One row a case and run: two would count a patient twice."""
    twins = cases[cases.duplicated(list(LABELS), keep=False)]
    if twins.empty:
        return
    first = twins.iloc[0]
    same = twins.index[(twins[list(LABELS)] == first[list(LABELS)]).all(axis="columns")]
    at = f"arm {first['arm']!r}, fold {first['fold']}, seed {first['seed']}"
    found = f"case {first['case']} stands {len(same)} times in {at} (rows {', '.join(str(i + 1) for i in same[:3])})"
    raise LitsexpError(f"{name}: {found}; expected one row a case and run; tell runs apart by a column fold or seed")


def _refuse_unknown_arms(claim: TableClaim, cases: pd.DataFrame, name: str) -> None:
    arms = sorted(cases["arm"].unique())
    for field, arm in (("better", claim.better), ("than", claim.than)):
        if arm not in arms:
            raise LitsexpError(f"{name}: claim {claim.id!r}: {field}: found {arm!r}; {_expected_arm(arm, arms)}")


def _expected_arm(arm: str, arms: Sequence[str]) -> str:
    return f"expected {one_of(arms)}{nearest(arm, arms)}"


def _row(wrong: pd.Series) -> str:
    """``row 3``, and how many more; rows are counted from 1, below the header."""
    more = int(wrong.sum()) - 1
    return f"row {int(wrong.to_numpy().argmax()) + 1}" + (f" and {more} more" if more else "")
