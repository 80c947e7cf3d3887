"""Peak memory and seconds of a report on a store as large as LiTS': 131 cases, 58,638 slices of 128 px.

The store is made up on disk (HU that are never written take no room), and so are the runs: five arms, three seeds,
a table of random scores each. What is measured is the real way from there: open the study, judge, score the trivial
predictors case by case, draw and write the report.

    python tests/benchmarks/bench_report.py
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from litsexp.data.splits import make_splits
from litsexp.data.store import Store
from litsexp.data.store.convert import COLUMNS
from litsexp.data.store.slices import STORE_FORMAT
from litsexp.pipeline import conclude
from litsexp.spec.reading import load_study
from litsexp.study.jobs import Job, Outcome
from litsexp.study.places import Places
from litsexp.study.session import Session, open_study

CASES, SLICES, SIZE = 131, 58_638, 128
PAPER = Path(__file__).parents[2] / "experiments" / "paper.yaml"


def make_store(folder: Path) -> Store:
    """A liver disc and, in nine cases of ten, a tumor disc in the middle third of each case's slices."""
    folder.mkdir()
    hu, labels = (
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (SLICES, SIZE, SIZE))
        for name, dtype in (("hu", "<i2"), ("labels", "|u1"))
    )
    y, x = np.mgrid[:SIZE, :SIZE]
    liver, tumor = np.hypot(x - 45, y - 60) < 28, np.hypot(x - 50, y - 62) < 6
    case = np.sort(np.arange(SLICES) % CASES)
    z = np.concatenate([np.arange(count) for count in np.bincount(case)])
    shown = (z > 150) & (z < 292)
    for row in np.flatnonzero(shown):
        labels[row] = liver + (tumor & liver if case[row] % 10 else 0)
    index = pd.DataFrame({name: np.zeros(SLICES, dtype) for name, dtype in COLUMNS.items()})
    index = index.assign(case=case, z=z, spacing_x_mm=3.0, spacing_y_mm=3.0, spacing_z_mm=1.0)
    index["liver_pixels"] = shown * int(liver.sum())
    index["tumor_pixels"] = shown * (case % 10 > 0) * int((tumor & liver).sum())
    index.to_parquet(folder / "slices.parquet", index=False)
    about = {"format": STORE_FORMAT, "fingerprint": "0" * 16, "slices": SLICES, "settings": {"size": SIZE}}
    (folder / "store.json").write_text(json.dumps({**about, "phantom": True}))
    del hu, labels
    return Store.open(folder)


def log_runs(session: Session, folder: Path) -> None:
    """Finish every cell with made-up scores of its test cases."""
    rng, client = np.random.default_rng(0), session.tracking.client

    def finish(jobs, on_epoch):  # an executor, as in study.jobs
        for job in jobs:
            assert isinstance(job, Job)
            table = pd.DataFrame({"case": job.split.test, "slices": 1})
            for name in ("dice_liver", "dice_tumor", "sensitivity_tumor", "foreground_acc", "pixel_acc"):
                table[name] = rng.uniform(0.3, 0.9, len(table))
            for name in ("tp_tumor", "fp_tumor", "fn_tumor", "tp_liver", "fp_liver", "fn_liver"):
                table[name] = rng.integers(1, 1000, len(table))
            table.to_parquet(folder / "cases.parquet", index=False)
            client.log_artifact(job.run_id, str(folder / "cases.parquet"))
            client.log_metric(job.run_id, "best/score", 0.5)
            client.set_tag(job.run_id, job.scorings[0].tag, ".")
            client.set_terminated(job.run_id, "FINISHED")
            yield job, Outcome("finished", 0.5, seconds=1.0)

    class Silent:
        def planned(self, *_: object) -> None: ...

        started = epoch = ended = planned

    session.run(finish, Silent())


def main() -> None:
    """Make store and runs, then report, and say what that took."""
    import litsexp.study.session as room

    room.check_needs = lambda *_: None  # nothing is trained here, so no weights are needed
    with tempfile.TemporaryDirectory(prefix="litsexp-bench-") as name:
        folder, study = Path(name), load_study(PAPER)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:  # its memory is not the report's
            store = other.submit(make_store, folder / "store").result()
        splits = make_splits(store.has_tumor, study.split)
        with open_study("bench", study, store, splits, Places.below(folder / "mlruns")) as session:
            log_runs(session, folder)
            before_mb, start_s = peak_mb(), time.perf_counter()
            report = conclude(session).report
            seconds = time.perf_counter() - start_s
            size_kb = report.stat().st_size / 1000
    print(f"report of {SLICES} slices, {CASES} cases, 15 runs: {seconds:.1f} s, {size_kb:.0f} kB")
    print(f"peak memory: {peak_mb():.0f} MB ({before_mb:.0f} MB before the report)")


def peak_mb() -> float:
    """Of this process so far, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
