"""What the networks of a study see: the first batch of each arm's training, by training's own loader, as a picture."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from litsexp.data.splits import make_splits
from litsexp.data.store import Store
from litsexp.evaluation.inputs import Band, Seen, View, input_sheet
from litsexp.spec.catalog import AUGMENTATIONS, ENCODINGS, WINDOWS
from litsexp.spec.design import Arm, Cell, arms
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.spec.study import StudyConfig
from litsexp.spec.tables import nearest, one_of
from litsexp.study.pictures import slice_title
from litsexp.training.inputs import denormalise
from litsexp.training.loaders import Slices, TrainLoader, loaders_of


def look(study: StudyConfig, store: Store, name: str, arm: str | None = None, cases: int = 2) -> Image:
    """Slices of the first batch of the first epoch of fold 0 with the first seed, as each arm's network gets them.

    Arms that get the same, bit for bit, are drawn once. Of the batch those slices of different cases are drawn that
    show most tumor. ``name`` is the study's; ``arm`` the only one to look at; ``cases`` the most slices an arm.

    Raises:
        LitsexpError: an arm that the study has not.
    """
    split, seed = make_splits(store.has_tumor, study.split)[0], study.seeds[0]
    slices = Slices(store, torch.device("cpu"))
    same: dict[bytes, tuple[list[str], Band]] = {}
    for one in asked_arms(study, arm):
        loader, _ = loaders_of(one.run, slices, split, Cell(one, 0, seed).random_seed)
        image, labels = next(iter(loader))
        seen = image.numpy().tobytes() + labels.numpy().tobytes()
        names, _ = same.setdefault(seen, ([], band_of(one, loader, (image, labels), cases)))
        names.append(one.name)
    bands = [Band(names, band.settings, band.channels, band.augmented, band.slices) for names, band in same.values()]
    where = f"fold 0, seed {seed}, first batch of the first epoch: the slices with most tumor in it"
    phantom = "phantom, no real patients · " if store.phantom else ""
    return input_sheet(f"{name}: what the networks see", f"{phantom}{store.size} px · {where}", bands)


def asked_arms(study: StudyConfig, name: str | None) -> Sequence[Arm]:
    """All arms of the study, or the one of this name."""
    every = arms(study)
    names = [arm.name for arm in every]
    if name is not None and name not in names:
        raise LitsexpError(f"--arm: found {name!r}; expected {one_of(map(repr, names))}{nearest(name, names)}")
    return [arm for arm in every if name in (None, arm.name)]


def band_of(arm: Arm, loader: TrainLoader, batch: tuple[Tensor, Tensor], cases: int) -> Band:
    """Some slices of an arm's first batch, which came from the loader, beside the same ones not augmented."""
    run, rows = arm.run, loader.order(0)[0]
    plain = loader.inputs(*loader.slices.read(rows))
    channels = channel_names(run)
    if all(torch.equal(image[:, :1].expand_as(image), image) for image, _ in (plain, batch)):
        channels = channels[:1]
    seen = [
        Seen(
            slice_title(loader.slices.store, int(rows[place])),
            *(view_of(*pair, place, len(channels)) for pair in (plain, batch)),
        )
        for place in most_tumor(loader.slices.store, rows, cases)
    ]
    settings = f"encoding {run.encoding} · window {run.window} · augment {run.augment}"
    augmented = f"in training: {AUGMENTATIONS[run.augment].words}"
    return Band([arm.name], settings, channels, augmented, seen)


def view_of(image: Tensor, labels: Tensor, place: int, channels: int) -> View:
    """One slice of a batch, for people."""
    shares = denormalise(image[place, :channels]).clamp(0, 1).numpy()
    return View(shares, labels[place].to(torch.uint8).numpy())


def most_tumor(store: Store, rows: NDArray[np.int64], count: int) -> list[int]:
    """Places in ``rows`` of the slices of different cases with most tumor (then most liver), ``count`` at most."""
    index = store.index.iloc[rows].reset_index(drop=True)
    ranked = index.sort_values(["tumor_pixels", "liver_pixels"], ascending=False, kind="stable")
    return [int(place) for place in ranked.drop_duplicates("case").index[:count]]


def channel_names(run: RunConfig) -> list[str]:
    """What each channel shows: a window in HU from black to white, or what a registered row has made of it."""
    if ENCODINGS.of(run.encoding).windowed:
        return ["channel 1", "channel 2", "channel 3"]
    views = WINDOWS[run.window].views
    return [
        "histogram-equalised HU"
        if isinstance(view, str)
        else f"{view[1] - view[0] / 2:g} to {view[1] + view[0] / 2:g} HU"
        for view in (views if len(views) > 1 else [*views] * 3)
    ]
