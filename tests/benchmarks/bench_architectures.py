"""What each architecture costs, and what it finds for that: after equal steps, and after equal CPU time.

Four parts, each on this machine: (1) weights; (2) CPU seconds of a bare training step, in rounds that alternate with
``unet`` on the same batches, so that both see the same machine: the ratio is the median of the rounds'; (3) a peak
learning rate for each, by the same search on another phantom, judged on its validation patients: four rates, and where
the best is the least or the largest tried, half or twice of it, too, up to two times; (4) tumor Dice of the test
patients of every fold, after ``--steps`` steps, and after as much CPU time as ``unet`` takes for them. An architecture
with an encoder is there twice: pretrained on ImageNet, and from scratch like the others.

Runs this short say who learns soon. One run's SD on these phantoms is about 0.05: read the folds, not the mean alone.
With ``--kept FILE`` every score is kept as it comes, and the same command goes on after an interruption.

    python tests/benchmarks/bench_architectures.py --steps 396 --search-steps 150 --workers 2 --json architectures.json
    python tests/benchmarks/bench_architectures.py --quick
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from litsexp.data.phantom.cohort import write_cohort
from litsexp.data.phantom.patient import PhantomConfig
from litsexp.data.splits import Split, make_splits
from litsexp.data.store import Store, prepare
from litsexp.evaluation.cases import masks_of
from litsexp.evaluation.metrics import mean_defined, mean_scores
from litsexp.spec.catalog import ARCHITECTURES, LOSSES
from litsexp.spec.cohort import DataConfig, SplitConfig
from litsexp.spec.keys import digest
from litsexp.spec.run import RunConfig
from litsexp.spec.tables import resolve
from litsexp.training.architectures import build_network
from litsexp.training.course import Epoch
from litsexp.training.loaders import Slices, TrainLoader
from litsexp.training.loop import train
from litsexp.training.machine import MixedPrecision, default_device, repeatable
from litsexp.training.predict import predict

RATES = (0.0005, 0.001, 0.002, 0.004)
RECIPE = {"dice_weight": 0.5, "augment": "paper", "clip_norm": 1.0, "ema": 0.95, "precision": "fp32"}
DECODER_WIDTH = 128  # of those whose shape can be set, as in the shipped studies
YARDSTICK = "unet"
MOST_BEYOND = 2  # rates that are tried beyond an edge of RATES


@dataclass(frozen=True)
class Training:
    """One run; whether it is judged on validation (the search for a rate) or on test patients."""

    run: RunConfig
    store: Path
    split: Split
    on_test: bool

    @property
    def key(self) -> str:
        """The same for the same run on the same slices."""
        asked = {"run": self.run.model_dump(mode="json"), "data": Store.open(self.store).fingerprint}
        return digest({**asked, "split": [*map(list, vars(self.split).values())], "on_test": self.on_test})

    def score(self) -> float:
        """Best validation score, or tumor Dice of the test patients."""
        store = Store.open(self.store)
        trained = train(self.run, store, self.split, seed=0, listener=Quiet())
        if not self.on_test:
            return trained.history[trained.best_epoch]["valid/score"]
        rows = store.rows_of(self.split.test)
        found = predict(self.run, trained.weights, store, rows)
        return mean_scores(masks_of(store.index.iloc[rows], store.labels[rows], found), ["dice_tumor"])["dice_tumor"]


class Quiet:
    """A listener that never stops a run."""

    def epoch(self, epoch: Epoch) -> bool:
        return True


def entries() -> list[tuple[str, str]]:
    """Every architecture with each start that it can have here."""
    pretrained = {name: ["imagenet"] if row.encoder else [] for name, row in ARCHITECTURES.items()}
    return [(name, init) for name, inits in pretrained.items() for init in [*inits, "scratch"]]


def run_of(architecture: str, init: str, steps: int, lr: float, asked: argparse.Namespace) -> RunConfig:
    """The common recipe; ``steps`` are a multiple of the epochs, of which every run has as many."""
    shape = {"decoder_width": DECODER_WIDTH} if ARCHITECTURES[architecture].shaped else {}
    length = {"epochs": asked.epochs, "steps_per_epoch": steps // asked.epochs, "batch_size": asked.batch_size}
    return RunConfig.model_validate({**RECIPE, **length, "architecture": architecture, "init": init, "lr": lr, **shape})


def stepper(run: RunConfig, store: Store, split: Split, steps: int) -> Callable[[], float]:
    """A function that takes ``steps`` bare training steps and returns the CPU seconds of one."""
    device = default_device()
    batches = list(TrainLoader(Slices(store, device), store.rows_of(split.train), run, steps, seed=0))
    model = MixedPrecision(build_network(run, store.size, seed=0)[0], run, device).train()
    loss_of, optimiser = resolve(LOSSES[run.loss].make)(run), torch.optim.AdamW(model.parameters(), fused=True)

    def take() -> float:
        start_s = time.process_time()
        with repeatable():
            for image, labels in batches:
                loss_of(model(image), labels).backward()
                optimiser.step()
                optimiser.zero_grad()
        return (time.process_time() - start_s) / len(batches)

    return take


def costs(store: Store, split: Split, asked: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Architecture -> CPU seconds a step, and how many times the yardstick's: medians over alternating rounds."""

    def of(architecture: str) -> Callable[[], float]:
        run = run_of(architecture, "scratch", asked.epochs, RATES[0], asked)
        return stepper(run, store, split, asked.timed_steps)

    reference, found = of(YARDSTICK), {}
    for name in ARCHITECTURES:
        take = of(name)
        take(), reference()  # warm
        pairs = [(take(), reference()) for _ in range(asked.rounds)]
        ratio = 1.0 if name == YARDSTICK else statistics.median(ours / its for ours, its in pairs)
        found[name] = statistics.median(ours for ours, _ in pairs), ratio
    return found


