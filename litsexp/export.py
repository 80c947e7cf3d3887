"""A slice store as JPEG or PNG images with PNG masks, the way the paper stores them, for training code of one's own.

The images are what litsexp's own models see before augmentation and normalisation: the stored Hounsfield units through
the training's own channels, which are one window, or ``notebook`` (R liver window, G custom window, B the slice's own
histogram-equalised HU). A single window makes a gray image (mode L), which loaders that ask for RGB turn into three
equal channels. Masks are PNG, mode L, with the labels 0, 1 and 2 themselves: black to the eye.
"""

import json
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from pydantic import Field, model_validator

from litsexp.data.ct.layout import find_cases
from litsexp.data.parallel import Progress, map_parallel
from litsexp.data.splits import Split, make_splits
from litsexp.data.store import Store
from litsexp.data.store.build import check_room
from litsexp.evaluation.overlays import to_png
from litsexp.files import whole_folder
from litsexp.spec.base import Strict
from litsexp.spec.catalog import WINDOWS
from litsexp.spec.cohort import SplitConfig
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import known
from litsexp.training.jpeg import image_of, pictures, to_jpeg

EXPORT_FORMAT = 2  # raise it when the same input would be exported differently
PAPER_SPLIT = SplitConfig(train=0.7, valid=0.15, test=0.15)
ENDINGS = {"jpeg": "jpg", "png": "png"}
_BATCH = 16  # slices windowed at once
_MASK_BYTES = 8192  # with what both files lose to whole blocks of the disk

_README = """\
Axial CT slices of {patients} patients, {size} x {size} pixels, exported by litsexp.

images/volume-N_slice_K.{ending}: N is the case, K the slice, counted from 0, the most inferior one of the volume
masks/volume-N_slice_K_mask.png: gray values 0 background, 1 liver, 2 tumor; they look black in a viewer
{split}slices.csv: a row an image: files, case, z (that is K), pixels of liver (tumor included) and of tumor, spacing
export.json: settings, versions, source files, and what reading each case showed

Row 0 is anterior, column 0 the patient's right. An image holds round(255 * channel) of HU that were first resized by
area averages. Windows (width, level) show level - width/2 .. level + width/2 HU as 0 .. 1: liver (150, 30),
custom (200, 60), wide (400, 40). notebook: R = liver, G = custom, B = the slice's HU, histogram-equalised (100 bins).
This export's window: {window}.

{licence}
"""
_SPLIT = "split.csv: a row a patient; slices of one patient belong on one side\n"
_LICENCE = (
    "The files derive from the CT volumes they were made of and stay under their licence. LiTS: CC BY-NC-SA 4.0\n"
    "(the Medical Segmentation Decathlon's copy: CC BY-SA 4.0): name the source, share under the same terms."
)
_SYNTHETIC = "SYNTHETIC: computed by litsexp, no patient and no scanner. Say so wherever results are shown."


class ExportConfig(Strict):
    """What the files look like; ValidationError for values that do not fit."""

    format: Literal["jpeg", "png"] = "jpeg"  # of the images; masks are always PNG
    quality: int = Field(100, ge=1, le=100)  # of JPEG; the notebook's is 90
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:4:4"  # of JPEG's color; the notebook's 4:2:0 mixes channels
    window: Annotated[str, known(WINDOWS)] = "notebook"
    split: SplitConfig | None = PAPER_SPLIT  # a holdout by patient

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.format == "png" and (self.quality, self.subsampling) != (100, "4:4:4"):
            found = f"png, which loses nothing, with quality {self.quality} and subsampling {self.subsampling}"
            raise ValueError(f"format: found {found}; expected jpeg, or neither of them")
        if self.split is not None and self.split.folds is not None:
            raise ValueError("split: found folds; expected one holdout: train, valid and test")
        return self

    @property
    def channels(self) -> int:
        """Of an image: three views are color, one is gray."""
        return len(WINDOWS[self.window].views)


def refuse_early(root: Path, out: Path, config: ExportConfig) -> None:
    """LitsexpError where an export of the cases under ``root`` is bound to be refused: before their store is built."""
    _check_unused(out)
    cases = find_cases(root)
    if config.split is not None:
        _split_of({case.number: True for case in cases}, config.split)


def export(
    store: Store, out: Path, config: ExportConfig, processes: int | None = None, progress: Progress | None = None
) -> Split | None:
    """Write every slice of the store to ``out``: images, masks, split.csv, slices.csv, export.json and README.txt.

    All of it or nothing, and the same bytes from the same store, whatever ``processes`` is. A patient has tumor where
    an exported mask shows any. ``progress(done, total)`` is called after each case. The result is the split, if any.

    Raises:
        LitsexpError: ``out`` holds something; too few patients for the split; a full disk. ``out`` is as before then.
    """
    _check_unused(out)
    split = None if config.split is None else _split_of(store.has_tumor, config.split)
    try:
        with whole_folder(out.resolve()) as temporary:
            needed_bytes = len(store.index) * (store.size**2 * config.channels + _MASK_BYTES)
            check_room(temporary.parent, needed_bytes, "the export", "a smaller size")
            for folder in ("images", "masks"):
                (temporary / folder).mkdir()
            work = partial(_write_case, store=store, folder=temporary, config=config)
            map_parallel(work, store.cases, processes, progress)
            _write_tables(store, temporary, config, split)
            _write_about(store, temporary, config)
    except OSError as error:
        raise LitsexpError(
            f"{out}: cannot write the export ({error.strerror or error}); "
            "expected a folder to write to with enough room; free space, or name another one"
        ) from None
    return split


