"""What a person sees: the console, progress bars, and a study's live table of arms and folds with the time left."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from litsexp.spec.design import Cell, arms
from litsexp.spec.study import StudyConfig

if TYPE_CHECKING:
    from litsexp.study.jobs import Outcome

console = Console()
if not console.is_terminal and "COLUMNS" not in os.environ:
    console.width = 120  # a file or a pipe has no width: rich would cut tables at 80
MARKS = {
    **dict.fromkeys(("finished", "scored"), "[green]✓[/]"),
    "pruned": "[yellow]✂[/]",
    "failed": "[red]✗[/]",
    "unscored": "[red]![/]",
    "kept": "[dim]✓[/]",
}


class LiveDisplay:
    """The study's one live display; on a pipe, a line a finished cell instead."""

    def __init__(self, console: Console, study: StudyConfig, cohort: str = ""):
        self.console, self.cohort = console, cohort
        self.epochs_a_cell = sum(arm.run.epochs for arm in arms(study)) / len(arms(study))  # where not known yet
        self.places = list(itertools.product(study.seeds, range(study.split.n_folds if not study.search else 1)))
        self.arms = [] if study.search else [arm.name for arm in arms(study)]  # a search's come as they are sampled
        self.marks: dict[tuple[str, int, int], str] = {}
        self.running: dict[Cell, tuple[int, float]] = {}  # cell -> epochs done, validation score
        self.left = self.done_epochs = 0
        self.started_s = time.monotonic()
        self.live = Live(console=console, refresh_per_second=4, get_renderable=self.render, transient=True)

    def __enter__(self) -> LiveDisplay:
        if self.console.is_terminal or self.console.is_jupyter:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live.is_started:
            self.live.stop()

    def planned(self, done: Sequence[Cell], left: int, to_score: int) -> None:
        """Note the cells that are done already, how many are left to train, and of the done ones to score."""
        self.left = left + to_score
        for cell in done:
            self.marks[cell.arm.name, cell.seed, cell.fold] = MARKS["kept"]
        if done or left:
            on = f"on {self.cohort}: " if self.cohort else ""  # a phantom's name says so
            scoring = f", {to_score} to score" if to_score else ""
            self.console.print(escape(f"{on}{len(done)} runs done before, {left} to train{scoring}"), soft_wrap=True)

    def started(self, cell: Cell) -> None:
        """A cell began; or begins again, its worker having died."""
        place = cell.arm.name, cell.seed, cell.fold
        if self.marks.pop(place, "") == MARKS["failed"]:
            self.left += 1
            self.done_epochs -= cell.arm.run.epochs
        self.running[cell] = 0, float("nan")

    def epoch(self, cell: Cell, epoch: int, metrics: dict[str, float]) -> None:
        """A cell finished an epoch."""
        self.running[cell] = epoch + 1, metrics["valid/score"]
        self.done_epochs += 1

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """A cell ended."""
        done, _ = self.running.pop(cell, (0, 0.0))
        self.done_epochs += cell.arm.run.epochs - done  # stopped early: its other epochs need no time either
        self.left -= 1
        self.marks[cell.arm.name, cell.seed, cell.fold] = MARKS[outcome.status]
        if outcome.status in ("failed", "unscored"):
            text = escape(f"{cell.name}: {outcome.reason}")  # a reason may hold brackets
            self.console.print(f"[red]{outcome.status}[/] {text}", highlight=False, soft_wrap=True)
        elif not self.live.is_started:
            score = "" if outcome.status == "scored" else f"validation {outcome.value:.3f}, "
            left = f"{self.left} left, about {self.minutes_left():.0f} min"
            text = escape(f"{outcome.status} {cell.name}: {score}{outcome.seconds:.0f} s ({left})")
            self.console.print(text, highlight=False, soft_wrap=True)

    def minutes_left(self) -> float:
        """From the pace so far."""
        running = sum(cell.arm.run.epochs - done for cell, (done, _) in self.running.items())
        left = running + max(self.left - len(self.running), 0) * self.epochs_a_cell
        pace_s = (time.monotonic() - self.started_s) / max(self.done_epochs, 1)
        return left * pace_s / 60

    def render(self) -> Group:
        """Arms down, seeds and folds across, and a line a running cell."""
        table = Table(title=escape(self.cohort) or None, title_justify="left", box=None, pad_edge=False)
        table.add_column("arm")
        many_seeds = len({seed for seed, _ in self.places}) > 1
        for seed, fold in self.places:
            table.add_column(f"seed {seed} fold {fold}" if many_seeds else f"fold {fold}", justify="center")
        now = {(cell.arm.name, cell.seed, cell.fold): cell for cell in self.running}
        for arm in dict.fromkeys([*self.arms, *(name for name, _, _ in [*self.marks, *now])]):
            marks = [self._mark((arm, *place), now) for place in self.places]
            table.add_row(escape(arm), *marks)
        left = f"{self.minutes_left():.1f} min left" if self.done_epochs else "time left: after the first epoch"
        return Group(table, f"[dim]{self.left} runs to go, {left}; Ctrl-C stops, the same command goes on[/]")

    def _mark(self, place: tuple[str, int, int], now: dict[tuple[str, int, int], Cell]) -> str:
        if place in now:
            done, score = self.running[now[place]]
            shown = "" if score != score else f" [dim]{score:.2f}[/]"
            return f"[cyan]{done}/{now[place].arm.run.epochs}[/]{shown}"
        return self.marks.get(place, "[dim]·[/]")


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def say(text: str, style: str = "") -> None:
    """Plain text, whatever brackets are in it, and no line broken: paths stay whole."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(what: str, console: Console = console) -> Iterator[Callable[[int, int], None]]:
    """A bar for ``progress(done, total)``; it leaves no trace, and shows nothing where nothing is done."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = not (console.is_terminal or console.is_jupyter)
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        tasks: list[TaskID] = []

        def advance(done: int, total: int) -> None:
            if not tasks:
                tasks.append(bar.add_task(what, total=total))
            bar.update(tasks[0], completed=done)

        yield advance
