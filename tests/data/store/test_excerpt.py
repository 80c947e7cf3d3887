from pathlib import Path

import numpy as np
import pytest

from litsexp.data.store import Store
from litsexp.data.store.excerpt import write_excerpt


def test_an_excerpt_holds_the_rows_as_cases_of_its_own(phantom_store: Store, tmp_path: Path) -> None:
    first, second = (phantom_store.rows_of([case])[:3] for case in phantom_store.cases[1:3])
    found = write_excerpt(phantom_store, [second, first[:2], second], tmp_path / "excerpt")
    assert found.cases == [0, 1, 2]
    assert [len(found.rows_of([case])) for case in found.cases] == [3, 2, 3]
    rows = np.concatenate([second, first[:2], second])
    assert (found.hu == phantom_store.hu[rows]).all()
    assert (found.labels == phantom_store.labels[rows]).all()
    assert found.index["z"].tolist() == phantom_store.index["z"].iloc[rows].tolist()
    assert found.phantom
    assert found.size == phantom_store.size


def test_other_slices_are_another_store(phantom_store: Store, tmp_path: Path) -> None:
    rows = phantom_store.rows_of(phantom_store.cases[:1])
    one, two = (write_excerpt(phantom_store, [rows[:n]], tmp_path / str(n)) for n in (2, 3))
    assert len({one.fingerprint, two.fingerprint, phantom_store.fingerprint}) == 3


def test_a_folder_that_is_there_is_not_written_to(phantom_store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        write_excerpt(phantom_store, [np.arange(2)], tmp_path)
