"""Epoch time of an input encoding that is kept beside the store, against Hounsfield units.

Both arms train the same network on the same phantom in the same process. Epochs alternate, so that both see the same
machine, and the order within a round alternates, too; each is timed whole: training and validation. Before the first
round the encoding is made, which is timed apart: it is paid once a store, not once a run.

    python tests/benchmarks/bench_encoding.py --encoding jpeg:90 --rounds 9 --steps 24
    python tests/benchmarks/bench_encoding.py --size 128 --architecture unet --decoder-width 128
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from litsexp.data.phantom.cohort import write_cohort
from litsexp.data.phantom.patient import PhantomConfig
from litsexp.data.splits import make_splits
from litsexp.data.store import Store, prepare
from litsexp.spec.cohort import DataConfig, SplitConfig
from litsexp.spec.run import RunConfig
from litsexp.training.kept import kept_images, kept_path
from litsexp.training.loaders import Slices
from litsexp.training.loop import build_learner
from litsexp.training.machine import default_device


def epoch_s(learner: Any) -> float:
    """Seconds of one epoch, training and validation."""
    start_s = time.perf_counter()
    learner.fit(1, lr=1e-3)
    if learner.dls.train.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start_s


def making_s(store: Store, run: RunConfig) -> float:
    """Seconds to encode the store and to write the file."""
    start_s = time.perf_counter()
    kept_images(store, run)
    assert kept_path(store, run).is_file()
    return time.perf_counter() - start_s


def rounds_of(arms: dict[str, RunConfig], store: Store, rounds: int) -> list[tuple[float, float]]:
    """Seconds of an epoch of either arm, round after round; one round before them warms up."""
    split = make_splits(store.has_tumor, SplitConfig(folds=3))[0]
    slices = Slices(store, default_device())
    learners = {name: build_learner(run, slices, split, 0) for name, run in arms.items()}
    measured = []
    for number in range(rounds + 1):
        order = list(learners) if number % 2 else list(learners)[::-1]
        seconds = {name: epoch_s(learners[name]) for name in order}
        plain, encoded = (seconds[name] for name in learners)
        measured.append((plain, encoded))
    return measured[1:]


def main() -> None:
    """Print a table of the rounds and the median ratio; ``--json`` for programs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoding", default="jpeg:90")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--augment", default="paper")
    parser.add_argument("--architecture", default="unet")
    parser.add_argument("--decoder-width", type=int, default=128)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    width = asked.decoder_width if asked.architecture == "unet" else None
    network = {"architecture": asked.architecture, "decoder_width": width, "augment": asked.augment}
    hu = RunConfig(**network, steps_per_epoch=asked.steps, batch_size=asked.batch_size)
    arms = {"hu": hu, asked.encoding: hu.changed({"encoding": asked.encoding})}
    with tempfile.TemporaryDirectory() as name:
        config = PhantomConfig(asked.patients, 0, max(96, asked.size))
        cohort = write_cohort(Path(name) / "phantom", config, processes=1)
        store = prepare(cohort, Path(name) / "stores", DataConfig(size=asked.size), processes=1)
        made_s, slices = making_s(store, arms[asked.encoding]), len(store.index)
        pairs = rounds_of(arms, store, asked.rounds)
    ratio = statistics.median(encoded / plain for plain, encoded in pairs)
    if asked.json:
        print(json.dumps({"pairs": pairs, "ratio": ratio, "made_s": made_s, "slices": slices}))
        return
    table = Table("round", "hu, s an epoch", f"{asked.encoding}, s an epoch", "ratio")
    for number, (plain, encoded) in enumerate(pairs, start=1):
        table.add_row(str(number), f"{plain:.2f}", f"{encoded:.2f}", f"{encoded / plain:.3f}")
    made = f"made once: {slices} slices of {asked.size} px in {made_s:.2f} s, {1000 * made_s / slices:.2f} ms a slice"
    Console().print(table, f"median ratio {ratio:.3f} (torch {torch.__version__}, {asked.threads} thread)\n{made}")


if __name__ == "__main__":
    main()
