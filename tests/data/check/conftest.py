"""A scene: a body with a liver and a tumor of known size, to be changed and checked."""

import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from litsexp.data.check.folder import CaseReport, check_folder

LIVER = slice(34, 58), slice(20, 46), slice(6, 20)  # 24 x 26 x 14 voxels on the patient's right
TUMOR = slice(40, 46), slice(30, 36), slice(10, 13)  # 6 x 6 x 3
TURNED = "the spine is not at the back: the header's orientation may be wrong, the picture turned"
MIRRORED = "the liver lies on the patient's left: the header's orientation may be wrong (or situs inversus)"


@dataclasses.dataclass
class Scene:
    """An abdomen of boxes, RAS: air, a body, a spine at the back, a liver on the right with one tumor."""

    hu: np.ndarray
    labels: np.ndarray
    mm: tuple[float, float, float] = (3, 3, 8)

    def write(self, root: Path, number: int, flips: tuple[int, int, int] = (1, 1, 1)) -> None:
        """As case ``number``, stored along flipped axes."""
        root.mkdir(exist_ok=True)
        affine = np.diag([*(np.array(flips) * self.mm), 1.0])
        affine[:3, 3] = -100
        for kind, voxels in (("volume", self.hu), ("segmentation", self.labels)):
            stored = voxels[tuple(slice(None, None, flip) for flip in flips)]
            nib.save(nib.Nifti1Image(stored, affine), root / f"{kind}-{number}.nii")


@pytest.fixture
def scene() -> Scene:
    hu = np.full((64, 56, 24), -1000, np.int16)
    labels = np.zeros(hu.shape, np.uint8)
    hu[4:60, 4:52] = 40
    hu[28:36, 8:16] = 500
    hu[LIVER], labels[LIVER] = 110, 1
    hu[TUMOR], labels[TUMOR] = 60, 2
    return Scene(hu, labels)


def checked(scene: Scene, root: Path) -> CaseReport:
    scene.write(root / "ct", 7)
    (report,) = check_folder(root / "ct", processes=1).cases
    return report
