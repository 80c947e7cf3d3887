"""CT cases as JPEG or PNG images with PNG masks, the way the paper stores them, for training code of one's own.

Slices are resized as Hounsfield units and windowed afterwards, the order of the slice store: averaging tissue that a
window has already cut off would shift every border. Channels are those of litsexp's own training: one window, or
``notebook`` (R liver window, G custom window, B the slice's own histogram-equalised HU). A single window makes a gray
image (mode L), which loaders that ask for RGB turn into three equal channels. Masks are PNG, mode L, with the labels
0, 1 and 2 themselves: black to the eye.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import features
from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator, model_validator

from litsexp.data.ct.layout import Case, find_cases, is_phantom
from litsexp.data.ct.volume import HU_MIN, count_slices, no_liver, read_case
from litsexp.data.gray import encode, encode_mask, image_channels
from litsexp.data.parallel import Progress, map_parallel
from litsexp.data.splits import Split, make_splits
from litsexp.data.store.convert import chosen_slices
from litsexp.data.store.resize import Resize
from litsexp.spec.base import Strict
from litsexp.spec.catalog import WINDOWS
from litsexp.spec.cohort import SLICES, Slices, SplitConfig
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import known

EXPORT_FORMAT = 1  # raise it when the same input would be exported differently
PAPER_SPLIT = SplitConfig(train=0.7, valid=0.15, test=0.15)
ENDINGS = {"jpeg": "jpg", "png": "png"}
_T = TypeVar("_T", bound=np.generic)
_BATCH = 16  # slices resized at once
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

    size: int = Field(128, ge=16, le=1024)  # pixels a side
    format: Literal["jpeg", "png"] = "jpeg"  # of the images; masks are always PNG
    quality: int = Field(100, ge=1, le=100)  # of JPEG; the notebook's is 90
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:4:4"  # of JPEG's color; the notebook's 4:2:0 mixes channels
    window: Annotated[str, known(WINDOWS)] = "notebook"
    slices: Slices = "liver"
    split: SplitConfig | None = PAPER_SPLIT  # a holdout by patient

    @field_validator("slices", mode="wrap")
    @classmethod
    def _slices_in_words(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"found {value!r}; expected {SLICES}") from None  # a pattern explains nothing

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.format == "png" and (self.quality, self.subsampling) != (100, "4:4:4"):
            found = f"png, which loses nothing, with quality {self.quality} and subsampling {self.subsampling}"
            raise ValueError(f"format: found {found}; expected jpeg, or neither of them")
        if self.split is not None and self.split.folds is not None:
            raise ValueError("split: found folds; expected one holdout: train, valid and test")
        return self


@dataclass(frozen=True)
class Export:
    """What was written."""

    directory: Path
    patients: int
    images: int
    split: Split | None


@dataclass(frozen=True)
class _Part:
    """One exported case."""

    rows: list[dict[str, Any]]  # of slices.csv, without the split
    about: dict[str, Any]  # for export.json


def export(
    root: Path,
    out: Path,
    config: ExportConfig,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Export:
    """Write every case under ``root`` to ``out``: images, masks, split.csv, slices.csv, export.json and README.txt.

    All of it or nothing, and the same bytes from the same input, whatever ``processes`` is. Each process holds one
    volume. ``progress(done, total)`` is called after each case.

    Raises:
        LitsexpError: ``out`` holds something; too few patients for the split; a case that is refused or has no slice
            to export; a full disk. ``out`` is as before then.
    """
    _check_unused(out)
    cases = find_cases(root)
    if config.split is not None:
        _split_of({case.number: True for case in cases}, config.split)  # too few patients: said before any work
    try:
        with _all_or_nothing(out.resolve()) as temporary:
            _check_disk(temporary, cases, config)
            for folder in ("images", "masks"):
                (temporary / folder).mkdir()
            work = partial(_export_case, root=root, temporary=temporary, config=config)
            parts = map_parallel(work, cases, processes, progress)
            split = _write_tables(parts, temporary, config)
            _write_about(parts, temporary, config, phantom=is_phantom(cases))
    except OSError as error:
        raise LitsexpError(
            f"{out}: cannot write the export ({error.strerror or error}); "
            "expected a folder to write to with enough room; free space, or name another one"
        ) from None
    return Export(out, len(parts), sum(len(part.rows) for part in parts), split)


def _export_case(case: Case, root: Path, temporary: Path, config: ExportConfig) -> _Part:
    """Read, orient, pad, resize, window and write one case."""
    volume = read_case(case)
    chosen = chosen_slices(np.asarray(volume.labels.any(axis=(0, 1))), config.slices)
    if not chosen.size:
        raise no_liver(case, "export all slices")
    resize = Resize(max(volume.hu.shape[:2]), config.size)
    scale = resize.side / resize.size
    x_mm, y_mm, z_mm = volume.facts.spacing_mm  # NaN, an empty field of slices.csv, where unknown
    spacing = {"spacing_x_mm": x_mm * scale, "spacing_y_mm": y_mm * scale, "spacing_z_mm": z_mm}
    rows: list[dict[str, Any]] = []
    for start in range(0, len(chosen), _BATCH):
        batch = chosen[start : start + _BATCH]
        pictures = image_channels(resize.hu(_upright(volume.hu, batch, HU_MIN)), config.window)
        masks = resize.labels(_upright(volume.labels, batch, 0))
        for z, picture, mask in zip(batch.tolist(), pictures, masks, strict=True):
            stem = f"volume-{case.number}_slice_{z}"
            files = {"file": f"images/{stem}.{ENDINGS[config.format]}", "mask": f"masks/{stem}_mask.png"}
            image = encode(picture, config.format, config.quality, config.subsampling)
            (temporary / files["file"]).write_bytes(image)
            (temporary / files["mask"]).write_bytes(encode_mask(mask))
            pixels = {"liver_pixels": np.count_nonzero(mask), "tumor_pixels": np.count_nonzero(mask == 2)}
            rows.append({**files, "case": case.number, "z": z, **pixels, **spacing})
    facts = volume.facts
    shown = {"clipped_voxels": facts.clipped, "padding_voxels": facts.padding, "remarks": list(facts.remarks)}
    sources = {path.relative_to(root).as_posix(): path.stat().st_size for path in (case.volume, case.segmentation)}
    return _Part(rows, {"case": case.number, "images": len(rows), "source_bytes": sources, **shown})


def _upright(voxels: NDArray[_T], chosen: NDArray[np.int64], fill: int) -> NDArray[_T]:
    """RAS voxels to square slices (n, row, column) as the store holds them; margins of ``fill``, the odd pixel last."""
    slices = voxels.T[chosen, ::-1, ::-1]
    side = max(slices.shape[1:])
    before = [(side - n) // 2 for n in slices.shape[1:]]
    margins = [(0, 0), *((b, side - n - b) for b, n in zip(before, slices.shape[1:], strict=True))]
    return np.pad(slices, margins, constant_values=fill)


def _write_tables(parts: Sequence[_Part], temporary: Path, config: ExportConfig) -> Split | None:
    """slices.csv and, where patients are split, split.csv; a patient has tumor where an exported mask shows any."""
    slices = pd.DataFrame([row for part in parts for row in part.rows])
    split = None
    if config.split is not None:
        shown = slices[["liver_pixels", "tumor_pixels"]] > 0
        counts = shown.groupby(slices["case"]).sum().set_axis(["liver_slices", "tumor_slices"], axis=1)
        counts.insert(0, "slices", slices.groupby("case").size())
        counts["has_tumor"] = counts["tumor_slices"] > 0
        split = _split_of(dict(zip(counts.index, counts["has_tumor"], strict=True)), config.split)
        side = {case: name for name in ("train", "valid", "test") for case in getattr(split, name)}
        counts.insert(0, "split", [side[case] for case in counts.index])
        slices.insert(4, "split", [side[case] for case in slices["case"]])
        counts.reset_index().to_csv(temporary / "split.csv", index=False, lineterminator="\n")
    slices.to_csv(temporary / "slices.csv", index=False, lineterminator="\n")
    return split


def _write_about(parts: Sequence[_Part], temporary: Path, config: ExportConfig, phantom: bool) -> None:
    """export.json and README.txt; nothing in them depends on when or where."""
    versions = {name: version(name) for name in ("litsexp", "numpy", "nibabel", "pillow")}
    about = {
        "format": EXPORT_FORMAT,
        "phantom": phantom,
        "settings": config.model_dump(mode="json"),
        "cases": [part.about for part in parts],
        "versions": {**versions, "libjpeg": features.version("jpg"), "zlib": features.version("zlib")},
    }
    (temporary / "export.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    readme = _README.format(
        patients=f"{len(parts)} synthetic" if phantom else len(parts),
        size=config.size,
        ending=ENDINGS[config.format],
        split=_SPLIT if config.split is not None else "",
        window=config.window,
        licence=_SYNTHETIC if phantom else _LICENCE,
    )
    (temporary / "README.txt").write_text(readme, encoding="utf-8")


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


def _check_disk(temporary: Path, cases: Sequence[Case], config: ExportConfig) -> None:
    """Room for a byte a pixel and channel; of half of the slices unless all are wanted (a third of LiTS show liver)."""
    slices = sum(count_slices(case) for case in cases)
    planned = slices if config.slices == "all" else slices / 2
    channels = 3 if config.window == "notebook" else 1
    needed = planned * (config.size**2 * channels + _MASK_BYTES)
    free = shutil.disk_usage(temporary).free
    if needed > free:
        raise LitsexpError(
            f"{temporary.parent}: {free / 1e6:.0f} MB free; expected about {needed / 1e6:.0f} MB for the export; "
            "free space, name another folder, or choose a smaller size"
        )


@contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    """A folder to write in that becomes ``out``; after any exception, Ctrl-C included, nothing is left of it.

    An empty ``out`` is filled, not replaced: it may be a mount, or the folder that somebody's shell is in.
    """
    there = out.is_dir()
    home = out if there else next(parent for parent in out.parents if parent.is_dir())
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=home))
    try:
        temporary.chmod(0o755)
        yield temporary
        if there:
            for path in sorted(temporary.iterdir()):
                path.rename(out / path.name)
        else:
            out.parent.mkdir(parents=True, exist_ok=True)
            temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
