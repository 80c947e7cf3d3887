"""How fast a store is built, beside two baselines timed in the same minutes: the notebook's way, and a floor.

Ratios of one run can be compared between machines; seconds cannot. Every round times the baselines and litsexp one
after the other on the same files. Of each the fastest round counts: other load on the machine can only add to it.
The notebook's way: get_fdata, rot90, three channels a slice with equalisation, JPEG. The floor: decompress both files,
numpy's mean of blocks, and nothing else; tuned: with litsexp's own sums of blocks. Takes some minutes, and 300 MB in
the temporary folder.

    python tests/benchmarks/bench_prepare.py --rounds 3
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from litsexp.data.ct.windows import windowed
from litsexp.data.parallel import Progress
from litsexp.data.store import prepare
from litsexp.data.store.resize import Resize
from litsexp.display import progress_bar
from litsexp.spec.cohort import StoreConfig

SIDE, SLICES, SIZE = 512, 120, 128
ENDINGS = (".nii", ".nii.gz")
FEW = 8  # cases of a store, so that what it costs once is shared as in life
NOTEBOOK_QUALITY, EQUALISE_BREAKS = 90, 100
HEADER_BYTES = 352
FIGURES = {  # of one kind of file, seconds being those of one case: what it is, and how it is shown
    "litsexp_s": ("litsexp, one process", "{:.2f} s"),
    "notebook_s": ("the notebook's way", "{:.2f} s"),
    "floor_s": ("the floor", "{:.2f} s"),
    "tuned_floor_s": ("the tuned floor", "{:.2f} s"),
    "over_notebook": ("times as fast as the notebook's way", "{:.1f}"),
    "over_floor": ("share of the floor's speed", "{:.2f}"),
    "over_tuned_floor": ("share of the tuned floor's speed", "{:.2f}"),
    "cases": ("cases for one process and two", "{:d}"),
    "two_processes": ("two processes, times as fast as one, start included", "{:.2f}"),
}


def bench_prepare(rounds: int, seconds: float, progress: Progress) -> list[dict[str, Any]]:
    """``FIGURES`` of one made-up case of 512 x 512 x 120 voxels to 128 px, all slices, for each ``ending`` of a file.

    Each comparison has ``rounds`` after one that warms up. Where one process is compared with two it works for about
    ``seconds``: the case is there as often as that takes (links, not copies).
    """
    hu, labels = make_volume()
    done, total = itertools.count(1), 2 * (rounds + 1) * len(ENDINGS)

    def fastest(*ways: Callable[[], float]) -> list[float]:
        """Of each way the seconds of its fastest round."""
        table = []
        for _ in range(rounds + 1):
            table.append([way() for way in ways])
            progress(next(done), total)
        return [min(times) for times in zip(*table[1:], strict=True)]

    with tempfile.TemporaryDirectory(prefix="litsexp-bench-") as name:
        pairs = {ending: _write_case(Path(name, ending, "one"), hu, labels, ending) for ending in ENDINGS}
        return [{"ending": ending, **_figures(pair, seconds, fastest)} for ending, pair in pairs.items()]


def make_volume() -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """HU and labels (x, y, z) of an elliptic body with a liver, tumors and correlated noise of 20 HU; always the same.

    What it shows hardly matters; how well it compresses does: its gzip has about the size of a real scan's.
    """
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(*[np.linspace(-1, 1, SIDE, dtype=np.float32)] * 2, indexing="ij")
    body, liver = np.hypot(x / 0.8, y / 0.6) < 1, np.hypot((x - 0.3) / 0.35, (y - 0.05) / 0.4) < 1
    tumor = np.hypot((x - 0.35) / 0.08, (y - 0.1) / 0.08) < 1
    clean = np.select([tumor, liver, body], [65.0, 105.0, 40.0], -1000.0).astype(np.float32)
    noise = ndimage.uniform_filter(rng.standard_normal((SLICES, SIDE, SIDE), np.float32), (1, 2, 2))
    hu = np.rint(clean + 40 * noise).clip(-1024, None).astype(np.int16)  # scanners store no less
    labels = np.zeros(hu.shape, np.uint8)
    labels[SLICES // 4 : 3 * SLICES // 4] = liver.astype(np.uint8) + tumor
    return hu.transpose(1, 2, 0), labels.transpose(1, 2, 0)


def notebook_way(volume: Path, segmentation: Path, folder: Path) -> None:
    """What public notebooks do with a case: whole volumes as float64, turned, three channels a slice, JPEG and PNG."""
    folder.mkdir()
    images, masks = (np.rot90(nib.load(path).get_fdata()) for path in (volume, segmentation))
    for z in range(images.shape[2]):
        image, hu = images[..., z], images[..., z].astype(np.float32)
        views = [windowed(hu, 150, 30), windowed(hu, 200, 60), _equalised(image)]
        picture = np.rint(255 * np.stack(views, axis=-1)).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"slice_{z}.jpg", quality=NOTEBOOK_QUALITY)
        Image.fromarray(masks[..., z].astype(np.uint8)).save(folder / f"slice_{z}_mask.png")


def floor_way(volume: Path, segmentation: Path, means: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Decompress both files and take block means of every plane: no checks, no orientation, nothing written."""
    for path, dtype in ((volume, np.int16), (segmentation, np.uint8)):
        plane = bytearray(SIDE * SIDE * np.dtype(dtype).itemsize)
        with igzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            file.read(HEADER_BYTES)
            while file.readinto(plane):
                means(np.frombuffer(plane, dtype).reshape(SIDE, SIDE))


