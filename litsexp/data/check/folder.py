"""Check a folder of CT cases: every file read, every case measured and judged, in parallel."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from litsexp.data.check.oddities import Anatomy, warnings
from litsexp.data.ct.layout import Case, is_phantom, scan
from litsexp.data.ct.volume import HU_MIN, CtVolume, no_liver, read_case
from litsexp.data.parallel import Progress, map_parallel
from litsexp.data.store.resize import Resize, squared
from litsexp.spec.errors import LitsexpError, one_line

THUMBNAIL_PX = 160
_PLANES = 16  # hashed at once


class Thumbnail(NamedTuple):
    """The slice with most liver, the middle one without any; row 0 is anterior, column 0 the patient's right."""

    hu: NDArray[np.int16]  # (THUMBNAIL_PX, THUMBNAIL_PX)
    labels: NDArray[np.uint8]  # the same shape


@dataclass(frozen=True, eq=False)
class CaseReport:
    """What reading one case showed. A study refuses a case with an ``error``; ``warnings`` are for people."""

    case: int
    volume: str = ""  # path below the folder; empty where the files are not a pair
    segmentation: str = ""
    error: str = ""  # one line that names the file; empty where a study takes the case
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # nothing is wrong with these
    anatomy: Anatomy | None = None  # None where the files cannot be read
    thumbnail: Thumbnail | None = None
    image_sha256: str = ""  # of the HU in RAS orientation: equal where two cases hold one image


@dataclass(frozen=True, eq=False)
class FolderReport:
    """All cases under a folder, by number."""

    root: Path
    cases: Sequence[CaseReport]
    unlabeled: int = 0  # official test volumes, which have no segmentation
    others: int = 0  # .nii files that are neither
    problem: str = ""  # why there is no case at all
    phantom: bool = False  # litsexp wrote this cohort; it shows no real patient

    @property
    def errors(self) -> list[CaseReport]:
        """Cases that a study refuses."""
        return [report for report in self.cases if report.error]

    @property
    def usable(self) -> bool:
        """Whether a study takes the folder as it is: there are cases, and none is refused."""
        return bool(self.cases) and not self.errors


def check_folder(root: Path, processes: int | None = None, progress: Progress | None = None) -> FolderReport:
    """Read, measure and judge every case under ``root``; ``processes`` and ``progress`` as in ``map_parallel``.

    A case that is refused is a report with an error, never an exception. Raises LitsexpError where ``root`` is no
    folder, and where a worker died.
    """
    try:
        found = scan(root)
    except LitsexpError as error:
        if not root.is_dir():
            raise
        return FolderReport(root, [], problem=str(error))
    read = map_parallel(partial(check_case, root=root), found.cases, processes, progress)
    unpaired = [CaseReport(number, error=problem) for number, problem in found.problems.items()]
    reports = sorted([*_naming_copies(read), *unpaired], key=lambda report: report.case)
    return FolderReport(root, reports, found.unlabeled, found.others, phantom=is_phantom(found.cases))


def check_case(case: Case, root: Path) -> CaseReport:
    """Read, measure and judge one case; what cannot be read becomes the report's error."""
    volume_name, segmentation_name = (path.relative_to(root).as_posix() for path in (case.volume, case.segmentation))
    report = partial(CaseReport, case.number, volume_name, segmentation_name)
    try:
        volume = read_case(case)
        anatomy = _measure(volume)
        return report(
            error="" if anatomy.liver_voxels else str(no_liver(case)),
            warnings=warnings(volume, anatomy),
            notes=("no tumor",) if anatomy.liver_voxels and not anatomy.tumor_voxels else (),
            anatomy=anatomy,
            thumbnail=_thumbnail(volume),
            image_sha256=_sha256(volume.hu),
        )
    except LitsexpError as refusal:
        return report(error=str(refusal))
    except MemoryError:
        lack = "too large for the memory there is; expected a CT volume; free memory, or use fewer processes"
        return report(error=f"{case.volume}: {lack}")
    except Exception as error:  # one file, however broken, must not end the check of all the others
        unforeseen = (
            f"cannot be read ({one_line(error)}); expected a CT volume; leave the case out, and please report this"
        )
        return report(error=f"{case.volume}: {unforeseen}")


def _measure(volume: CtVolume) -> Anatomy:
    liver_by_slice = np.count_nonzero(volume.labels, axis=(0, 1))
    found = (np.flatnonzero(volume.labels.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1)))
    x, y, z = (slice(int(at[0]), int(at[-1]) + 1) if at.size else slice(0, 0) for at in found)
    labels, hu = volume.labels[x, y, z], volume.hu[x, y, z]
    tumor = labels == 2
    lesions, _ = ndimage.label(tumor)  # 6-connected
    voxels = np.bincount(lesions.ravel(), minlength=1)[1:]
    voxel_ml = math.prod(volume.facts.spacing_mm) / 1000
    return Anatomy(
        **vars(volume.facts),
        liver_slices=int(np.count_nonzero(liver_by_slice)),
        liver_voxels=int(liver_by_slice.sum()),
        tumor_voxels=int(voxels.sum()),
        liver_ml=float(liver_by_slice.sum()) * voxel_ml,
        tumor_ml=float(voxels.sum()) * voxel_ml,
        liver_hu=_median(hu[labels == 1]),
        tumor_hu=_median(hu[tumor]),
        lesions=len(voxels),
        largest_lesion_mm=2 * float(np.cbrt(750 / math.pi * voxels.max() * voxel_ml)) if len(voxels) else math.nan,
        liver_box=(x, y, z),
    )


def _median(hu: NDArray[np.int16]) -> float:
    return float(np.median(hu)) if hu.size else math.nan


def _thumbnail(volume: CtVolume) -> Thumbnail:
    area = np.count_nonzero(volume.labels, axis=(0, 1))
    z = int(area.argmax()) if area.any() else len(area) // 2
    hu, labels = squared(volume.hu[::-1, ::-1, z].T, HU_MIN), squared(volume.labels[::-1, ::-1, z].T, 0)
    resize = Resize(len(hu), THUMBNAIL_PX)
    return Thumbnail(resize.hu(hu), resize.labels(labels))


def _sha256(hu: NDArray[np.int16]) -> str:
    """Of the shape and the RAS voxels, so that a copy stored in another orientation is known, too."""
    digest = hashlib.sha256(str(hu.shape).encode())
    for start in range(0, hu.shape[2], _PLANES):
        digest.update(np.ascontiguousarray(hu[:, :, start : start + _PLANES].T, "<i2").data)
    return digest.hexdigest()


def _naming_copies(reports: Sequence[CaseReport]) -> list[CaseReport]:
    """A warning on every case whose image another case has as well: in a split the two may leak."""
    named = []
    for report in reports:
        alike = (other for other in reports if other.image_sha256 == report.image_sha256 and other is not report)
        others = [str(other.case) for other in alike if other.image_sha256]
        if others:
            text = f"the same image as case {', '.join(others)}: training and test may share a patient; leave one out"
            report = replace(report, warnings=(*report.warnings, text))
        named.append(report)
    return named
