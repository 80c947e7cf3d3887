"""Validation patients after each epoch: what claims about convergence are made of, one small table a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from litsexp.training.course import Epoch
from litsexp.training.loop import Trained

EPOCHS = "epochs.parquet"  # among a run's artifacts


def epoch_rows(epoch: Epoch) -> list[dict[str, float]]:
    """The epoch's rows of the table."""
    return [{"epoch": epoch.number, **case} for case in epoch.cases]


def write_epochs(rows: Sequence[Mapping[str, float]], trained: Trained, batch_size: int, folder: Path) -> None:
    """``epoch`` (from 0), ``case``, a column a metric, and ``images``: seen in training until then."""
    steps, slices = int(trained.facts["steps"]) // len(trained.history), int(trained.facts["training_slices"])
    table = pd.DataFrame(rows)
    if len(table):
        table["images"] = (table["epoch"] + 1) * steps * min(batch_size, slices)
    table.to_parquet(folder / EPOCHS, index=False)
