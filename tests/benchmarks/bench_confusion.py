"""Seconds and peak memory of counting one large case's 3 x 3 confusion matrix, before and now.

Before, every pixel of a cohort became a 64-bit code at once; now some slices are counted at a time. Each way runs in a
process of its own on the same made-up masks; peak is what the process holds beyond the masks themselves.

    python tests/benchmarks/bench_confusion.py --slices 517 --size 512
"""

from __future__ import annotations

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from litsexp.evaluation.metrics import confusion


def before(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.int64]:
    """All at once, in 64 bits."""
    case, index = np.unique(np.zeros(len(truth), np.int64), return_inverse=True)
    code = truth.astype(np.int64) * 3 + prediction + index.reshape(-1, 1, 1) * 9
    return np.bincount(code.ravel(), minlength=9 * len(case)).reshape(3, 3)


def by_scikit_learn(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For comparison."""
    from sklearn.metrics import confusion_matrix

    matrix: NDArray[np.int64] = confusion_matrix(truth.ravel(), prediction.ravel(), labels=[0, 1, 2])
    return matrix


WAYS = {"before": before, "now": confusion, "scikit-learn": by_scikit_learn}


def masks(slices: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A liver with a tumor in the middle third of the slices; the prediction lies beside it."""
    truth = np.zeros((slices, size, size), np.uint8)
    liver = truth[slices // 3 : 2 * slices // 3, size // 4 : 3 * size // 4, size // 5 : 3 * size // 5]
    liver[:] = 1
    liver[:, : size // 10, : size // 10] = 2
    return truth, np.roll(truth, size // 50, axis=1)


def measure(way: str, slices: int, size: int) -> tuple[float, float, list[int]]:
    """Seconds, peak MB beyond the masks, counts."""
    truth, prediction = masks(slices, size)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_s = time.perf_counter()
    matrix = WAYS[way](truth, prediction)
    seconds = time.perf_counter() - start_s
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 1024, matrix.ravel().tolist()


def main() -> None:
    """A line a way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=517)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--ways", nargs="*", default=["before", "now"], choices=list(WAYS))
    asked = parser.parse_args()
    found = []
    for way in asked.ways:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            seconds, peak_mb, matrix = alone.submit(measure, way, asked.slices, asked.size).result()
        print(f"{way:>12}: {seconds:6.2f} s, {peak_mb:6.0f} MB beyond the masks")
        found.append(matrix)
    assert all(matrix == found[0] for matrix in found), found


if __name__ == "__main__":
    main()
