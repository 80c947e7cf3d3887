"""Labels as files hold them, in whatever number type: 0 background, 1 liver, 2 tumor, and nothing else."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litsexp.spec.errors import LitsexpError

LABELS = (0, 1, 2)
_MOST_NAMED = 3


def as_labels(values: NDArray[Any], unknown: Counter[float]) -> NDArray[np.uint8]:
    """Values as labels, of the same shape; what is none is counted, and is then anything in the result."""
    with np.errstate(invalid="ignore"):
        labels = values.astype(np.uint8, copy=False)
    low, high = (values.min() if values.dtype.kind != "u" else 0), values.max()
    fractions = values.dtype.kind == "f" and not np.array_equal(labels, values)
    if fractions or not (low >= LABELS[0] and high <= LABELS[-1]):  # false for NaN
        found, counts = np.unique(values[~np.isin(values, LABELS)], return_counts=True)
        unknown.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    return labels


def unknown_labels(path: Path, unknown: Counter[float], instead: str) -> LitsexpError:
    """What is said of a file with other labels; ``instead``: what to do where they cannot be mapped."""
    named = ", ".join(f"{value:g} ({count} voxels)" for value, count in unknown.most_common(_MOST_NAMED))
    others = f" and {len(unknown) - _MOST_NAMED} other values" if len(unknown) > _MOST_NAMED else ""
    expected = "expected only 0 background, 1 liver, 2 tumor; map the labels to these"
    return LitsexpError(f"{path}: found label {named}{others}; {expected}{f', or {instead}' * bool(instead)}")
