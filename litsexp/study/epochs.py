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
    table = pd.DataFrame(rows)
    if len(table):
        table["images"] = (table["epoch"] + 1) * images_an_epoch(trained.facts, len(trained.history), batch_size)
    table.to_parquet(folder / EPOCHS, index=False)


def images_an_epoch(facts: Mapping[str, str], epochs: int, batch_size: int) -> int:
    """Training images that each of a run's epochs saw; ``facts`` are those that the run logged as tags."""
    return int(facts["steps"]) // epochs * min(batch_size, int(facts["training_slices"]))
