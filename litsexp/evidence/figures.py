"""The report's figures, as SVG text: same data, same bytes.

Text stays text, laid out with the wide font that matplotlib brings and shown in the reader's own, narrower one. One
colour an arm throughout, from the palette of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from litsexp.evidence.judge import Verdict
from litsexp.evidence.noise import Noise
from litsexp.evidence.words import MODELS, digits_for, plain
from litsexp.spec.claim import ARM
from litsexp.spec.design import format_level

INK, MUTED, HAIR = "#1f2933", "#6b7280", "#d5dae0"
ARM_COLOURS = ("#3d4650", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
VERDICT_COLOURS = {"supported": "#0b6bab", "contradicted": "#b8480a", "equivalent": "#2f7d68", "inconclusive": MUTED}
MARGIN_BAND: Any = {"color": "#e9edf1", "zorder": 1}
NOISE_BAND: Any = {"facecolor": "none", "edgecolor": "#aab4bf", "hatch": "/////", "linewidth": 0, "zorder": 1.5}
NAME = 24  # letters of a foreign arm beside the forest
FONTS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'Liberation Sans', sans-serif"
STYLE: Any = {
    **{"svg.fonttype": "none", "svg.hashsalt": "litsexp", "font.family": ["DejaVu Sans"], "font.size": 8.5},
    **dict.fromkeys(("text.color", "axes.titlecolor"), INK),
    **dict.fromkeys(("axes.labelcolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), HAIR),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
    **{"axes.titlesize": 9, "axes.titlelocation": "left", "axes.linewidth": 0.8},
    **{"axes.axisbelow": True, "grid.linewidth": 0.6},
}
styled = style.context(["default", STYLE])  # decorates what draws; nobody's own settings are touched


def arm_colours(arms: Sequence[str]) -> dict[str, str]:
    """Arm -> its colour in every figure and table; colours repeat, with other dashes, after the seventh."""
    return {arm: ARM_COLOURS[i % len(ARM_COLOURS)] for i, arm in enumerate(arms)}


def dash_of(index: int) -> Any:
    """The line style of the arm with this number."""
    return DASHES[(index // len(ARM_COLOURS)) % len(DASHES)]


def legend_columns(arms: Sequence[str]) -> int:
    """Of a legend of arms, about 125 letters wide."""
    return max(1, min(5, 125 // (12 + max(map(len, arms), default=0))))


def to_svg(figure: Figure) -> str:
    """The figure as SVG text without a date, its text as text."""
    buffer, unsaid = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=unsaid, transparent=True)
    return buffer.getvalue().replace("'DejaVu Sans'", FONTS)


@styled
def forest(verdicts: Sequence[Verdict], noise: Sequence[Noise] = ()) -> str:
    """A row a claim: effect and both 95 % intervals, on the band of differences too small to matter.

    Thick: new patients and new runs; thin below it: these trained models, new patients. Hatched: how far apart two
    halves of one arm's runs lie in the claim's measure, where ``noise`` knows it. Claims in other units, and of other
    kinds, have axes of their own. Right of 0 the first arm does better: where less is better the axis runs from right
    to left, so that every number stays what it is in the tables.
    """
    groups: dict[tuple[str, bool, str], list[Verdict]] = {}
    for verdict in verdicts:
        measure = verdict.measure
        groups.setdefault((measure.unit, measure.higher_is_better, verdict.asked.name), []).append(verdict)
    rows, halves = [len(group) for group in groups.values()], {each.metric: each.halves for each in noise}
    figure = Figure(figsize=(8.6, 0.5 + 0.75 * len(rows) + 0.5 * sum(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=rows)[:, 0]
    for axes, group in zip(panels, groups.values(), strict=True):
        _forest_panel(axes, group, halves)
    handles = [
        Line2D([], [], color=MUTED, linewidth=2.6, marker="o", markersize=5, label="new patients and new runs"),
        Line2D([], [], color=MUTED, linewidth=1, label=MODELS),
        Patch(**MARGIN_BAND, label="within the margin"),
    ]
    if any(_halves(verdict, halves) for verdict in verdicts):
        handles.append(Patch(**NOISE_BAND, label=f"two halves of {noise[0].arm}"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handlelength=2.4)
    return to_svg(figure)


def _forest_panel(axes: Axes, verdicts: Sequence[Verdict], halves: Mapping[str, float]) -> None:
    """The claims of one unit, direction and kind."""
    rows, measure, asked = len(verdicts), verdicts[0].measure, verdicts[0].asked
    for row, verdict in enumerate(verdicts):
        _forest_row(axes, row, verdict, _halves(verdict, halves))
    axes.axvline(0, color=INK, linewidth=0.9, zorder=2)
    axes.set_yticks(range(rows), [_label(verdict) for verdict in verdicts], color=INK, linespacing=1.25)
    axes.set_ylim(rows - 0.5, -0.5)
    drawn = [x for v in verdicts for x in (v.low, v.high, v.models_low, v.models_high, v.effect, v.claim.margin)]
    drawn += [_halves(verdict, halves) for verdict in verdicts]
    reach = max([abs(x) for x in drawn if x == x] + [0.01])
    axes.set_xlim(-1.12 * reach * measure.sign, 1.12 * reach * measure.sign)
    better = "right of 0: better" if measure.higher_is_better else "less is better; right of 0: better"
    better = "right of 0: the gain grows" if asked.name == "interaction" else better
    axes.set_xlabel(f"{asked.axis}{measure.unit and f', {measure.unit}'}, 95 % intervals ({better})")
    axes.spines["left"].set_visible(False)
    right = axes.twinx()
    right.set_ylim(axes.get_ylim())
    right.set_yticks(range(rows), [_estimate(verdict) for verdict in verdicts], color=INK)
    right.spines["left"].set_visible(False)


def _halves(verdict: Verdict, halves: Mapping[str, float]) -> float:
    """How far apart two halves of one arm lie in the claim's measure; they say nothing of a difference of gains."""
    return halves.get(verdict.claim.metric, 0.0) if verdict.asked.scores else 0.0


