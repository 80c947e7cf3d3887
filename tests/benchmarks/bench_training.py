"""Training images/s of litsexp, beside the same U-Net in a bare PyTorch loop on tensors in memory.

Both sides train the same architecture from the same weights, in the same precision, memory layout, batch size and loss,
with fused AdamW. The bare loop has its input windowed and normalised beforehand and only steps. litsexp reads
Hounsfield units from the store, windows, equalises, augments, schedules and measures. Rounds alternate, so that both
see the same machine; the figure is the median of the rounds' ratios.

    python tests/benchmarks/bench_training.py --rounds 5 --steps 12
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from litsexp.data.phantom.cohort import write_cohort
from litsexp.data.phantom.patient import PhantomConfig
from litsexp.data.splits import Split, make_splits
from litsexp.data.store import Store, prepare
from litsexp.spec.cohort import DataConfig, SplitConfig
from litsexp.spec.run import RunConfig
from litsexp.training.architectures import build_network
from litsexp.training.course import Epoch
from litsexp.training.loaders import Slices, TrainLoader
from litsexp.training.loop import train
from litsexp.training.losses import CrossEntropyDice
from litsexp.training.machine import MixedPrecision, default_device


class FirstEpochs:
    """A listener that keeps each epoch's images/s, as litsexp logs it."""

    def __init__(self) -> None:
        self.images_per_s: list[float] = []

    def epoch(self, epoch: Epoch) -> bool:
        self.images_per_s.append(epoch.metrics["images_per_s"])
        return True


def litsexp_images_per_s(run: RunConfig, store: Store, split: Split) -> float:
    """The last epoch of a real run (the first one warms up)."""
    listener = FirstEpochs()
    train(run, store, split, 0, listener)
    return listener.images_per_s[-1]


def bare_images_per_s(run: RunConfig, store: Store, split: Split) -> float:
    """Forward, loss, backward, step on batches that lie ready in memory; one warm-up epoch, one timed."""
    device = default_device()
    steps = run.steps_per_epoch or 1
    loader = TrainLoader(Slices(store, device), store.rows_of(split.train), run, steps, seed=0)
    batches = [(image.contiguous(memory_format=torch.channels_last), labels) for image, labels in loader]
    model = MixedPrecision(build_network(run, store.size, seed=0)[0], run, device).train()
    loss_of = CrossEntropyDice(run.dice_weight)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    for _ in range(2):
        start_s = time.perf_counter()
        for image, labels in batches:
            loss_of(model(image), labels).backward()
            optimiser.step()
            optimiser.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start_s
    return steps * run.batch_size / seconds


def main() -> None:
    """Print a table of the rounds and the median ratio; ``--json`` for programs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--augment", default="paper")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    run = RunConfig(augment=asked.augment, epochs=2, steps_per_epoch=asked.steps, batch_size=asked.batch_size)
    with tempfile.TemporaryDirectory() as name:
        cohort = write_cohort(Path(name) / "phantom", PhantomConfig(9, 0, max(96, asked.size)), processes=1)
        store = prepare(cohort, Path(name) / "stores", DataConfig(size=asked.size), processes=1)
        split = make_splits(store.has_tumor, SplitConfig(folds=3))[0]
        pairs = [
            (litsexp_images_per_s(run, store, split), bare_images_per_s(run, store, split)) for _ in range(asked.rounds)
        ]
    ratios = [ours / bare for ours, bare in pairs]
    if asked.json:
        print(json.dumps({"pairs": pairs, "ratio": statistics.median(ratios)}))
        return
    table = Table("round", "litsexp images/s", "bare loop images/s", "ratio")
    for number, ((ours, bare), ratio) in enumerate(zip(pairs, ratios, strict=True), start=1):
        table.add_row(str(number), f"{ours:.1f}", f"{bare:.1f}", f"{ratio:.3f}")
    summary = f"median ratio {statistics.median(ratios):.3f} (torch {torch.__version__}, {asked.threads} thread)"
    Console().print(table, summary)


if __name__ == "__main__":
    main()
