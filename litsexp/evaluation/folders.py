"""Folders of anybody's masks, scored: every case of them, and the summary of LiTS."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from litsexp.data.ct.layout import PHANTOM_FILE
from litsexp.data.ct.masks import read_masks
from litsexp.data.ct.pairs import MaskFiles, pair_masks
from litsexp.data.parallel import Progress, map_parallel
from litsexp.evaluation.cases import CaseMasks
from litsexp.evaluation.lits import LitsCase, LitsScore, lits_case, lits_summary
from litsexp.evaluation.volumes import lesion_contrasts, score_volume
from litsexp.spec.errors import LitsexpError

NO_HU = "no CT volume-N under the truth's folder or beside it: recall by contrast is unknown"
SOME_HU = "no CT volume-N of these cases: their lesions' contrast is unknown"


class FolderProblems(LitsexpError):
    """Files that cannot be scored: the first of them as the message, all of them in ``problems``."""

    def __init__(self, problems: Sequence[str]):
        more = f" (and {len(problems) - 1} more files)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = tuple(problems)


@dataclass(frozen=True, eq=False)
class Scored:
    """One system's masks, scored."""

    cases: pd.DataFrame  # arm, fold (where the masks lie in folders fold_N), case, slices, a column a score
    lits: tuple[LitsScore, ...]  # the official summary, each number beside what the official scorer prints
    remarks: tuple[tuple[int, str], ...]  # case and what a user should know of it
    notes: tuple[str, ...]  # the same of the folders
    phantom: bool = False  # whether any patient is synthetic, which has to be said wherever a result is shown

    @property
    def arm(self) -> str:
        """The system's name."""
        return str(self.cases["arm"].iloc[0])

    @property
    def summary(self) -> dict[str, float]:
        """The LiTS summary by name, NaN where undefined."""
        return {score.name: score.value for score in self.lits}

    @property
    def official(self) -> dict[str, float]:
        """The same as the official scorer prints it, NaN where it ends with an error instead."""
        return {f"official_{score.name}": score.official for score in self.lits}


@dataclass(frozen=True)
class _Read:
    """What one case gives, or why it gives nothing."""

    files: MaskFiles
    lits: LitsCase | None = None
    contrast_known: bool = False
    remarks: tuple[str, ...] = ()
    problem: str = ""


def score(
    predictions: Path | str,
    truth: Path | str,
    *,
    arm: str | None = None,
    surface_mm: float | None = None,
    partial: bool = False,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Score a folder of masks (NIfTI; 0 background, 1 liver, 2 tumor) against the truth, paired by number.

    ``litsexp.score("nnUNet_predictions", "LiTS", surface_mm=2.0).cases``

    Args:
        predictions: masks whose names end in a number, anywhere below.
        truth: ``segmentation-N`` or ``labelsTr/liver_N``, or others whose names end in a number; with CT volumes in it
            or beside it lesions are also counted by their contrast.
        arm: what the system is called; default: the folder's name.
        surface_mm: NSD's tolerance; None: no surfaces.
        partial: leave out cases that only one of the folders has, in place of an error.
        processes: cases at a time; default: the usable CPUs, at most 8.
        progress: called with cases done and in all.

    Raises:
        FolderProblems: a LitsexpError with ``problems``, one line of each file that is missing, misnamed, damaged, of
            another shape, or has other labels. Nothing is scored then.
    """
    name = Path(predictions).resolve().name if arm is None else arm
    pairing = pair_masks(Path(predictions), Path(truth), partial)
    read = map_parallel(functools.partial(score_files, surface_mm=surface_mm), pairing.pairs, processes, progress)
    if problems := [*pairing.problems, *(one.problem for one in read if one.problem)]:
        raise FolderProblems(problems)
    if not read:
        raise FolderProblems([f"{predictions}: shares no case with {truth}; expected one at least"])
    cases = [one.lits for one in read if one.lits]
    rows = [dict(case.row) for case in cases]
    folds = {} if any(one.files.fold is None for one in read) else {"fold": [one.files.fold for one in read]}
    table = pd.DataFrame(rows)
    for place, (column, values) in enumerate(({"arm": [name] * len(rows)} | folds).items()):
        table.insert(place, column, values)
    remarks = [(one.files.case, remark) for one in read for remark in one.remarks]
    unknown = [one.files.case for one in read if not one.contrast_known]
    notes = [NO_HU] if len(unknown) == len(read) else []
    remarks += [] if notes else [(case, SOME_HU) for case in unknown]
    phantom = any((files.truth.parent / PHANTOM_FILE).is_file() for files in pairing.pairs)
    return Scored(table, tuple(lits_summary(cases)), tuple(remarks), (*pairing.left_out, *notes), phantom)


def score_files(files: MaskFiles, surface_mm: float | None = None) -> _Read:
    """Read and score one case; what cannot be read becomes its problem."""
    try:
        found = read_masks(files)
    except LitsexpError as error:
        return _Read(files, problem=str(error))
    slices = np.arange(found.first_slice, found.first_slice + len(found.truth))
    outside = math.prod(found.whole) - found.truth.size
    case = CaseMasks(files.case, found.truth, found.prediction, found.spacing_mm, slices, outside, found.whole)
    contrast_hu = None if found.hu is None else lesion_contrasts(found.truth[found.truth_box], found.hu)
    row = score_volume(case, contrast_hu, surface_mm)
    lits = lits_case(case, row, found.stored, found.written_mm)
    return _Read(files, lits, contrast_hu is not None, found.remarks)


def table_of(systems: Sequence[Scored]) -> pd.DataFrame:
    """The systems' cases as one table for ``litsexp judge``.

    Folders of one name are its seeds, 0, 1, ...; a column fold is left where all systems have it.
    """
    seeds: Counter[str] = Counter()
    tables = []
    for scored in systems:
        tables.append(scored.cases.assign(seed=seeds[scored.arm]))
        seeds[scored.arm] += 1
    table = pd.concat(tables, ignore_index=True)
    fold = ["fold"] if all("fold" in scored.cases for scored in systems) else []
    run = [*fold, *(["seed"] if max(seeds.values()) > 1 else [])]
    return table[["arm", *run, *(c for c in table if c not in ("arm", "fold", "seed"))]]
