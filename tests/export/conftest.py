"""Cases of known voxels, and an export of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from litsexp.data.splits import Split
from litsexp.data.store import Store, prepare
from litsexp.export import ExportConfig, export, refuse_early
from litsexp.spec.cohort import SplitConfig, StoreConfig
from litsexp.spec.errors import LitsexpError

SHAPE = (64, 48, 6)  # x, y, z in RAS: wider than deep
ALL = StoreConfig(size=32, slices="all")
LIVER = StoreConfig(size=32)
JPEG, PNG = ExportConfig(), ExportConfig(format="png")
SPLIT = SplitConfig(train=0.7, valid=0.15, test=0.15, seed=0)


def write_case(root: Path, number: int, hu: np.ndarray | None = None, labels: np.ndarray | None = None) -> None:
    """One RAS case of 0.5 x 0.5 x 2 mm: smooth noise; liver in slices 1 to 3, tumor in slice 2 of every even case."""
    root.mkdir(parents=True, exist_ok=True)
    if hu is None:
        x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
        waves = 90 * np.sin(x / 5 + number) + 60 * np.cos(y / 7 - z) + 50
        hu = (waves + np.random.default_rng(number).normal(0, 8, SHAPE)).astype(np.int16)
    if labels is None:
        labels = np.zeros(SHAPE, np.uint8)
        labels[8:40, 8:40, 1:4] = 1
        labels[16:24, 16:24, 2] = 2 - number % 2
    affine = np.diag([0.5, 0.5, 2, 1])
    nib.save(nib.Nifti1Image(hu, affine), root / f"volume-{number}.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), root / f"segmentation-{number}.nii.gz")


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven patients, four of them with tumor."""
    root = tmp_path_factory.mktemp("cohort") / "ct"
    for number in (0, 1, 2, 3, 4, 11, 12):
        write_case(root, number)
    return root


@pytest.fixture
def few(cohort: Path, tmp_path: Path) -> Path:
    """A copy of three patients to spoil."""
    root = tmp_path / "ct"
    root.mkdir()
    for number in (0, 1, 2):
        for path in cohort.glob(f"*-{number}.nii.gz"):
            shutil.copy(path, root)
    return root


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def run(
    root: Path, out: Path, config: ExportConfig = JPEG, data: StoreConfig = LIVER, processes: int = 1
) -> Split | None:
    """What the command does: refuse early, build the store or open it, export."""
    refuse_early(root, out, config)
    return export(stored(root, data), out, config, processes)


def stored(root: Path, data: StoreConfig = LIVER) -> Store:
    return prepare(root, root.with_name(f"{root.name}-stores"), data, processes=1)


def refusal(attempt: Callable[[], object], out: Path) -> str:
    """The one line with which an export to ``out`` is refused; nothing new lies in its folder."""
    before = [sorted(folder.glob("*")) for folder in (out.parent.parent, out.parent, out)]
    with pytest.raises(LitsexpError) as error:
        attempt()
    assert "\n" not in str(error.value)
    assert [sorted(folder.glob("*")) for folder in (out.parent.parent, out.parent, out)] == before
    return str(error.value)
