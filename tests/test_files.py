"""Written whole or not at all: what is there while writing, afterwards, and after something went wrong."""

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from litsexp.files import whole_file, whole_folder


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "table.csv"
    with whole_file(path) as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".csv")  # numpy's save would append another suffix
        temporary.write_text("half")
        assert not path.parent.exists()
        temporary.write_text("whole")
    assert (below(tmp_path), path.read_text(), mode(path)) == (
        ["new", "new/deep", "new/deep/table.csv"],
        "whole",
        0o644,
    )


def test_a_file_that_is_there_is_refused_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(FileExistsError, match=r"table\.csv"), whole_file(path):
        pytest.fail("refused before anything is written")
    with whole_file(path, replace=True) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert (below(tmp_path), path.read_text()) == (["table.csv"], "new")


def test_a_file_that_somebody_else_wrote_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with pytest.raises(FileExistsError), whole_file(path) as temporary:
        temporary.write_text("ours")
        path.write_text("theirs")
    assert (below(tmp_path), path.read_text()) == (["table.csv"], "theirs")


def test_a_folder_is_there_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cohort"
    with whole_folder(path) as temporary:
        (temporary / "images").mkdir()
        (temporary / "images" / "0.png").touch()
        assert not path.parent.exists()
    assert below(tmp_path) == ["new", "new/cohort", "new/cohort/images", "new/cohort/images/0.png"]
    assert mode(path) == 0o755


def test_an_empty_folder_is_filled_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "mount"
    path.mkdir()
    path.chmod(0o700)
    inode = path.stat().st_ino
    with whole_folder(path) as temporary:
        (temporary / "a").touch()
        (temporary / "b").mkdir()
        (temporary / "b" / "c").touch()
    assert below(path) == ["a", "b", "b/c"]
    assert (path.stat().st_ino, mode(path)) == (inode, 0o700)
    for taken in (path, path / "a"):
        with pytest.raises(FileExistsError), whole_folder(taken):
            pytest.fail("refused before anything is written")


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_somebody_else_filled_meanwhile_stays(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "cohort"
    if there:
        path.mkdir()
    with pytest.raises(OSError), whole_folder(path) as temporary:
        (temporary / "ours").touch()
        path.mkdir(exist_ok=True)
        (path / "theirs").touch()
    assert below(tmp_path) == ["cohort", "cohort/theirs"]


def test_filling_that_fails_half_way_leaves_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def interrupted(source: Path, target: Path) -> Path:
        moved = rename(source, target)
        if target.name == "b" and target.parent == tmp_path:
            raise KeyboardInterrupt
        return moved

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path) as temporary:
        for name in "abc":
            (temporary / name).touch()
    assert below(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_after_an_exception_nothing_is_left(tmp_path: Path, whole, error: type[BaseException]) -> None:
    for path in (tmp_path / "x.csv", tmp_path / "new" / "x.csv"):
        with pytest.raises(error), whole(path) as temporary:
            (temporary if temporary.is_file() else temporary / "y").write_text("half")
            raise error
    assert below(tmp_path) == []


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_a_file_in_the_way_is_noticed_at_once(tmp_path: Path, whole) -> None:
    (tmp_path / "file").touch()
    context: AbstractContextManager[Path] = whole(tmp_path / "file" / "deep" / "x")
    with pytest.raises(NotADirectoryError, match="file/deep"), context:
        pytest.fail("refused before anything is written")
    assert below(tmp_path) == ["file"]
