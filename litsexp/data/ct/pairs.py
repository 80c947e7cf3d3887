"""Masks of any system beside the truth: which file belongs to which, by the number at its name's end."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from litsexp.data.ct.layout import files_under

EXPECTED_TRUTH = "segmentation-N.nii[.gz], labelsTr/liver_N.nii.gz, or other masks whose names end in a number"
EXPECTED_PREDICTIONS = "masks whose names end in the case's number, as liver_12.nii.gz"
_NIFTI = re.compile(r"\.nii(?:\.gz)?$")
_NUMBER = re.compile(r"(\d+)\.nii(?:\.gz)?$")
_VOLUME = re.compile(r"/(?:volume-|imagesTr/(?:liver_|.*?_)?)(\d+)(?:_0000)?\.nii(?:\.gz)?$")
_CT = re.compile(r"/(?:(?:test-)?volume-[^/]*|images(?:Tr|Ts)/[^/]*)$")
_SEGMENTATION = re.compile(r"/(?:segmentation-|labelsTr/liver_)\d+\.nii(?:\.gz)?$")
_FOLD = re.compile(r"fold_(\d+)")


@dataclass(frozen=True)
class MaskFiles:
    """One case's files."""

    case: int
    truth: Path
    prediction: Path
    volume: Path | None = None  # the CT, where it is there
    fold: int | None = None  # of a folder fold_N that the prediction lies in


@dataclass(frozen=True)
class Pairing:
    """What two folders have for each other."""

    pairs: list[MaskFiles]  # by number
    problems: list[str]  # a line each: what keeps a file from being scored
    left_out: list[str]  # a line each, for people: what was asked to be left out


def pair_masks(predictions: Path, truth: Path, partial: bool = False) -> Pairing:
    """Pair the masks under two folders by number; ``partial``: a number that only one of them has is left out.

    CT volumes (``volume-N``, ``imagesTr``, ``imagesTs``) are no masks. Where the truth's folder has files of LiTS or of
    the Medical Segmentation Decathlon, its other files are none of its. LitsexpError: no folder.
    """
    true_files = list(files_under(truth, EXPECTED_TRUTH))
    own = [path for path in _masks(true_files) if _SEGMENTATION.search(_posix(path))]
    expected, problems = _numbered(own or _masks(true_files), "truth")
    found, misnamed = _numbered(_masks(files_under(predictions, EXPECTED_PREDICTIONS)), "prediction")
    problems += misnamed
    left_out: list[str] = []
    if lonely := [number for number in expected if number not in found]:
        lines = [_missing(expected[number], number, "prediction", predictions) for number in lonely]
        said = f"{len(lonely)} of {len(expected)} cases of {truth} have no prediction in {predictions}"
        (left_out if partial else problems).extend([said] if partial else lines)
    if lonely := [number for number in found if number not in expected]:
        lines = [_missing(found[number], number, "truth", truth) for number in lonely]
        said = f"{len(lonely)} of {len(found)} predictions in {predictions} have no truth in {truth}"
        (left_out if partial else problems).extend([said] if partial else lines)
    volumes = _volumes(truth, true_files)
    pairs = [
        MaskFiles(n, expected[n], found[n], volumes.get(n), _fold(found[n], predictions))
        for n in sorted(expected.keys() & found.keys())
    ]
    if not pairs and not problems:
        for root, files, wanted in (
            (truth, expected, EXPECTED_TRUTH),
            (predictions, found, EXPECTED_PREDICTIONS),
        ):
            if not files:
                problems.append(f"{root}: found no mask; expected {wanted}")
    return Pairing(pairs, problems, left_out)


def _posix(path: Path) -> str:
    return f"/{path.as_posix()}"


def _masks(files: Iterable[Path]) -> list[Path]:
    """NIfTI files that are no CT, nor hidden, as a Mac leaves them on other disks."""
    shown = (path for path in files if _NIFTI.search(path.name) and not path.name.startswith("."))
    return [path for path in shown if not _CT.search(_posix(path))]


def _numbered(paths: Iterable[Path], kind: str) -> tuple[dict[int, Path], list[str]]:
    """One file a number; the others are problems, a line each."""
    files: dict[int, list[Path]] = defaultdict(list)
    problems = []
    for path in paths:
        if match := _NUMBER.search(path.name):
            files[int(match[1])].append(path)
        else:
            expected = "expected the case's number before .nii, as liver_12.nii.gz; rename it, or move it away"
            problems.append(f"{path}: found no number in the {kind}'s name; {expected}")
    for number, paths_of in files.items():
        for path in paths_of[1:]:
            also = f"also as {paths_of[0]}"
            problems.append(f"{path}: {kind} {number} is there twice, {also}; expected each number once; remove one")
    return {number: files[number][0] for number in sorted(files)}, problems


def _missing(path: Path, number: int, kind: str, root: Path) -> str:
    ways = "add it, or score what is in both with --partial (partial=True)"
    return f"{path}: found no {kind} with number {number} under {root}; expected one; {ways}"


def _volumes(truth: Path, files: Iterable[Path]) -> Mapping[int, Path]:
    """CT volumes by number: under the truth's folder, or beside it, as both layouts have them."""
    beside = [path for pattern in ("volume-*", "volume*/volume-*", "imagesTr/*") for path in _beside(truth, pattern)]
    return {
        int(match[1]): path
        for path in [*reversed(beside), *files]
        if (match := _VOLUME.search(_posix(path))) and _NIFTI.search(path.name)
    }


def _beside(truth: Path, pattern: str) -> list[Path]:
    return sorted(path for path in truth.absolute().parent.glob(pattern) if path.is_file())


def _fold(prediction: Path, root: Path) -> int | None:
    """N where the file lies in a folder fold_N, at most one above ``root``."""
    parts = [*root.absolute().parts[-2:], *prediction.relative_to(root).parts[:-1]]
    folds = [int(match[1]) for part in parts if (match := _FOLD.fullmatch(part))]
    return folds[-1] if folds else None
