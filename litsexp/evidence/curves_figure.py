"""Learning curves of the arms, by epochs and by the images that training has seen until then; SVG text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from litsexp.evidence.figures import dash_of, legend_columns, styled, to_svg
from litsexp.evidence.measures import main_metrics
from litsexp.spec.catalog import METRICS

if TYPE_CHECKING:
    import pandas as pd

CURVE_ARMS = 12  # more lines than this cannot be told apart
DRAWN_EPOCHS = 200  # a panel is not as many pixels wide
DRAWN_METRICS = 2  # of those that every epoch logs, beside the loss
IMAGES = EngFormatter(sep="")  # 1500 -> 1.5k


@styled
def curves(table: pd.DataFrame, colours: Mapping[str, str]) -> str:
    """Validation curves: mean over folds and seeds a line, smallest to largest a band; arms as in ``colours``.

    ``table``: arm, fold, seed, epoch (from 0), metric, value, and where known ``images``, seen in training until then.
    Where all arms see as many an epoch, images are a second axis; else the same curves follow over images.
    """
    shown = [arm for arm in colours if arm in set(table["arm"])][:CURVE_ARMS]
    known = table[table["arm"].isin(shown)]
    known = known.assign(epoch=known["epoch"] + 1)
    rates = _images_an_epoch(known)
    over = ["epoch", "images"] if len(rates) > 1 else ["epoch"]
    columns = legend_columns(shown)
    legend = 0.18 * math.ceil(len(shown) / columns)
    figure = Figure(figsize=(8.6, legend + 2.7 * len(over) + 0.2 * (len(rates) == 1)), layout="constrained")
    titles = _titles()
    rows = figure.subplots(len(over), len(titles), squeeze=False)
    for x, panels in zip(over, rows, strict=True):
        for axes, (metric, title) in zip(panels, titles.items(), strict=True):
            one = known[known["metric"] == metric]
            for arm in shown:
                _curve(axes, one[one["arm"] == arm], x, arm, colours[arm], list(colours).index(arm))
            _axis(axes, x, title, rates)
    handles, labels = rows[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=2.6)
    return to_svg(figure)


def _images_an_epoch(table: pd.DataFrame) -> Sequence[float]:
    """The numbers of training images an epoch that arms have; empty where a run does not tell."""
    if "images" not in table or table["images"].isna().any():
        return []
    return sorted((table["images"] / table["epoch"]).round(6).unique())


def _titles() -> dict[str, str]:
    """Logged name -> title: the first main metrics that every epoch logs, and the loss."""
    logged = [name for name in main_metrics() if METRICS[name].curve]
    drawn = {f"valid/{name}": f"{METRICS[name].words}, validation" for name in logged[:DRAWN_METRICS]}
    return {**drawn, "valid/loss": "loss, validation"}


def _axis(axes: Axes, x: str, title: str, rates: Sequence[float]) -> None:
    """Labels; epochs and images on one panel where one tells the other."""
    axes.set_title(title)
    axes.grid(axis="y")
    if x == "images":
        axes.set_xlabel("images seen in training")
        axes.xaxis.set_major_formatter(IMAGES)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        return
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if len(rates) == 1:
        rate = rates[0]
        images = axes.secondary_xaxis(-0.24, functions=(partial(np.multiply, rate), partial(np.multiply, 1 / rate)))
        images.set_xlabel("images seen in training")
        images.xaxis.set_major_formatter(IMAGES)
        images.xaxis.set_major_locator(MaxNLocator(nbins=5))
        images.spines["bottom"].set_visible(False)


def _curve(axes: Axes, table: pd.DataFrame, x: str, arm: str, colour: str, index: int) -> None:
    values = table.dropna(subset=["value"]).sort_values([x, "fold", "seed"]).groupby(x)["value"]
    mean, low, high = (_thin(line) for line in (values.mean(), values.min(), values.max()))
    axes.fill_between(mean.index, low, high, color=colour, alpha=0.13, linewidth=0)
    marker = "o" if len(mean) == 1 else None
    axes.plot(mean, color=colour, linestyle=dash_of(index), linewidth=1.7, label=arm, marker=marker)


def _thin(line: pd.Series[float]) -> pd.Series[float]:
    """At most ``DRAWN_EPOCHS`` of its points, evenly apart, the first and the last among them."""
    if len(line) <= DRAWN_EPOCHS:
        return line
    return line.iloc[np.linspace(0, len(line) - 1, DRAWN_EPOCHS).round().astype(int)]


def thinned(table: pd.DataFrame) -> str:
    """What has to be said of curves of which not every epoch is drawn; else empty."""
    epochs = table["epoch"].nunique() if len(table) else 0
    return f"Drawn are {DRAWN_EPOCHS} of {epochs:,} epochs." if epochs > DRAWN_EPOCHS else ""
