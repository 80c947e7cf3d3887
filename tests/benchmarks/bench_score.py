"""Seconds of the ways to measure surface distances of a liver-sized pair: scipy's k-d tree, and distance transforms.

Every way starts from the same surface voxels in the same box. ``edt`` is measured where that package is installed.

    python tests/benchmarks/bench_score.py --slices 200 --size 300
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from litsexp.evaluation.surfaces import EDGES, directed, surface

Mask = NDArray[np.bool_]
Way = Callable[[Mask, Mask], list[NDArray[np.float64]]]
SPACING_MM = (0.8, 0.78, 0.78)


def livers(slices: int, size: int, moved: int) -> tuple[Mask, Mask]:
    """A lumpy ellipsoid that fills the box, and the same one moved by so many voxels."""
    z, y, x = (np.linspace(-1.1, 1.1, n, dtype=np.float32) for n in (slices, size, size))
    lumps = 0.1 * np.sin(9 * x) * np.cos(7 * y)[:, None] * np.cos(5 * z)[:, None, None]
    truth: Mask = x**2 + (y**2)[:, None] + (z**2)[:, None, None] + lumps < 0.9
    return truth, np.roll(truth, moved, axis=2)


def by_tree(truth: Mask, prediction: Mask) -> list[NDArray[np.float64]]:
    """As litsexp does it."""
    return list(directed(truth, prediction, SPACING_MM, EDGES))


def by_transform(transform: Callable[[Mask], NDArray[np.float64]]) -> Way:
    """A distance transform of the background of each surface, read at the other's voxels."""

    def way(truth: Mask, prediction: Mask) -> list[NDArray[np.float64]]:
        edges = [surface(mask, EDGES) for mask in (truth, prediction)]
        return [transform(~edges[1])[edges[0]], transform(~edges[0])[edges[1]]]

    return way


def ways() -> dict[str, Way]:
    """What there is to compare."""
    found = {
        "scipy cKDTree": by_tree,
        "scipy EDT": by_transform(lambda mask: ndimage.distance_transform_edt(mask, SPACING_MM)),
    }
    if importlib.util.find_spec("edt"):
        import edt

        found["edt"] = by_transform(lambda mask: edt.edt(mask, anisotropy=SPACING_MM, black_border=False))
    return found


def main() -> None:
    """A line a way and move; all of them have to agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--moved", type=int, nargs="*", default=[1, 4, 20])
    asked = parser.parse_args()
    for moved in asked.moved:
        truth, prediction = livers(asked.slices, asked.size, moved)
        sums = []
        for name, way in ways().items():
            start_s = time.process_time()
            found = way(truth, prediction)
            seconds = time.process_time() - start_s
            sums.append(sum(float(mm.sum()) for mm in found))
            print(f"moved {moved:2} voxels, {sum(map(len, found))} surface voxels, {name:>13}: {seconds:5.2f} s")
        assert np.allclose(sums, sums[0], rtol=1e-4), sums


if __name__ == "__main__":
    main()
