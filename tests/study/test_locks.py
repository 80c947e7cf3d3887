"""A study's lock in a folder; that of PostgreSQL is in postgres/test_drivers.py."""

from pathlib import Path

import pytest

from litsexp.spec.errors import LitsexpError
from litsexp.study.locks import one_driver


def test_where_nobody_could_read_who_drives_nobody_does(tmp_path: Path) -> None:
    """As a file of another user that nobody else may write, or on a full disk: one line, and the lock is free again."""
    url, holder = f"sqlite:///{tmp_path}/optuna.db", tmp_path / "tiny.driver.json"
    holder.mkdir()
    with (
        pytest.raises(LitsexpError, match=f"{tmp_path}: cannot be written .*; name another with --mlruns"),
        one_driver(url, "tiny", tmp_path),
    ):
        raise AssertionError("there is a driver")
    holder.rmdir()
    with one_driver(url, "tiny", tmp_path):
        assert holder.is_file()
    assert not holder.exists()
