"""What every run's prediction is scored against at native resolution: a cohort's segmentations, each read once.

Of a case are kept the box of its foreground, where that lies, the spacing, and how each lesion stands out against the
liver; that is a hundredth of a volume, so that many runs are scored without reading a volume again. A case that is done
survives an interruption.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from litsexp.data.cohorts import folder_of, store_of
from litsexp.data.ct.layout import Case, find_cases
from litsexp.data.ct.volume import Tally, check_liver, open_case
from litsexp.data.parallel import Progress, map_parallel
from litsexp.data.store import Store
from litsexp.data.store.build import input_of
from litsexp.evaluation.cases import CaseMasks
from litsexp.evaluation.matching import Box, box_of
from litsexp.evaluation.volumes import lesion_contrasts
from litsexp.files import whole_file
from litsexp.spec.cohort import DataConfig
from litsexp.spec.errors import LitsexpError, one_line
from litsexp.spec.keys import digest

TRUTH_FORMAT = 1  # raise it when the same files would be kept differently


@dataclass(frozen=True, eq=False)
class Truth:
    """One case's segmentation; axes are planes (0 the most inferior), rows and columns in stored direction."""

    case: int
    shape: tuple[int, int, int]  # of the volume
    start: tuple[int, int, int]  # of the box in it
    labels: NDArray[np.uint8]  # the box of label >= 1; an empty one where there is none
    flips: tuple[bool, bool]  # whether rows and columns run backwards in an upright picture
    upwards: bool  # whether planes are stored from inferior to superior
    spacing_mm: tuple[float, float, float]  # (z, y, x); NaN where unknown
    contrast_hu: NDArray[np.float64]  # of each lesion, as ``lesion_contrasts`` has them of planes as they are stored

    def beside(self, prediction: NDArray[np.uint8]) -> CaseMasks:
        """Both masks in the box of what is foreground in either, planes as they are stored.

        ValueError for a prediction of another shape.
        """
        if prediction.shape != self.shape:
            raise ValueError(f"case {self.case}: prediction {prediction.shape}; expected {self.shape}, its volume's")
        stops = (first + n for first, n in zip(self.start, self.labels.shape, strict=True))
        own = [slice(first, stop) for first, stop in zip(self.start, stops, strict=True)]
        found = box_of(prediction)
        box = [_union(one, other) for one, other in zip(own, found, strict=True)]
        truth = np.zeros([part.stop - part.start for part in box], np.uint8)
        truth[tuple(slice(o.start - b.start, o.stop - b.start) for o, b in zip(own, box, strict=True))] = self.labels
        masks, outside = (truth, prediction[tuple(box)]), prediction.size - truth.size
        truth, inside = masks if self.upwards else (mask[::-1] for mask in masks)
        return CaseMasks(self.case, truth, inside, self.spacing_mm, np.arange(len(truth)), outside, self.shape)


def _union(one: slice, other: slice) -> slice:
    """The shortest slice that holds both; an empty one holds nothing."""
    parts = [part for part in (one, other) if part.stop > part.start] or [slice(0, 0)]
    return slice(min(part.start for part in parts), max(part.stop for part in parts))


@dataclass(frozen=True)
class NativeCohort:
    """What a study's runs are scored on at native resolution: all slices of its volumes, and their segmentations."""

    store: Store  # of all slices, in the study's size
    truths: dict[int, Path]  # case -> its file

    @classmethod
    def of(cls, data: DataConfig, stores: Path, bar: Callable[[str], AbstractContextManager[Progress]]) -> Self:
        """A cohort's, read where it has not been; LitsexpError: refused cases, a full disk."""
        cohort = data.model_copy(update={"slices": "all"})
        store = store_of(cohort, stores, bar)
        root = folder_of(cohort, stores, bar)
        with bar("segmentations at native resolution") as progress:
            return cls(store, keep_truths(root, find_cases(root), stores / "native", progress=progress))

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over slices and segmentations: the same data anywhere."""
        return digest({"slices": self.store.fingerprint, "truths": [_content(path) for path in self.truths.values()]})


def keep_truths(
    root: Path, cases: Sequence[Case], folder: Path, processes: int | None = None, progress: Progress | None = None
) -> dict[int, Path]:
    """Read the segmentations that ``folder`` does not have yet; case -> its file. LitsexpError for what is refused."""
    paths = {case: folder / f"{digest({'format': TRUTH_FORMAT, 'input': input_of(root, case)})}.npz" for case in cases}
    left = [(case, path) for case, path in paths.items() if not path.is_file()]
    try:
        map_parallel(_keep, left, processes, progress)
    except OSError as error:
        raise LitsexpError(
            f"{folder}: cannot write segmentations ({error.strerror or error}); "
            "expected a folder to write to with enough room; free space, or name another one"
        ) from None
    return {case.number: path for case, path in paths.items()}


def read_truth(path: Path) -> Truth:
    """What ``keep_truths`` wrote; LitsexpError where the file is not whole."""
    with _whole(path), np.load(path) as kept:
        known: dict[str, Any] = {name: kept[name] for name in ("labels", "contrast_hu")}
        known |= {name: tuple(kept[name].tolist()) for name in ("shape", "start", "flips", "spacing_mm")}
        return Truth(int(kept["case"]), upwards=bool(kept["upwards"]), **known)


def truth_of(case: Case) -> Truth:
    """Read one case; memory follows its foreground. LitsexpError as ``read_case`` raises it."""
    opened = open_case(case)
    planes = {z: plane.copy() for z, plane in opened.label_planes() if plane.any()}
    numbers = sorted(planes)
    box: Box = (slice(0, 0), slice(0, 0), slice(0, 0))
    if planes:
        _, rows, columns = box_of(np.logical_or.reduce(list(planes.values()))[None])
        box = slice(numbers[0], numbers[-1] + 1), rows, columns
    labels = np.zeros([part.stop - part.start for part in box], np.uint8)
    hu = np.zeros(labels.shape, np.int16)
    for z, plane in planes.items():
        labels[z - box[0].start] = plane[box[1:]]
    for z, plane_hu in opened.hu_planes(Tally()):
        if box[0].start <= z < box[0].stop:
            hu[z - box[0].start] = plane_hu[box[1:]]
    check_liver(case, hu[labels > 0])
    x_mm, y_mm, z_mm = opened.spacing_mm
    start = (box[0].start, box[1].start, box[2].start)
    step = 1 if opened.upwards else -1
    contrast_hu = lesion_contrasts(labels[::step], hu[::step])
    geometry = opened.flips, opened.upwards, (z_mm, y_mm, x_mm)
    return Truth(case.number, opened.shape, start, labels, *geometry, contrast_hu)


def _keep(source: tuple[Case, Path]) -> None:
    case, path = source
    truth = truth_of(case)
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(truth).items()}
    content = hashlib.sha256()
    for name in sorted(arrays):
        content.update(name.encode())
        content.update(np.ascontiguousarray(arrays[name]).data)
    with whole_file(path, replace=True) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, content=np.frombuffer(content.digest(), np.uint8), **arrays)


def _content(path: Path) -> str:
    """SHA-256 of what a file holds, as it was written beside it."""
    with _whole(path), np.load(path) as kept:
        return bytes(kept["content"]).hex()


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """What reading a damaged file raises, in one line that says what to do."""
    try:
        yield
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error) as error:
        raise LitsexpError(f"{path}: not whole ({one_line(error)}); remove it, and it is made again") from None