def block_means(plane: NDArray[Any]) -> NDArray[np.float32]:
    """Means of 4 x 4 pixels as numpy's users write it."""
    k = SIDE // SIZE
    means: NDArray[np.float32] = plane.reshape(SIZE, k, SIZE, k).mean(axis=(1, 3), dtype=np.float32)
    return means


def tuned_means(plane: NDArray[Any]) -> NDArray[np.float32]:
    """The same, several times as fast: strips are added up in the pixels' own type."""
    resize = Resize(SIDE, SIZE)
    return np.asarray(resize.sums(plane) / np.float32(resize.area), np.float32)


def _equalised(image: NDArray[np.float64]) -> NDArray[np.float32]:
    """Each pixel's place among the slice's quantiles, in [0, 1]."""
    breaks = np.unique(np.quantile(image, np.linspace(0, 1, EQUALISE_BREAKS + 1)))
    return np.interp(image, breaks, np.linspace(0, 1, len(breaks))).astype(np.float32)


def _figures(pair: tuple[Path, Path], seconds: float, fastest: Callable[..., list[float]]) -> dict[str, Any]:
    """Time every way on one case's two files."""
    few, many, stores, jpeg = (pair[0].parents[1] / name for name in ("few", "many", "stores", "jpeg"))
    data = StoreConfig(size=SIZE, slices="all")
    _link_cases(few, pair, FEW)
    floor_s, tuned_s, few_s, notebook_s = fastest(
        partial(_timed, None, floor_way, *pair, block_means),
        partial(_timed, None, floor_way, *pair, tuned_means),
        partial(_timed, stores, prepare, few, stores, data, 1),
        partial(_timed, jpeg, notebook_way, *pair, jpeg),
    )
    ours_s = few_s / FEW
    case_s = {"litsexp_s": ours_s, "notebook_s": notebook_s, "floor_s": floor_s, "tuned_floor_s": tuned_s}
    over = {f"over_{way}": case_s[f"{way}_s"] / ours_s for way in ("notebook", "floor", "tuned_floor")}
    cases = max(2, round(seconds / ours_s))
    _link_cases(many, pair, cases)
    one_s, two_s = fastest(*(partial(_timed, stores, prepare, many, stores, data, n) for n in (1, 2)))
    return {**case_s, **over, "two_processes": one_s / two_s, "cases": cases}


def _write_case(folder: Path, hu: NDArray[np.int16], labels: NDArray[np.uint8], ending: str) -> tuple[Path, Path]:
    """The case in a folder of its own, stored LPS; its two files."""
    folder.mkdir(parents=True)
    pair = (folder / f"volume-0{ending}", folder / f"segmentation-0{ending}")
    for path, array in zip(pair, (hu, labels), strict=True):
        nib.save(nib.Nifti1Image(array, np.diag([-0.75, -0.75, 2.5, 1])), path)
    return pair


def _link_cases(folder: Path, pair: tuple[Path, Path], cases: int) -> None:
    """As many cases, each a link to the one."""
    folder.mkdir()
    for path in pair:
        for number in range(cases):
            (folder / path.name.replace("-0", f"-{number}")).hardlink_to(path)


def _timed(leaves: Path | None, work: Callable[..., object], *args: Any) -> float:
    """Seconds that the work takes; the folder that it leaves is removed."""
    start_s = time.perf_counter()
    work(*args)
    seconds = time.perf_counter() - start_s
    if leaves is not None:
        shutil.rmtree(leaves)
    return seconds


def main() -> None:
    """Print a table; ``--json`` for programs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison")
    parser.add_argument(
        "--seconds", type=float, default=20, help="that one process works where it is compared with two"
    )
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with progress_bar("bench") as advance:
        speeds = bench_prepare(asked.rounds, asked.seconds, advance)
    if asked.json:
        print(json.dumps(speeds, indent=1))
        return
    table = Table(title="one case of 512 x 512 x 120 to 128 px, all slices", box=None, pad_edge=False)
    table.add_column("fastest of the rounds")
    for speed in speeds:
        table.add_column(speed["ending"], justify="right")
    for name, (words, form) in FIGURES.items():
        table.add_row(words, *(form.format(speed[name]) for speed in speeds))
    Console().print(table)


if __name__ == "__main__":
    main()
