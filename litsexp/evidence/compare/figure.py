"""What changed as a picture, SVG text in the style of the report's figures: same data, same bytes."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from litsexp.evidence.compare.changes import Change
from litsexp.evidence.figures import INK, MARGIN_BAND, MUTED, VERDICT_COLOURS, clipped, styled, to_svg

COLOURS = {
    "better": VERDICT_COLOURS["supported"],
    "worse": VERDICT_COLOURS["contradicted"],
    **dict.fromkeys(("same", "identical"), VERDICT_COLOURS["equivalent"]),
    "unclear": MUTED,
}


@styled
def changes_figure(changes: Sequence[Change]) -> str:
    """A panel a measure, a row an arm: B minus A with its 95 % interval, on the band of what is too small to matter.

    Right of 0 study B does better: where less is better the axis runs from right to left.
    """
    panels: dict[str, list[Change]] = {}
    for change in changes:
        panels.setdefault(change.measure.title, []).append(change)
    rows = [len(panel) for panel in panels.values()]
    figure = Figure(figsize=(8.6, 0.6 + 0.55 * len(rows) + 0.3 * sum(rows)), layout="constrained")
    every = figure.subplots(len(rows), 1, squeeze=False, height_ratios=rows)[:, 0]
    for axes, (title, panel) in zip(every, panels.items(), strict=True):
        _panel(axes, title, panel)
    every[-1].set_xlabel("B minus A, 95 % interval: new patients and new runs (right of 0: B does better)")
    words = {"better": "better in B", "worse": "worse in B", "same": "same or identical", "unclear": "unclear"}
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=COLOURS[name], linewidth=2.6, marker="o", markersize=5, label=said)
        for name, said in words.items()
    ]
    handles.append(Patch(**MARGIN_BAND, label="within the margin"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), handlelength=2.4)
    return to_svg(figure)


def _panel(axes: Axes, title: str, panel: Sequence[Change]) -> None:
    rows = len(panel)
    for row, change in enumerate(panel):
        _row(axes, row, change)
    axes.axvline(0, color=INK, linewidth=0.9, zorder=2)
    axes.set_title(title)
    axes.set_yticks(range(rows), [clipped(change.what) for change in panel], color=INK)
    axes.set_ylim(rows - 0.5, -0.5)
    drawn = [x for change in panel for x in (change.low, change.high, change.effect, change.margin)]
    reach = 1.12 * max([abs(x) for x in drawn if not math.isnan(x)] + [0.01]) * panel[0].measure.sign
    axes.set_xlim(-reach, reach)
    axes.spines["left"].set_visible(False)


def _row(axes: Axes, row: int, change: Change) -> None:
    axes.barh(row, 2 * change.margin, left=-change.margin, height=0.72, **MARGIN_BAND)
    if math.isnan(change.effect):
        axes.text(0, row, "not compared", ha="center", va="center", color=MUTED)
        return
    colour = COLOURS[change.verdict]
    axes.plot([change.low, change.high], [row] * 2, linewidth=2.6, color=colour, zorder=3, solid_capstyle="butt")
    axes.plot(change.effect, row, "o", color=colour, markersize=6, zorder=4)
