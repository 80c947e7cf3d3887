"""CPU seconds of a step of pretraining beside those of a supervised step: what `scratch + the same compute` has to be.

The supervised step is the study's own, by fastai's Learner with the paper's augmentation; both read the same slices and
train the same network on the same number of threads. Rounds alternate, so that both see the same machine; figures are
medians over the steps of all rounds but each round's first.

    python tests/benchmarks/bench_ssl.py --rounds 3 --steps 12
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from rich.console import Console
from rich.table import Table

from litsexp.data.phantom.cohort import write_cohort
from litsexp.data.phantom.patient import PhantomConfig
from litsexp.data.splits import Split, make_splits
from litsexp.data.store import Store, prepare
from litsexp.spec.cohort import DataConfig, SplitConfig
from litsexp.spec.run import RunConfig
from litsexp.training.init import Corpus
from litsexp.training.loaders import Slices
from litsexp.training.loop import build_learner
from litsexp.training.machine import default_device
from litsexp.training.ssl.course import pretrain
from litsexp.training.ssl.distortions import Distortion, distorted, with_hidden_patches

METHODS: dict[str, Distortion] = {"ssl:restoration": distorted, "ssl:masked": with_hidden_patches}


def pretraining_steps_s(run: RunConfig, store: Store, split: Split, distort: Distortion) -> list[float]:
    """CPU seconds from one distortion to the next."""
    moments: list[float] = []

    def watched(image: Any, generator: Any) -> Any:
        moments.append(time.process_time())
        return distort(image, generator)

    with tempfile.TemporaryDirectory() as name:
        corpus = Corpus(Slices(store, default_device()), split, Path(name))
        pretrain(run, 0, corpus, watched, Path(name) / "checkpoint")
    return list(np.diff(moments)[1:])


def supervised_steps_s(run: RunConfig, store: Store, split: Split) -> list[float]:
    """CPU seconds from one batch to the next."""
    moments: list[float] = []

    class Clock(Callback):
        def before_batch(self) -> None:
            if self.learn.training:
                moments.append(time.process_time())

    learner = build_learner(run, Slices(store, default_device()), split, 0)
    learner.fit(1, cbs=[Clock()])
    return list(np.diff(moments)[1:])


def main() -> None:
    """Print a table of step times and how many supervised steps a pretraining is worth; ``--json`` for programs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--ssl-steps", type=int, default=500, help="of the pretraining whose worth is told")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    base = RunConfig(init="scratch", architecture="unet", encoder_depth=4, decoder_width=128, ssl_steps=asked.steps)
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        cohort = write_cohort(Path(name) / "phantom", PhantomConfig(9, 0, max(96, asked.size)), processes=1)
        store = prepare(cohort, Path(name) / "stores", DataConfig(size=asked.size), processes=1)
        split = make_splits(store.has_tumor, SplitConfig(folds=3))[0]
        for _ in range(asked.rounds):
            for method, distort in METHODS.items():
                taken.setdefault(method, []).extend(pretraining_steps_s(base, store, split, distort))
            for batch in asked.batch_sizes:
                run = base.changed({"batch_size": batch, "steps_per_epoch": asked.steps})
                taken.setdefault(f"supervised, batch {batch}", []).extend(supervised_steps_s(run, store, split))
    step_s = {what: statistics.median(times) for what, times in taken.items()}
    worth = {
        method: {batch: step_s[method] / step_s[f"supervised, batch {batch}"] for batch in asked.batch_sizes}
        for method in METHODS
    }
    if asked.json:
        print(json.dumps({"step_s": step_s, "ratio": worth}))
        return
    table = Table("step", "CPU ms", *(f"= steps of batch {b}" for b in asked.batch_sizes))
    for what, seconds in step_s.items():
        ratios = [f"{ratio:.2f}" for ratio in worth.get(what, {}).values()]
        table.add_row(what + f", batch {base.ssl_batch_size}" * (what in METHODS), f"{1000 * seconds:.0f}", *ratios)
    Console().print(table, f"torch {torch.__version__}, {asked.threads} thread, {asked.size} px")
    for method, ratios in worth.items():
        told = ", ".join(f"{ratio * asked.ssl_steps:.0f} of batch {batch}" for batch, ratio in ratios.items())
        Console().print(f"{asked.ssl_steps} steps of {method} cost as much CPU time as supervised steps: {told}")


if __name__ == "__main__":
    main()
