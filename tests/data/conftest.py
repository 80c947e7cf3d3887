"""Two small CT cases on disk, two ways to slice them, and what a build left behind."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from litsexp.spec.cohort import DataConfig

SHAPE = (64, 64, 3)


@pytest.fixture
def data() -> DataConfig:
    return DataConfig(size=32)


@pytest.fixture
def all_slices() -> DataConfig:
    return DataConfig(size=32, slices="all")


@pytest.fixture
def shape() -> tuple[int, int, int]:
    """Voxels of a case that ``write_case`` makes up."""
    return SHAPE


def _write_case(root: Path, number: int, hu: np.ndarray | None = None, labels: np.ndarray | None = None) -> None:
    """One RAS case of 0.5 x 0.5 x 2 mm: liver in slices 1 and 2, an 8 x 8 tumor in slice 2."""
    root.mkdir(parents=True, exist_ok=True)
    if hu is None:
        hu = np.random.default_rng(number).integers(-100, 200, SHAPE).astype(np.int16)
    if labels is None:
        labels = np.zeros(SHAPE, np.uint8)
        labels[8:40, 8:40, 1:] = 1
        labels[16:24, 16:24, 2] = 2
    affine = np.diag([0.5, 0.5, 2, 1])
    nib.save(nib.Nifti1Image(hu, affine), root / f"volume-{number}.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), root / f"segmentation-{number}.nii.gz")


@pytest.fixture
def write_case() -> Callable[..., None]:
    """``write_case(root, number, hu, labels)``; without HU or labels it makes them up."""
    return _write_case


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in (11, 2):
        _write_case(tmp_path / "ct", number)
    return tmp_path / "ct"


@pytest.fixture
def left_over() -> Callable[[Path], list[str]]:
    """``left_over(stores)``: what is there, locks aside."""

    def names(stores: Path) -> list[str]:
        return [path.name for path in stores.iterdir() if path.suffix != ".lock"] if stores.exists() else []

    return names
