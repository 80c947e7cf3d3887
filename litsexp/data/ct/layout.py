"""CT cases in a folder: LiTS as people have it, each volume paired with its segmentation by number."""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from litsexp.data.ct.nifti import one_line_errors
from litsexp.spec.errors import LitsexpError

logger = logging.getLogger(__name__)

PHANTOM_FILE = "phantom.json"  # in a synthetic cohort's folder: how it was made
_LAYOUTS = "volume-N.nii[.gz] + segmentation-N.nii[.gz], or imagesTr/liver_N.nii.gz + labelsTr/liver_N.nii.gz"
_VOLUME = re.compile(r"/(?:volume-|imagesTr/liver_)(\d+)\.nii(?:\.gz)?$")
_SEGMENTATION = re.compile(r"/(?:segmentation-|labelsTr/liver_)(\d+)\.nii(?:\.gz)?$")
_UNLABELED = re.compile(r"/(?:test-volume-\d+|imagesTs/liver_\d+)\.nii(?:\.gz)?$")
_MASK = re.compile(r"(?:/labelsT[rs]/[^/]+|/[^/]*segmentation-\d+\.nii(?:\.gz)?)$")


@dataclass(frozen=True)
class Case:
    """One patient's CT volume and its segmentation."""

    number: int
    volume: Path
    segmentation: Path


@dataclass(frozen=True)
class Scan:
    """What lies under a folder."""

    cases: list[Case]  # complete ones, by number
    problems: dict[int, str]  # number -> why it is not a case: a file missing, or there twice
    unlabeled: int  # official test volumes, which have no segmentation
    others: int  # other .nii files


def is_phantom(cases: Iterable[Case]) -> bool:
    """Whether any of the cases is synthetic: what is computed from them has to say so."""
    folders = {path.parent for case in cases for path in (case.volume, case.segmentation)}
    return any((folder / PHANTOM_FILE).is_file() for folder in folders)


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
    for path in files_under(root, _LAYOUTS):
        name = f"/{path.as_posix()}"
        if match := _VOLUME.search(name):
            files["volume"][int(match[1])].append(path)
        elif match := _SEGMENTATION.search(name):
            files["segmentation"][int(match[1])].append(path)
        elif _UNLABELED.search(name):
            unlabeled += 1
        else:
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


def find_volumes(root: Path) -> dict[str, Path]:
    """Every volume under ``root`` by the name that its mask gets: ``segmentation-7.nii.gz`` for ``volume-7.nii``.

    Other names stay as they are, as ``liver_7.nii.gz`` of the Decathlon. LitsexpError: none, or two of one name.
    """
    found: dict[str, Path] = {}
    for path in files_under(root, "CT volumes, .nii or .nii.gz"):
        if path.name.startswith(".") or not path.name.endswith((".nii", ".nii.gz")):
            continue
        if _MASK.search(f"/{path.as_posix()}"):
            continue
        stem = path.name.removesuffix(".gz").removesuffix(".nii")
        name = f"{re.sub(r'volume-(?=[0-9]+$)', 'segmentation-', stem)}.nii.gz"
        if name in found:
            raise LitsexpError(f"{path}: its mask is called {name}, as that of {found[name]}; expected each name once")
        found[name] = path
    if not found:
        raise LitsexpError(f"{root}: found no CT volume; expected .nii or .nii.gz files that are no segmentations")
    return found


def files_under(root: Path, expected: str) -> Iterator[Path]:
    """All files under a folder in sorted order, each real folder once; ``expected`` is what should be in it."""
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise LitsexpError(f"{root}: found {found}; expected a folder with {expected}")
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
