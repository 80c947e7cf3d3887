"""A run epoch by epoch, two small tables each: its learning curves, and its validation patients after each epoch.

The latter are what claims about convergence are made of.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from litsexp.spec.catalog import METRICS
from litsexp.training.course import Epoch
from litsexp.training.loop import Trained

EPOCHS, CURVES = "epochs.parquet", "curves.parquet"  # among a run's artifacts


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


def write_curves(trained: Trained, batch_size: int, folder: Path) -> None:
    """``curve_table`` of a run that has just been trained; what is undefined in an epoch has no row."""
    points = [
        (epoch, name, metrics[name])
        for name in curve_names()
        for epoch, metrics in enumerate(trained.history)
        if math.isfinite(metrics.get(name, math.nan))
    ]
    images = images_an_epoch(trained.facts, len(trained.history), batch_size)
    curve_table(points, images).to_parquet(folder / CURVES, index=False)


def curve_names() -> list[str]:
    """What a learning curve is drawn of, as each epoch logs it."""
    return ["train/loss", "valid/loss", *(f"valid/{name}" for name, metric in METRICS.items() if metric.curve)]


def curve_table(points: Iterable[tuple[int, str, float]], images: float) -> pd.DataFrame:
    """``epoch`` (from 0), ``metric``, ``value``, and ``images`` seen in training by then, so many an epoch."""
    table = pd.DataFrame(list(points), columns=["epoch", "metric", "value"])
    return table.assign(images=(table["epoch"] + 1) * images)
