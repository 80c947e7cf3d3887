"""What an arm's runs find on whole volumes at native resolution: Dice beside the stored slices', lesions by kind.

Every number is a mean over patients, each patient's runs averaged first, and its interval covers new patients and new
runs (``stats.paired``). A patient without such lesions has no recall of them, and is left out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litsexp.evidence import stats
from litsexp.evidence.measures import measure_of
from litsexp.spec.claim import CONTRAST_BINS, SIZE_BINS

if TYPE_CHECKING:
    import pandas as pd

CELL = ["arm", "fold", "seed", "case"]
COMPARED = ("dice_tumor", "dice_liver")  # on whole volumes beside stored slices


@dataclass(frozen=True)
class Finding:
    """What is told of each arm: a share of lesions, or a number a case."""

    name: str  # in written tables
    title: str
    values: Callable[[pd.DataFrame], pd.Series[float]]  # of the table of cases; NaN where undefined
    lesions: str = ""  # the column that says how many there are to find; empty: it is no share of lesions


def _recall(kind: str, title: str) -> Finding:
    there, found = f"lesions_true{kind}", f"lesions_detected{kind}"
    return Finding(f"recall{kind}", title, lambda cases: cases[found] / cases[there], there)


def _by_kind() -> list[Finding]:
    """Claim 8 of the paper: small or low-contrast tumors stay hard."""
    sizes = zip(SIZE_BINS, ("below 10 mm", "10 to 20 mm", "above 20 mm"), strict=True)
    contrasts = zip(CONTRAST_BINS, ("below 20 HU", "20 to 40 HU", "above 40 HU"), strict=True)
    return [_recall(f"_{kind}", title) for kind, title in [*sizes, *contrasts]]


FINDINGS = [
    _recall("", "found (IoU > 0.5)"),
    Finding(
        "touched", "touched (IoU > 0)", lambda cases: cases["lesions_touched"] / cases["lesions_true"], "lesions_true"
    ),
    *_by_kind(),
    Finding("false", "false lesions a case", lambda cases: cases["lesions_false"]),
    Finding("false_in_tumor_free", "in a tumor-free case", lambda c: c["lesions_false"].where(c["lesions_true"] == 0)),
]


def by_kind(cases: pd.DataFrame) -> dict[str, list[Finding]]:
    """Title -> the recalls by size, and by contrast where that was measured, if there is any such lesion."""
    groups, found = {"by diameter": SIZE_BINS, "by contrast with the liver": CONTRAST_BINS}, {}
    for title, kinds in groups.items():
        findings = [finding for finding in FINDINGS if finding.name.removeprefix("recall_") in kinds]
        counted = [finding.lesions for finding in findings]
        if set(counted) <= set(cases.columns) and cases[counted].to_numpy().sum() > 0:
            found[title] = findings
    return found


def lesion_findings(
    cases: pd.DataFrame, order: Sequence[str], findings: Sequence[Finding] = tuple(FINDINGS)
) -> pd.DataFrame:
    """A row an arm and finding: ``arm, finding, mean, low, high, patients, lesions`` (to find; NaN of no share).

    ``cases`` are of whole volumes; of stored slices where ``findings`` are those of ``by_kind``.
    """
    import pandas as pd

    rows = []
    for arm in order:
        one = cases[cases["arm"] == arm]
        for finding in findings if len(one) else ():
            lesions = one.drop_duplicates("case")[finding.lesions].sum() if finding.lesions else float("nan")
            rows.append([arm, finding.name, *_mean(one, finding.values(one)), lesions])
    return pd.DataFrame(rows, columns=["arm", "finding", "mean", "low", "high", "patients", "lesions"])


def beside_stored(cases: pd.DataFrame, native: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """A row an arm and metric: its mean on stored slices, on whole volumes, and the paired difference.

    Columns ``arm, metric, stored, native, low, high, patients, gap, gap_low, gap_high``; ``low`` and ``high`` bound
    ``native``, and ``gap`` is native minus stored, of the same patients under the same runs.
    """
    import pandas as pd

    rows = []
    for metric in COMPARED:
        measure = measure_of(metric)
        stored, whole = (table[CELL].assign(value=measure.values(table)) for table in (cases, native))
        both = stored.merge(whole, on=CELL, suffixes=("_stored", "_native"))
        for arm in order:
            one = both[both["arm"] == arm]
            if not len(one):
                continue
            mean, low, high, patients = _mean(one, one["value_native"])
            gap = _mean(one, one["value_native"] - one["value_stored"])[:3]
            rows.append([arm, metric, _mean(one, one["value_stored"])[0], mean, low, high, patients, *gap])
    names = ["stored", "native", "low", "high", "patients", "gap", "gap_low", "gap_high"]
    return pd.DataFrame(rows, columns=["arm", "metric", *names])


def _mean(table: pd.DataFrame, values: pd.Series[float]) -> tuple[float, float, float, int]:
    """Mean over patients, its interval over new patients and new runs, and how many patients have one."""
    known = table.assign(value=values.to_numpy()).dropna(subset="value")
    runs = known.groupby(["fold", "seed"], sort=True).ngroup()
    found = stats.paired(known["value"].to_numpy(float), known["case"], runs)
    return float(found.effect), float(found.low), float(found.high), int(known["case"].nunique())
