"""What a claim can be about: a number a case and run, from the table of cases.

Each function takes that table (a row a case and run) and gives a Series of its index, NaN where undefined. **Silence
gains nothing**: a measure of what an arm predicted is undefined only where there is nothing to find and nothing was
predicted. Where there is something to find and the arm is silent it is 0; were it left out instead, as TP / (TP + FP)
suggests, an arm that is silent on hard patients would be averaged over its easy ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

from litsexp.spec.catalog import MEASURES, METRICS, Contrast, Measure, Metric
from litsexp.spec.claim import SHARE, contrast_of
from litsexp.spec.errors import LitsexpError, one_line
from litsexp.spec.tables import Reference, argument_of, resolve

if TYPE_CHECKING:
    import pandas as pd

EXPECTED = "expected a Series of finite numbers with the table's index, NaN where undefined"


def precision_liver(cases: pd.DataFrame) -> pd.Series[float]:
    """TP / (TP + FP) of the liver; 0 where a liver is there and none was predicted, NaN where neither is."""
    return _precision(cases, "liver")


def precision_tumor(cases: pd.DataFrame) -> pd.Series[float]:
    """TP / (TP + FP) of the tumor: 0 where an arm is silent about one, and where it paints one that is not there.

    NaN where there is none and none was predicted.
    """
    return _precision(cases, "tumor")


def lesion_recall(cases: pd.DataFrame) -> pd.Series[float]:
    """The part of the true lesions that was detected; NaN without any."""
    return cases["lesions_detected"] / cases["lesions_true"]


def lesion_precision(cases: pd.DataFrame) -> pd.Series[float]:
    """The part of the predicted lesions that belongs to a detected object.

    0 where lesions are there and none was predicted; NaN where there is none and none was predicted.
    """
    predicted = cases["lesions_predicted"]
    return _right(predicted - cases["lesions_false"], predicted, cases["lesions_true"])


def lesion_f1(cases: pd.DataFrame) -> pd.Series[float]:
    """Harmonic mean of lesion precision and recall, 0 where either is 0; NaN where no lesion is there or predicted."""
    precision, recall = lesion_precision(cases), lesion_recall(cases)
    return (2 * precision * recall / (precision + recall)).mask((precision == 0) | (recall == 0), 0.0)


def lesions_false(cases: pd.DataFrame) -> pd.Series[float]:
    """Predicted lesions that belong to no detected object, on the stored slices of a case."""
    return cases["lesions_false"]


def burden_error(cases: pd.DataFrame) -> pd.Series[float]:
    """Distance of the predicted from the true tumor burden (tumor / liver voxels); NaN where there is no liver.

    An arm that paints no liver paints no tumor: its burden is 0, so that it is not left out where it fails.
    """
    return (cases["burden_predicted"].fillna(0.0) - cases["burden_true"]).abs()


def _precision(cases: pd.DataFrame, structure: str) -> pd.Series[float]:
    tp, fp, fn = (cases[f"{kind}_{structure}"] for kind in ("tp", "fp", "fn"))
    return _right(tp, tp + fp, tp + fn)


def _right(right: pd.Series[float], predicted: pd.Series[float], there: pd.Series[float]) -> pd.Series[float]:
    """The part of what was predicted that is right; silence about something that is there is 0."""
    return (right / predicted).mask((predicted == 0) & (there > 0), 0.0)


@dataclass(frozen=True)
class Measured:
    """A measure, or a metric as one: what it is called, what is better, and its values."""

    name: str
    words: str
    unit: str  # "a case"; empty for a share
    higher_is_better: bool
    undefined: str  # why it is NaN where it is
    function: Reference  # (DataFrame, a row a case and run) -> Series of the same index

    @property
    def sign(self) -> int:
        """1, or -1 where less is better: what makes a difference positive where the first arm does better."""
        return 1 if self.higher_is_better else -1

    @property
    def per(self) -> str:
        """The unit as it follows a number: `` a case``."""
        return f" {self.unit}" if self.unit else ""

    @property
    def title(self) -> str:
        """``tumor Dice``, ``false lesions a case (less is better)``, ``time to … in epochs (less is better)``."""
        per = f" in {self.unit}" if contrast_of(self.name) and self.unit else self.per
        return f"{self.words}{per}{'' if self.higher_is_better else ' (less is better)'}"

    def scored(self, cases: pd.DataFrame) -> bool:
        """Whether the table has the columns that it is made of: an older run's, or another plugin's, may lack them."""
        return self._computed(cases) is not None

    def values(self, cases: pd.DataFrame) -> pd.Series[float]:
        """A number a row; NaN where undefined, and everywhere where the table does not have it scored."""
        import pandas as pd

        found = self._computed(cases)
        return pd.Series(math.nan, index=cases.index, dtype=float) if found is None else found

    def _computed(self, cases: pd.DataFrame) -> pd.Series[float] | None:
        """The checked values; None where a column that they are made of is not there."""
        import pandas as pd

        try:
            found = resolve(self.function)(cases)
        except KeyError:  # no such column
            return None
        except Exception as error:  # whatever somebody's function does
            raise LitsexpError(f"measure {self.name!r}: its function failed ({one_line(error)}); {EXPECTED}") from error
        numbers = isinstance(found, pd.Series) and pd.api.types.is_numeric_dtype(found)
        if not (numbers and found.index.equals(cases.index) and not found.abs().eq(math.inf).any()):
            raise LitsexpError(f"measure {self.name!r}: its function gave a {type(found).__name__}; {EXPECTED}")
        values: pd.Series[float] = found.astype(float)
        return values


def measure_of(name: str | Measured, share: float = SHARE) -> Measured:
    """The measure of this name, or else the metric, or the contrast; LitsexpError where there is none.

    A measure is itself. ``share`` is that of a claim about a contrast that has one.
    """
    if isinstance(name, Measured):
        return name
    if (contrast := contrast_of(name)) is not None:
        return _measure_of_contrast(name, contrast, share)
    row: Measure | Metric = MEASURES[name] if name in MEASURES else METRICS[name]
    function = row.values if isinstance(row, Measure) else itemgetter(name)  # a metric's values are its column
    return Measured(name, row.words, row.unit, row.higher_is_better, row.undefined, function)


def _measure_of_contrast(name: str, row: Contrast, share: float) -> Measured:
    """What a contrast is called; it is no number of a case, so no table of cases has it scored."""
    base = measure_of(argument_of(name))
    told = {"metric": base.words, "undefined": base.undefined, "share": f"{100 * share:g} %"}
    called, undefined = row.called.format(**told), row.undefined.format(**told)
    better = base.higher_is_better if row.as_metric else row.higher_is_better
    return Measured(name, called, row.unit or base.unit, better, undefined, itemgetter(name))


def main_metrics() -> list[str]:
    """The report's main columns, in their order."""
    return sorted((name for name in METRICS if METRICS[name].shown), key=lambda name: METRICS[name].shown)
