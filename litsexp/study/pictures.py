"""Which slices of a run are drawn, and the drawing: fixed ones during training, best and worst cases at its end."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL.Image import Image

from litsexp.data.store import Store
from litsexp.evaluation.overlays import overlay
from litsexp.training.inputs import channels

SHOWN_WINDOW = "wide"  # of every picture, whatever window the arm sees
WATCHED_SLICES = 2  # validation slices drawn at the first, a middle and the last epoch
SHOWN_CASES = 2  # best and worst cases drawn at the end, each
TALLEST = "tallest.npz"  # beside a scoring's table of cases: what the run makes of each case's tallest slice


def draw_slice(store: Store, row: int, prediction: NDArray[np.uint8], what: str, external: bool = False) -> Image:
    """Overlay of one stored slice: image, truth, prediction, errors."""
    title = f"{slice_title(store, row, external)}: {what}"
    return overlay(gray_of(store, row), np.asarray(store.labels[row]), prediction, title)


def gray_of(store: Store, row: int) -> NDArray[np.float32]:
    """One stored slice (size, size) in [0, 1], through the window of every picture."""
    hu = torch.from_numpy(np.array(store.hu[row])).float()[None, None]
    gray: NDArray[np.float32] = channels(hu, SHOWN_WINDOW)[0, 0].numpy()
    return gray


def draw_extremes(
    store: Store,
    rows: NDArray[np.int64],
    prediction: NDArray[np.uint8],
    cases: pd.DataFrame,
    cell: str,
    folder: Path,
    external: bool = False,
) -> None:
    """Write overlays of the best and worst cases by tumor Dice (liver Dice where no case has a tumor) to a folder.

    ``prediction`` labels these ``rows`` of the store; ``cases`` are their scores; ``cell`` names the run.
    """
    folder.mkdir(exist_ok=True)
    numbers = store.index["case"].to_numpy()[rows]
    metric = "dice_tumor" if cases["dice_tumor"].notna().any() else "dice_liver"
    ranked = cases.dropna(subset=[metric]).sort_values([metric, "case"], kind="stable")
    count = min(SHOWN_CASES, len(ranked) // 2) or min(1, len(ranked))
    shown = [("worst", ranked.head(count)), ("best", ranked.tail(count) if len(ranked) > 1 else ranked.head(0))]
    for rank, part in shown:
        for case, score in zip(part["case"], part[metric], strict=True):
            row = int(tallest(store, rows[numbers == case])[0])
            labels = prediction[np.flatnonzero(rows == row)[0]]
            picture = draw_slice(store, row, labels, f"{metric} of the case {score:.2f} · {cell}", external)
            picture.save(folder / f"{rank}_case_{case}.png", optimize=False)


def write_tallest(store: Store, rows: NDArray[np.int64], prediction: NDArray[np.uint8], folder: Path) -> None:
    """Keep what ``prediction`` of these rows says of each case's tallest slice, so that runs can be laid side by side.

    ``rows`` (n,) of the store, ``labels`` (n, size, size); a few kilobytes.
    """
    shown = tallest(store, rows)
    at = [int(np.flatnonzero(rows == row)[0]) for row in shown]
    np.savez_compressed(folder / TALLEST, rows=shown, labels=prediction[at])


def read_tallest(content: bytes) -> dict[int, NDArray[np.uint8]]:
    """Row of the store -> labels (size, size), of what ``write_tallest`` kept."""
    with np.load(io.BytesIO(content), allow_pickle=False) as kept:
        return dict(zip(kept["rows"].tolist(), kept["labels"], strict=True))


def slice_title(store: Store, row: int, external: bool = False) -> str:
    """``case 3, z 12``, and before it ``phantom`` or ``external`` where the patient is that."""
    index = store.index.iloc[row]
    kind = "external " * external + "phantom " * store.phantom
    return f"{kind}case {int(index['case'])}, z {int(index['z'])}"


def fixed_slices(store: Store, among: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the slices to watch: the cases' tallest tumors among these rows, whatever any run makes of them."""
    rows = tallest(store, among)
    tumor = store.index["tumor_pixels"].to_numpy()[rows]
    return rows[np.argsort(-tumor, kind="stable")][:WATCHED_SLICES]


def tallest(store: Store, among: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each case of these rows, ascending, that of the slice with most tumor (most liver where there is none)."""
    table = store.index.iloc[among][["case", "tumor_pixels", "liver_pixels"]]
    ranked = table.sort_values(["case", "tumor_pixels", "liver_pixels"], ascending=[True, False, False], kind="stable")
    rows: NDArray[np.int64] = ranked.groupby("case", sort=True).head(1).index.to_numpy(np.int64)
    return rows
