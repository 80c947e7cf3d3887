"""The A/A test as a picture, SVG text in the style of the report's figures: same data, same bytes."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from litsexp.evidence.aa import AATest, seeds_an_arm
from litsexp.evidence.figures import INK, MUTED, styled, to_svg
from litsexp.evidence.judge import ALPHA, MIN_PATIENTS, MIN_RUN_PAIRS
from litsexp.evidence.measures import measure_of

PROCEDURES = {"false": ("#0072b2", "patients and runs: the verdict"), "patients_only": ("#d55e00", "patients alone")}
SPREAD = 0.62  # of a row's height: its numbers of seeds, from 1 at the top


@styled
def aa_figure(test: AATest) -> str:
    """A row a measure, a panel a cohort: the share of false verdicts, and where a test of 5 % would be."""
    metrics, cohorts = list(dict.fromkeys(test.shares["metric"])), list(dict.fromkeys(test.shares["cohort"]))
    figure = Figure(figsize=(8.6, 1.5 + 0.4 * len(metrics)), layout="constrained")
    panels = figure.subplots(1, len(cohorts), sharey=True, squeeze=False)[0]
    for axes, cohort in zip(panels, cohorts, strict=True):
        _panel(axes, test.shares[test.shares["cohort"] == cohort], metrics)
        kind = "test patients" if cohort == "test" else "external patients"
        axes.set_title(f"{kind}\n{test.cohorts[cohort]}")
        axes.set_xlabel("share of false verdicts")
    panels[0].set_yticks(range(len(metrics)), [measure_of(metric).words for metric in metrics], color=INK)
    panels[0].set_ylim(len(metrics) - 0.5, -0.5)
    most = int(test.shares["seeds"].max())
    numbers = f"{'1 to ' * (most > 1)}{seeds_an_arm(most)}"
    figure.suptitle(f"Identical arms, {numbers} (from top to bottom)", x=0.01, ha="left", fontsize=9, color=MUTED)
    figure.legend(handles=_handles(), loc="outside lower center", ncols=2)
    return to_svg(figure)


def _panel(axes: Axes, shares: pd.DataFrame, metrics: list[str]) -> None:
    low, high = shares[["low", "high"]].iloc[0]
    axes.axvspan(low, high, color="#e9edf1", zorder=0)
    axes.axvline(ALPHA, color=INK, linewidth=0.9, zorder=1)
    most = shares["seeds"].max()
    step = SPREAD / most
    for row in shares.dropna(subset=["patients_only"]).to_dict("records"):
        y = metrics.index(row["metric"]) + step * (row["seeds"] - (most + 1) / 2)
        for column, (colour, _) in PROCEDURES.items():
            inside = colour if row["settled"] else "white"
            axes.plot(row[column], y, "o", color=colour, markerfacecolor=inside, markersize=4, zorder=3)
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_yticks([y + 0.5 for y in range(len(metrics) - 1)], minor=True)
    axes.grid(axis="y", which="minor")
    axes.tick_params(axis="y", which="minor", length=0)
    axes.spines["left"].set_visible(False)


def _handles() -> list[Line2D | Patch]:
    dot: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 4.5}
    few = f"hollow: fewer than {MIN_RUN_PAIRS} pairs of runs or {MIN_PATIENTS} patients, no verdict is given"
    return [
        *(Line2D([], [], color=colour, label=words, **dot) for colour, words in PROCEDURES.values()),
        Line2D([], [], color=MUTED, markerfacecolor="white", label=few, **dot),
        Patch(color="#e9edf1", label="5 %, and where 95 % of tests of 5 % would be"),
    ]
