"""CT cases on disk: find them, read them in one orientation, refuse what is wrong, window Hounsfield units (HU)."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation, ornt2axcodes
from numpy.typing import ArrayLike, NDArray

from litsexp.config import LitsexpError
from litsexp.data.nifti import Header, geometry, one_line_errors, read_header, slabs

logger = logging.getLogger(__name__)

HU_MIN, HU_MAX = -1024, 3071  # 12-bit CT; LiTS itself holds -10522 to 27572
WINDOWS: Mapping[str, tuple[float, float]] = {  # (width_hu, level_hu)
    "liver": (150.0, 30.0),
    "custom": (200.0, 60.0),
    "wide": (400.0, 40.0),
}

_LAYOUTS = "volume-N.nii[.gz] + segmentation-N.nii[.gz], or imagesTr/liver_N.nii.gz + labelsTr/liver_N.nii.gz"
_VOLUME = re.compile(r"/(?:volume-|imagesTr/liver_)(\d+)\.nii(?:\.gz)?$")
_SEGMENTATION = re.compile(r"/(?:segmentation-|labelsTr/liver_)(\d+)\.nii(?:\.gz)?$")
_UNLABELED = re.compile(r"/(?:test-volume-\d+|imagesTs/liver_\d+)\.nii(?:\.gz)?$")


@dataclass(frozen=True)
class Case:
    """One patient's CT volume and its segmentation."""

    number: int
    volume: Path
    segmentation: Path


@dataclass(frozen=True)
class Facts:
    """What reading a case showed, for people to judge it by."""

    shape: tuple[int, int, int]  # as stored
    dtype: str  # of the image, as stored: ``int16``
    orientation: str  # of storage, where the axes grow to: ``LPS``
    spacing_mm: tuple[float, float, float]  # along RAS; NaN where the header's is known to be false
    hu_range: tuple[float, float]  # least and most HU, before clipping
    clipped: int  # voxels that were outside HU_MIN..HU_MAX, padding apart
    padding: int  # voxels outside the field of view that hold the scanner's padding value, below HU_MIN
    remarks: tuple[str, ...]  # what a user should know though the case can be used, a line each


@dataclass(frozen=True, eq=False)
class CtVolume:
    """A case in RAS orientation: x grows to the patient's right, y to anterior, z to superior."""

    hu: NDArray[np.int16]  # (x, y, z), clipped to HU_MIN..HU_MAX
    labels: NDArray[np.uint8]  # (x, y, z): 0 background, 1 liver, 2 tumor
    facts: Facts


@dataclass(frozen=True)
class Scan:
    """What lies under a folder."""

    cases: list[Case]  # complete ones, by number
    problems: dict[int, str]  # number -> why it is not a case: a file missing, or there twice
    unlabeled: int  # official test volumes, which have no segmentation
    others: int  # other .nii files


def find_cases(root: Path) -> list[Case]:
    """Every labeled case under ``root``, by number, in any subfolders (symbolic links are followed).

    Raises LitsexpError for an empty or missing folder, a volume without segmentation or the reverse, and a number
    that occurs twice. Unlabeled official test volumes are left out, and their count is logged.
    """
    found = scan(root)
    if found.unlabeled:
        logger.info("%s: %d unlabeled test volumes are left out", root, found.unlabeled)
    if found.problems:
        first, *others = sorted(found.problems)
        also = f" ({len(others)} more cases have a file missing or twice)" if others else ""
        raise LitsexpError(found.problems[first] + also)
    return found.cases


def scan(root: Path) -> Scan:
    """Pair volumes and segmentations by number; LitsexpError where there is no folder, or neither of them in it."""
    files: dict[str, dict[int, list[Path]]] = {"volume": defaultdict(list), "segmentation": defaultdict(list)}
    unlabeled = others = 0
    for path in _files(root):
        name = f"/{path.as_posix()}"
        if match := _VOLUME.search(name):
            files["volume"][int(match[1])].append(path)
        elif match := _SEGMENTATION.search(name):
            files["segmentation"][int(match[1])].append(path)
        else:
            unlabeled += bool(_UNLABELED.search(name))
            others += name.endswith((".nii", ".nii.gz"))
    numbers = sorted({number for found in files.values() for number in found})
    if not numbers:
        raise LitsexpError(f"{root}: found no labeled CT case ({others} other .nii files); expected {_LAYOUTS}")
    problems = {number: problem for number in numbers if (problem := _pairing_problem(root, number, files))}
    cases = [
        Case(number, files["volume"][number][0], files["segmentation"][number][0])
        for number in numbers
        if number not in problems
    ]
    return Scan(cases, problems, unlabeled, others)


