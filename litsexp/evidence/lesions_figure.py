"""Recall of lesions by size and by contrast, an arm a colour; SVG text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from litsexp.evidence.figures import legend_columns, styled, to_svg
from litsexp.evidence.native import Finding

if TYPE_CHECKING:
    import pandas as pd

RECALL_ARMS = 7  # more dots beside each other than this cannot be told apart


@styled
def recalls(table: pd.DataFrame, groups: Mapping[str, Sequence[Finding]], colours: Mapping[str, str]) -> str:
    """A panel a group of findings (``by diameter``), a column a kind of lesion, in it a dot an arm with its interval.

    ``table`` is that of ``native.lesion_findings``; below each kind stands how many lesions there are.
    """
    shown = [arm for arm in colours if arm in set(table["arm"])][:RECALL_ARMS]
    columns = legend_columns(shown)
    figure = Figure(figsize=(8.6, 2.6 + 0.18 * math.ceil(len(shown) / columns)), layout="constrained")
    panels = figure.subplots(1, max(2, len(groups)), sharey=True)
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    for axes, (title, findings) in zip(panels, groups.items(), strict=False):
        _panel(axes, table, findings, {arm: colours[arm] for arm in shown})
        axes.set_title(title)
    panels[0].set_ylabel("recall of lesions")
    panels[0].set_ylim(-0.04, 1.04)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handletextpad=0.3)
    return to_svg(figure)


def _panel(axes: Axes, table: pd.DataFrame, findings: Sequence[Finding], colours: Mapping[str, str]) -> None:
    names = [finding.name for finding in findings]
    wide = table.set_index(["arm", "finding"])
    for number, (arm, colour) in enumerate(colours.items()):
        rows = wide.loc[[(arm, name) for name in names]]
        x = np.arange(len(names)) + 0.11 * (number - (len(colours) - 1) / 2)
        bounds = rows[["low", "high"]].clip(0, 1).to_numpy()
        axes.vlines(x, bounds[:, 0], bounds[:, 1], color=colour, linewidth=1.1, alpha=0.7)
        axes.plot(x, rows["mean"], "o", color=colour, markersize=5, label=arm)
    there = [int(wide.loc[(slice(None), name), "lesions"].max()) for name in names]
    ticks = [f"{finding.title}\n{count} lesions" for finding, count in zip(findings, there, strict=True)]
    axes.set_xticks(range(len(names)), ticks)
    axes.set_xlim(-0.55, len(names) - 0.45)
    axes.grid(axis="y")