def encode(picture: NDArray[np.uint8], config: ExportConfig) -> bytes:
    """A picture (row, column, 1 or 3 channels) as a JPEG or PNG file, gray for one channel."""
    if config.format == "png":
        return to_png(image_of(picture))
    return to_jpeg(picture, config.quality, config.subsampling)


def _names(case: int, z: int, config: ExportConfig) -> tuple[str, str]:
    """Where a slice's image and its mask lie in the export."""
    stem = f"volume-{case}_slice_{z}"
    return f"images/{stem}.{ENDINGS[config.format]}", f"masks/{stem}_mask.png"


def _write_case(case: int, store: Store, folder: Path, config: ExportConfig) -> None:
    """One case's images and masks, some slices at a time."""
    rows, masks = store.rows_of([case]), store.masks(case)
    slices = store.index["z"].to_numpy()[rows]
    for start in range(0, len(rows), _BATCH):
        batch = slice(start, start + _BATCH)
        shown = pictures(store.hu[rows[batch]], config.window)
        for z, picture, mask in zip(slices[batch], shown, masks[batch], strict=True):
            image_name, mask_name = _names(case, z, config)
            (folder / image_name).write_bytes(encode(picture, config))
            (folder / mask_name).write_bytes(to_png(Image.fromarray(mask)))


def _write_tables(store: Store, folder: Path, config: ExportConfig, split: Split | None) -> None:
    """slices.csv and, where patients are split, split.csv."""
    names = [_names(case, z, config) for case, z in zip(store.index["case"], store.index["z"], strict=True)]
    slices = store.index.copy()
    slices.insert(0, "file", [image for image, _ in names])
    slices.insert(1, "mask", [mask for _, mask in names])
    if split is not None:
        side = {case: name for name in ("train", "valid", "test") for case in getattr(split, name)}
        slices.insert(4, "split", slices["case"].map(side))
        shown = slices[["liver_pixels", "tumor_pixels"]] > 0
        counts = shown.groupby(slices["case"]).sum().set_axis(["liver_slices", "tumor_slices"], axis=1)
        counts.insert(0, "split", [side[case] for case in counts.index])
        counts.insert(1, "slices", slices.groupby("case").size())
        counts["has_tumor"] = counts["tumor_slices"] > 0
        counts.reset_index().to_csv(folder / "split.csv", index=False, lineterminator="\n")
    slices.to_csv(folder / "slices.csv", index=False, lineterminator="\n")


def _write_about(store: Store, folder: Path, config: ExportConfig) -> None:
    """export.json and README.txt; nothing in them depends on when or where."""
    stored = store.about()
    versions = {name: version(name) for name in ("litsexp", "numpy", "nibabel", "pillow", "torch")}
    about = {
        "format": EXPORT_FORMAT,
        "phantom": store.phantom,
        "settings": {**stored["settings"], **config.model_dump(mode="json")},
        "cases": [_about_case(*both) for both in zip(stored["cases"], stored["inputs"], strict=True)],
        "versions": {**versions, "libjpeg": features.version("jpg"), "zlib": features.version("zlib")},
    }
    (folder / "export.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    readme = _README.format(
        patients=f"{len(store.cases)} synthetic" if store.phantom else len(store.cases),
        size=store.size,
        ending=ENDINGS[config.format],
        split=_SPLIT if config.split is not None else "",
        window=config.window,
        licence=_SYNTHETIC if store.phantom else _LICENCE,
    )
    (folder / "README.txt").write_text(readme, encoding="utf-8")


def _about_case(stored: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """What export.json says of a case, from what store.json says of it and of its files."""
    sizes = {name: state[0] for name, state in source["files"].items()}
    shown = {name: stored[name] for name in ("clipped_voxels", "padding_voxels", "remarks")}
    return {"case": stored["case"], "images": stored["slices"], "source_bytes": sizes, **shown}


def _split_of(has_tumor: Mapping[int, bool], config: SplitConfig) -> Split:
    try:
        return make_splits(has_tumor, config)[0]
    except LitsexpError as error:
        raise LitsexpError(f"{error}, or export without a split (--no-split)") from None


def _check_unused(out: Path) -> None:
    """LitsexpError unless ``out`` is a new or an empty folder."""
    try:
        found = next((path.name for path in out.iterdir()), None)
    except FileNotFoundError:
        return
    except OSError as error:
        raise LitsexpError(f"{out}: cannot be used ({error.strerror}); expected a new or empty folder") from None
    if found is not None:
        raise LitsexpError(f"{out}: found {found} in it; expected a new or empty folder; name another, or empty it")
