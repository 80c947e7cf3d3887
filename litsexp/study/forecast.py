"""How long cells take and what they leave on the disk, from the paces that were rehearsed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.spec.design import Cell
from litsexp.spec.keys import digest
from litsexp.spec.pretraining import learns, pretraining
from litsexp.study.rehearsal import Pace, kind_of

FINDER_STEPS = 85  # of the LR finder's 100: it stops where the loss explodes, in trials after 74 to 91


@dataclass(frozen=True)
class Pretrained:
    """One pretraining: of the first cell that asks for it, whose seconds it is in."""

    init: str
    steps: int
    seconds: float
    supervised_steps: int  # of the same arm, that take as long


@dataclass(frozen=True)
class Forecast:
    """Of the cells that are left; at most, where runs may stop early."""

    cells: int
    workers: int
    run_s: tuple[float, ...]  # of each cell
    wall_s: float  # of all of them, so many workers at a time, their start included
    disk_bytes: int  # pictures and tables of all of them, and the weights that are kept
    keep_weights: int  # how many of them do
    at_most: bool  # some run may stop early
    pretrained: tuple[Pretrained, ...] = ()  # those that learn an encoder for themselves and for others of these cells


def forecast(
    cells: Sequence[Cell],
    paces: Mapping[str, Pace],
    store: Store,
    splits: Sequence[Split],
    external: Store | None,
    workers: int,
    keeps: Callable[[Cell], bool],
    training: bool = False,
) -> Forecast:
    """What these cells take, in the order in which a study runs them; ``paces`` has a pace of each one's kind.

    ``keeps`` says whether a cell keeps its weights; ``training``, whether each scores the patients that it was trained
    on, too.
    """
    learned = pretrainings(cells, paces)
    others = len(external.index) if external else 0
    run_s = tuple(
        seconds(cell, paces[kind_of(cell.arm.run)], store, splits[cell.fold], others, training)
        + (learned[cell].seconds if cell in learned else 0.0)
        for cell in cells
    )
    start_s = max((pace.worker_start_s for pace in paces.values()), default=0.0)
    free = [start_s] * min(workers, len(cells)) or [0.0]  # when each worker is
    for one_s in run_s:
        heapq.heapreplace(free, free[0] + one_s)
    kept = [keeps(cell) for cell in cells]
    each = [(paces[kind_of(cell.arm.run)], keep) for cell, keep in zip(cells, kept, strict=True)]
    disk = sum(pace.artifact_bytes - (0 if keep else pace.weights_bytes) for pace, keep in each)
    early = any(cell.arm.run.patience for cell in cells)
    return Forecast(len(cells), workers, run_s, max(free), disk, sum(kept), early, tuple(learned.values()))


def pretrainings(cells: Sequence[Cell], paces: Mapping[str, Pace]) -> dict[Cell, Pretrained]:
    """The cells that are the first of their fold and seed to ask for a pretraining; others find it, or wait for it."""
    asked: dict[str, tuple[Cell, Pretrained]] = {}
    for cell in cells:
        run = cell.arm.run
        if not learns(run):
            continue
        pace = paces[kind_of(run)]
        needed_s = run.ssl_steps * pace.ssl_step_s
        one = Pretrained(run.init, run.ssl_steps, needed_s, round(needed_s / pace.step_s))
        asked.setdefault(digest([cell.fold, cell.seed, pretraining(run)]), (cell, one))
    return dict(asked.values())


def seconds(cell: Cell, pace: Pace, store: Store, split: Split, external_slices: int, training: bool = False) -> float:
    """Of one cell, from building its network to its last scoring; early stopping would only shorten it."""
    run = cell.arm.run
    train, valid, test = (len(store.rows_of(side)) for side in (split.train, split.valid, split.test))
    steps = run.steps_per_epoch or max(1, train // run.batch_size)
    find_s = pace.begin_s + FINDER_STEPS * pace.step_s if run.lr == "find" else 0.0
    trained_s = steps * (run.frozen_epochs * pace.frozen_step_s + (run.epochs - run.frozen_epochs) * pace.step_s)
    validated_s = run.epochs * (pace.epoch_s + valid * pace.valid_slice_s)
    again = training * run.train_fraction * train
    scored_s = pace.end_s + (test + external_slices + again) * pace.scored_slice_s
    return pace.begin_s + find_s + trained_s + validated_s + scored_s