def read_case(case: Case) -> CtVolume:
    """Read a case; the image's affine decides the voxel flips of both files, because label affines may be wrong.

    Memory: the result (3 bytes a voxel) and one slab of planes. Raises LitsexpError, in one line, for a file that is
    not NIfTI, truncated or corrupt, not 3D, empty or too large, shapes that differ, voxels that are NaN or infinite,
    and labels other than 0, 1 and 2.
    """
    image, label = read_header(case.volume), read_header(case.segmentation)
    if image.shape != label.shape:
        raise LitsexpError(
            f"{label.path}: shape {label.shape} differs from its volume's {image.shape} ({image.path.name}); "
            "expected one label a voxel; download both files of this case again, or leave the case out"
        )
    orientation, spacing_mm = geometry(image)
    hu, clipped = _read_hu(image)
    return CtVolume(
        hu=apply_orientation(hu, orientation),
        labels=apply_orientation(_read_labels(label), orientation),
        facts=Facts(
            shape=image.shape,
            dtype=str(image.dtype),
            orientation="".join(ornt2axcodes(orientation)),
            spacing_mm=spacing_mm,
            hu_range=(float(hu.min()), float(hu.max())),
            clipped=clipped,
            padding=0,
            remarks=(),
        ),
    )


def count_slices(case: Case) -> int:
    """Axial slices of a case, from the header alone; LitsexpError where the header is refused."""
    header = read_header(case.volume)
    return header.shape[int(np.argmax(geometry(header)[0][:, 0]))]


def apply_window(hu: ArrayLike, width_hu: float, level_hu: float) -> NDArray[np.float32]:
    """Map level - width/2 .. level + width/2 HU to 0..1 and clip; same shape as ``hu``."""
    if not width_hu > 0:
        raise ValueError(f"width_hu = {width_hu}; expected more than 0")
    lowest_hu = level_hu - width_hu / 2
    scaled: NDArray[np.float32] = (np.asarray(hu, np.float32) - np.float32(lowest_hu)) / np.float32(width_hu)
    return scaled.clip(0, 1)


def _files(root: Path) -> Iterator[Path]:
    """All files under a folder in sorted order, each real folder once."""
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise LitsexpError(f"{root}: found {found}; expected a folder with {_LAYOUTS}")
    seen: set[str] = set()
    with one_line_errors(root):
        for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_raise):
            real = os.path.realpath(folder)
            if real in seen:
                subfolders.clear()
                continue
            seen.add(real)
            subfolders.sort()
            yield from (Path(folder, name) for name in sorted(names))


def _raise(error: OSError) -> None:
    raise error  # os.walk would pass over a folder that cannot be read, and its patients would be lost in silence


def _pairing_problem(root: Path, number: int, files: Mapping[str, Mapping[int, list[Path]]]) -> str:
    """Why the files of this number are not one volume and one segmentation; empty where they are."""
    for found in files.values():
        if len(paths := found.get(number, [])) > 1:
            return (
                f"{paths[1]}: case {number} is there twice, also as {paths[0]}; expected each number once; remove one"
            )
    for kind, other in (("segmentation", "volume"), ("volume", "segmentation")):
        if not files[kind].get(number):
            return (
                f"{files[other][number][0]}: found no {kind} with number {number} under {root}; "
                "expected both files of each case; add it, or move this file away"
            )
    return ""


def _read_hu(header: Header) -> tuple[NDArray[np.int16], int]:
    """Rounded and clipped HU in voxel order, and how many voxels were clipped."""
    hu = np.empty(header.shape, np.int16, order="F")
    clipped = bad = 0
    for planes, values in slabs(header):
        bad += values.size - int(np.count_nonzero(np.isfinite(values)))
        if bad:
            continue
        rounded = values if values.dtype.kind == "i" else np.rint(values)
        clipped += int(np.count_nonzero((rounded < HU_MIN) | (rounded > HU_MAX)))
        hu[:, :, planes] = np.clip(rounded, HU_MIN, HU_MAX)
    if bad:
        raise LitsexpError(
            f"{header.path}: {bad} voxels are NaN or infinite; expected finite HU; "
            f"replace them (air is {HU_MIN}), or leave the case out"
        )
    return hu, clipped


def _read_labels(header: Header) -> NDArray[np.uint8]:
    """Labels in voxel order, each 0, 1 or 2."""
    labels = np.empty(header.shape, np.uint8, order="F")
    unknown: Counter[float] = Counter()
    for planes, values in slabs(header):
        wrong = ~np.isin(values, (0, 1, 2))
        if wrong.any():
            found, counts = np.unique(values[wrong], return_counts=True)
            unknown.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        else:
            labels[:, :, planes] = values
    if unknown:
        named = ", ".join(f"{value:g} ({count} voxels)" for value, count in unknown.most_common(3))
        others = f" and {len(unknown) - 3} other values" if len(unknown) > 3 else ""
        raise LitsexpError(
            f"{header.path}: found label {named}{others}; expected only 0 background, 1 liver, 2 tumor; "
            "map the labels to these, or leave the case out"
        )
    return labels