def _forest_row(axes: Axes, row: int, verdict: Verdict, halves: float) -> None:
    margin, colour = verdict.claim.margin, VERDICT_COLOURS[verdict.verdict]
    axes.barh(row, 2 * margin, left=-margin, height=0.72, **MARGIN_BAND)
    if halves:
        axes.barh(row, 2 * halves, left=-halves, height=0.72, **NOISE_BAND)
    if math.isnan(verdict.effect):
        axes.text(0, row, "no patients to compare", ha="center", va="center", color=MUTED)
        return
    line: Any = {"color": colour, "zorder": 3, "solid_capstyle": "butt"}
    axes.plot([verdict.low, verdict.high], [row - 0.06] * 2, linewidth=2.6, **line)
    axes.plot([verdict.models_low, verdict.models_high], [row + 0.2] * 2, linewidth=1, **line)
    axes.plot(verdict.effect, row - 0.06, "o", color=colour, markersize=6.5, zorder=4)


def _label(verdict: Verdict) -> str:
    claim = verdict.claim
    versus = f"{claim.factor} {format_level(claim.better)} − {format_level(claim.than)}"
    for factor, (first, then) in claim.grows.items():
        versus = f"({versus}): {factor} {format_level(then)} − {format_level(first)}"
    if claim.factor == ARM:
        versus = " − ".join(clipped(name) for name in verdict.sides)
    return f"{claim.id}: {verdict.measure.words}\n{versus}"


def clipped(name: str) -> str:
    """A foreign arm's name, the middle left out where it is long: names differ at their ends."""
    return name if len(name) <= NAME else f"{name[: NAME - 9]}…{name[-8:]}"


def _estimate(verdict: Verdict) -> str:
    digits = (digits_for(verdict.claim.margin) or -1) + 1
    effect, low, high = (plain(x, digits).replace("-", "−") for x in (verdict.effect, verdict.low, verdict.high))
    if math.isnan(verdict.low):
        return "–" if math.isnan(verdict.effect) else effect
    return f"{effect}  [{low}, {high}]"


@styled
def pairs(verdict: Verdict, colours: tuple[str, str], unlearned: float | None = None) -> str:
    """A column a patient, both arms' scores joined, from who is worst to who is best served by the first arm.

    ``colours`` of better and than: a line takes that of the arm that does better. ``unlearned`` is what a predictor
    scores that learns nothing: a dashed line.
    """
    sign = verdict.measure.sign
    gain = (sign * verdict.differences["difference"]).sort_values(kind="stable")
    table = verdict.differences.loc[gain.index]
    figure = Figure(figsize=(8.6, 2.5), layout="constrained")
    axes = figure.add_subplot()
    x, better, than = np.arange(len(table)), table["better"].to_numpy(float), table["than"].to_numpy(float)
    few, size = len(table) <= 50, 26 if len(table) <= 60 else 10
    line = [colours[0] if d > 0 else colours[1] if d < 0 else HAIR for d in gain]
    axes.vlines(x, than, better, color=line, linewidth=2.2 if len(table) <= 60 else 1, alpha=0.45, zorder=2)
    names = verdict.sides
    axes.scatter(x, than, s=size, facecolor="white", edgecolor=colours[1], linewidth=1.4, zorder=3, label=names[1])
    axes.scatter(x, better, s=size, color=colours[0], linewidth=0, zorder=4, label=names[0])
    if unlearned is not None:
        axes.axhline(unlearned, color=MUTED, linewidth=1, linestyle=(0, (4, 2)), zorder=1, label="learns nothing")
    axes.set_ylabel(verdict.asked.drawn(verdict.measure))
    axes.set_xlim(-0.8, len(table) - 0.2)
    numbered = all(isinstance(case, int) for case in table.index)
    names_shown, upright = [str(case) for case in table.index] if few else [], 0 if numbered else 90
    axes.set_xticks(x if few else [], names_shown, fontsize=7.5, rotation=upright)
    order = "ascending" if verdict.measure.higher_is_better else "descending"
    axes.set_xlabel(f"patients, {order} by difference" + (" (case number)" if few and numbered else ""))
    axes.grid(axis="y")
    split = int((gain <= 0).sum())  # gain ascends
    if 0 < split < len(table):
        axes.axvline(split - 0.5, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    figure.legend(loc="outside upper left", ncols=3, handletextpad=0.3)
    return to_svg(figure)
