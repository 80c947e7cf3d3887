"""What a search tried, as figures: parallel coordinates, and which settings the scores went with; SVG text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from litsexp.evidence.figures import ARM_COLOURS, HAIR, INK, MUTED, styled, to_svg
from litsexp.spec.design import format_level

SCORE = "valid/score"
BEST_DRAWN = 5  # trials in colour; the others are grey
LOGARITHMIC = {"lr"}
PAPER: Any = {"facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.75, "pad": 1}  # below a label: lines pass there
LABEL: Any = {"textcoords": "offset points", "bbox": PAPER, "zorder": 4}


@styled
def parallel_coordinates(trials: pd.DataFrame, params: Sequence[str]) -> str:
    """An axis a setting and the validation score at the right, a line a finished trial; the best five in colour.

    ``trials``: a row a finished trial, best first, a column a setting and ``valid/score``. Lines are bent apart where
    they meet one level: by their rank, so that they can be told apart.
    """
    names = [*params, SCORE]
    heights = np.stack([_height(trials[name], name) for name in names], axis=1)
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    best = min(BEST_DRAWN, len(trials))
    for rank in reversed(range(len(trials))):  # the best is drawn last, above the others
        colour = ARM_COLOURS[1 + rank] if rank < best else HAIR
        _line(axes, heights[rank], colour, 2.0 if rank < best else 1.0)
    for x, name in enumerate(names):
        axes.axvline(x, color=MUTED, linewidth=0.8, zorder=1)
        for height, text in _ticks(trials[name], name):
            axes.annotate(text, (x, height), (4, 0), va="center", color=INK, fontsize=8, **LABEL)
    axes.set_xticks(range(len(names)), ["validation score" if name == SCORE else name for name in names], color=INK)
    axes.set_xlim(-0.15, len(names) - 0.55)
    axes.set_ylim(-0.06, 1.06)
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    return to_svg(figure)


@styled
def importances(shares: Mapping[str, float]) -> str:
    """A bar a setting, the largest first: its part of the importance, in percent."""
    ordered = sorted(shares.items(), key=lambda each: -each[1])
    figure = Figure(figsize=(8.6, 0.7 + 0.32 * len(ordered)), layout="constrained")
    axes = figure.add_subplot()
    values = [100 * share for _, share in ordered]
    axes.barh(range(len(ordered)), values, color=ARM_COLOURS[1], height=0.6)
    for row, value in enumerate(values):
        axes.annotate(f"{value:.0f} %", (value, row), (4, 0), textcoords="offset points", va="center", color=INK)
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered], color=INK)
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    axes.set_xlim(0, 105)
    axes.set_xlabel("part of the importance, %")
    axes.spines["left"].set_visible(False)
    return to_svg(figure)


@styled
def history(trials: pd.DataFrame) -> str:
    """A dot a trial in the order in which they ran, and the best score so far; pruned ones are hollow."""
    ordered = trials.sort_values("trial").dropna(subset=SCORE)
    done = ordered["state"] == "COMPLETE"
    figure = Figure(figsize=(8.6, 2.4), layout="constrained")
    axes = figure.add_subplot()
    finished, pruned = ordered[done], ordered[~done]
    axes.step(
        finished["trial"], finished[SCORE].cummax(), where="post", color=MUTED, linewidth=1.2, label="best so far"
    )
    axes.scatter(
        finished["trial"], finished[SCORE], s=22, color=ARM_COLOURS[1], linewidth=0, label="finished", zorder=3
    )
    if len(pruned):
        hollow: Any = {"facecolor": "none", "edgecolor": ARM_COLOURS[2], "linewidth": 1.2}
        axes.scatter(pruned["trial"], pruned[SCORE], s=22, label="pruned: its last epoch's", zorder=3, **hollow)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("validation score")
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=3, handletextpad=0.4)
    return to_svg(figure)


def _line(axes: Axes, heights: NDArray[np.float64], colour: str, width: float) -> None:
    """Through its heights at 0, 1, 2 ..., level where it meets an axis."""
    points, codes = [(0.0, heights[0])], [Path.MOVETO]
    for x, (left, right) in enumerate(itertools.pairwise(heights)):
        points += [(x + 0.4, left), (x + 0.6, right), (x + 1.0, right)]
        codes += [Path.CURVE4] * 3
    axes.add_patch(PathPatch(Path(points, codes), facecolor="none", edgecolor=colour, linewidth=width, zorder=2))


def _height(values: pd.Series[Any], name: str) -> NDArray[np.float64]:
    """0 to 1: numbers by their size, levels in order; trials of one level beside each other by their rank."""
    if _is_number(values, name):
        numbers = np.log(values.to_numpy(float)) if name in LOGARITHMIC else values.to_numpy(float)
        low, high = numbers.min(), numbers.max()
        return (numbers - low) / (high - low) if high > low else np.full(len(numbers), 0.5)
    levels = _levels(values)
    places = {level: (i + 0.5) / len(levels) for i, level in enumerate(levels)}
    room, found = 0.6 / len(levels), np.empty(len(values))
    for level, place in places.items():
        rows = np.flatnonzero((values.map(format_level) == level).to_numpy())
        found[rows] = place + room * (0.5 - (np.arange(len(rows)) + 0.5) / len(rows))
    return found


def _ticks(values: pd.Series[Any], name: str) -> list[tuple[float, str]]:
    if _is_number(values, name):
        low, high = float(values.min()), float(values.max())
        return [(0.0, f"{low:.2g}"), (1.0, f"{high:.2g}")] if high > low else [(0.5, f"{low:.2g}")]
    levels = _levels(values)
    return [((i + 0.5) / len(levels), level) for i, level in enumerate(levels)]


def _is_number(values: pd.Series[Any], name: str) -> bool:
    return name in (SCORE, *LOGARITHMIC) and pd.api.types.is_numeric_dtype(values)


def _levels(values: pd.Series[Any]) -> list[str]:
    """A setting's levels: numbers by size, names by the alphabet; the last is drawn at the top."""
    known: list[Any] = sorted(values.unique(), key=lambda level: (isinstance(level, str), level))
    return [format_level(level) for level in known]
