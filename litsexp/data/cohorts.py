"""From a study's cohort setting to its slice store: a phantom is written where it is missing, a store built."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from litsexp.data.parallel import Progress
from litsexp.data.phantom.cohort import write_cohort
from litsexp.data.phantom.patient import PhantomConfig
from litsexp.data.store import Store, prepare
from litsexp.spec.cohort import DataConfig

PHANTOM_SIZE = 96  # pixels a side, unless the study wants more

Bar = Callable[[str], AbstractContextManager[Progress]]  # what is done -> a progress bar


def store_of(data: DataConfig, stores: Path, bar: Bar) -> Store:
    """The slice store of a cohort; ``stores`` holds phantoms, too. LitsexpError: refused cases, a full disk."""
    root = folder_of(data, stores, bar)
    with bar("slice store") as progress:
        return prepare(root, stores / "stores", data, progress=progress)


def folder_of(data: DataConfig, stores: Path, bar: Bar) -> Path:
    """The folder of a cohort's volumes; a phantom is written where it is missing."""
    return _phantom_of(data, stores, bar) if data.cohort == "phantom" else Path(data.cohort)


def _phantom_of(data: DataConfig, stores: Path, bar: Bar) -> Path:
    """The folder of a study's phantom, written where it is missing."""
    size = max(PHANTOM_SIZE, data.size)
    config = PhantomConfig(data.patients, data.seed, size, site=data.site, lesions=data.lesions)
    site = f"-site{data.site}" if data.site != "A" else ""
    lesions = f"-{data.lesions}" if data.lesions != "lits" else ""
    directory = stores / f"phantom-{data.patients}-seed{data.seed}-{size}px{site}{lesions}"
    with bar("phantom patients") as progress:
        return write_cohort(directory, config, progress=progress)