def best_rates(
    count: int, rates: Sequence[float], score: Callable[[list[tuple[int, float]]], list[float]]
) -> list[float]:
    """The rate of the highest score for each of ``count`` entries; of equals the first that was tried.

    ``score`` gives the scores of (entry, rate) pairs. Where the best is at an edge of what was tried, half or twice of
    it is tried, too, ``MOST_BEYOND`` times at most.
    """
    found: list[dict[float, float]] = [{} for _ in range(count)]
    todo = [(entry, rate) for entry in range(count) for rate in rates]
    for _ in range(MOST_BEYOND + 1):
        for (entry, rate), value in zip(todo, score(todo), strict=True):
            found[entry][rate] = value
        todo = []
        for entry, scores in enumerate(found):
            best = max(scores, key=scores.__getitem__)
            beyond = {min(scores): best / 2, max(scores): best * 2}
            todo += [(entry, beyond[best])] if best in beyond else []
    return [max(scores, key=scores.__getitem__) for scores in found]


def steps_in_equal_time(steps: int, ratio: float, epochs: int) -> int:
    """Steps, in whole epochs, of a network that takes ``ratio`` times the yardstick's time for each of ``steps``."""
    return epochs * max(1, round(steps / ratio / epochs))


def scores_of(trainings: Sequence[Training], asked: argparse.Namespace, say: Callable[[str], None]) -> list[float]:
    """Scores in the order of the trainings, each run once; in other processes where there are several workers."""
    lines = asked.kept.read_text(encoding="utf-8").splitlines() if asked.kept and asked.kept.is_file() else []
    known = dict(json.loads(line) for line in lines)
    scores = {one: known[one.key] for one in trainings if one.key in known}
    todo = [one for one in dict.fromkeys(trainings) if one not in scores]
    start, several = partial(torch.set_num_threads, asked.threads), asked.workers > 1
    with ProcessPoolExecutor(asked.workers, get_context("spawn"), start) if several else nullcontext() as pool:
        for training, score in zip(todo, (pool.map if pool else map)(Training.score, todo), strict=True):
            run = training.run
            steps = run.epochs * (run.steps_per_epoch or 0)
            say(f"{run.architecture} {run.init}, lr {run.lr:g}, {steps} steps: {score:.3f}")
            scores[training] = score
            if asked.kept:
                with asked.kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([training.key, score]) + "\n")
    return [scores[training] for training in trainings]


