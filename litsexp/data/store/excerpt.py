"""A few slices of a store as a store of its own: what a rehearsal trains on."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from litsexp.data.store.slices import COLUMNS, PIXELS, Store
from litsexp.spec.keys import digest


def write_excerpt(store: Store, cases: Sequence[NDArray[np.int64]], directory: Path) -> Store:
    """Write these rows of the store to a new folder and open it; the k-th array becomes case k.

    An array holds rows of one case, ascending; a row may stand in several of them.
    """
    rows = np.concatenate(cases)
    numbers = np.repeat(np.arange(len(cases)), [len(part) for part in cases])
    index = store.index.iloc[rows].assign(case=numbers)
    directory.mkdir(parents=True)
    pd.DataFrame({name: index[name].to_numpy(dtype) for name, dtype in COLUMNS.items()}).to_parquet(
        directory / "slices.parquet", index=False
    )
    for name in PIXELS:
        np.save(directory / f"{name}.npy", getattr(store, name)[rows])
    fingerprint = digest({"excerpt of": store.fingerprint, "rows": rows.tolist(), "cases": numbers.tolist()})
    about = {**store.about(), "slices": len(rows), "fingerprint": fingerprint}
    (directory / "store.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
    return Store.open(directory)