def measured(asked: argparse.Namespace, root: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row an entry: everything that the table shows."""
    stores = [_store(root, seed, asked) for seed in (asked.seed, asked.search_seed)]
    ours, others = (make_splits(store.has_tumor, SplitConfig(folds=3, valid=0.2)) for store in stores)
    cost, names = costs(stores[0], ours[0], asked), entries()

    def score(runs: Iterable[RunConfig], store: Store, folds: Sequence[Split], on_test: bool) -> list[list[float]]:
        todo = [Training(run, store.directory, split, on_test) for run in runs for split in folds]
        scores = scores_of(todo, asked, say)
        return [scores[start : start + len(folds)] for start in range(0, len(scores), len(folds))]

    def searched(tries: list[tuple[int, float]]) -> list[float]:
        runs = [run_of(*names[entry], asked.search_steps or asked.steps, lr, asked) for entry, lr in tries]
        return [one for (one,) in score(runs, stores[1], others[:1], on_test=False)]

    best = best_rates(len(names), asked.rates, searched)
    rows = [
        {"architecture": name, "init": init, "cpu_s_a_step": cost[name][0], "times_unet": cost[name][1], "lr": lr}
        for (name, init), lr in zip(names, best, strict=True)
    ]
    for row in rows:
        row["steps_in_equal_time"] = steps_in_equal_time(asked.steps, row["times_unet"], asked.epochs)
        run = run_of(row["architecture"], "scratch", asked.steps, row["lr"], asked)
        network, _ = build_network(run, asked.size, seed=0)
        row["parameters"] = sum(one.numel() for one in network.parameters())
    for kind, steps in (("steps", lambda _: asked.steps), ("time", lambda row: row["steps_in_equal_time"])):
        runs = [run_of(r["architecture"], r["init"], steps(r), r["lr"], asked) for r in rows]
        for row, scores in zip(rows, score(runs, stores[0], ours[: asked.folds], on_test=True), strict=True):
            row[f"dice_tumor_equal_{kind}"] = scores
    return rows


def _store(root: Path, seed: int, asked: argparse.Namespace) -> Store:
    """The phantom of a seed, as the shipped studies have it."""
    config = PhantomConfig(asked.patients, seed=seed, size=asked.size, lesions="large")
    cohort = write_cohort(root / f"phantom-{seed}", config, processes=1)
    return prepare(cohort, root / "stores", DataConfig(size=asked.size), processes=1)


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for people."""
    heads = "architecture", "init", "weights, M", "CPU s a step", "x unet", "lr"
    table = Table(*heads, "Dice, equal steps", "steps in equal time", "Dice, equal time")
    for row in rows:
        by_steps, by_time = (row[f"dice_tumor_equal_{kind}"] for kind in ("steps", "time"))
        numbers = f"{row['parameters'] / 1e6:.1f}", f"{row['cpu_s_a_step']:.3f}", f"{row['times_unet']:.2f}"
        table.add_row(
            *(row["architecture"], row["init"], *numbers, f"{row['lr']:g}", _folds(by_steps)),
            *(str(row["steps_in_equal_time"]), _folds(by_time)),
        )
    return table


def _folds(scores: Sequence[float]) -> str:
    """``0.571 (0.637, 0.570, 0.507)``: the mean over folds that have one, and each."""
    return f"{mean_defined(scores):.3f} ({', '.join(f'{one:.3f}' for one in scores)})"


def options() -> argparse.Namespace:
    """The command line; ``--quick`` sets everything small."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="minutes: shows that it works, and no more")
    parser.add_argument("--steps", type=int, default=396, help="of optimisation, of each run")
    parser.add_argument("--search-steps", type=int, help="of each run of the search for a rate; default: --steps")
    parser.add_argument("--epochs", type=int, default=6, help="of each run, however many steps it has")
    parser.add_argument("--seed", type=int, default=31, help="of the phantom that is scored")
    parser.add_argument("--search-seed", type=int, default=32, help="of the phantom that rates are searched on")
    parser.add_argument("--patients", type=int, default=36)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timed-steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time; steps are timed one at a time")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--kept", type=Path, metavar="FILE", help="of scores, a line each; the same command goes on")
    parser.set_defaults(rates=RATES)
    asked = parser.parse_args()
    if asked.quick:
        small = {"steps": 2, "epochs": 1, "patients": 6, "size": 32, "folds": 1, "batch_size": 2, "timed_steps": 1}
        vars(asked).update(small, rates=RATES[1:3], rounds=1)
    for name, steps in (("--steps", asked.steps), ("--search-steps", asked.search_steps or asked.steps)):
        if steps % asked.epochs:
            parser.error(f"{name}: found {steps}; expected a multiple of --epochs {asked.epochs}")
    return asked


def main() -> None:
    """Print the table; ``--json`` for programs."""
    asked = options()
    torch.set_num_threads(asked.threads)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as name:
        rows = measured(asked, Path(name), console.print)
    Console().print(table_of(rows))
    summary = f"phantoms {asked.seed} and {asked.search_seed}, {asked.patients} patients, {asked.size} px, "
    summary += f"{asked.steps} steps of {asked.batch_size} (search: {asked.search_steps or asked.steps}), "
    summary += f"torch {torch.__version__}, {asked.threads} thread(s)"
    Console().print(summary)
    if asked.json:
        settings = {key: str(value) for key, value in vars(asked).items()}
        asked.json.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
