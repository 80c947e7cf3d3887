"""An export is written whole or not at all, and what cannot be exported is refused in one line."""

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from litsexp import export as export_module
from litsexp.export import ExportConfig, export, refuse_early

from .conftest import ALL, JPEG, SHAPE, files, refusal, run, stored, write_case


def test_an_empty_folder_is_filled(few: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    there = (tmp_path / "out").stat().st_ino
    run(few, tmp_path / "out")
    assert (tmp_path / "out").stat().st_ino == there
    run(few, tmp_path / "new" / "deep")
    assert files(tmp_path / "out") == files(tmp_path / "new" / "deep")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct", "ct-stores", "new", "out"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["deep"]


def test_a_folder_in_use_is_refused_before_anything_is_read(few: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    store = stored(few)
    for out, said in (
        (tmp_path / "out", "found mine.txt in it; expected a new or empty folder"),
        (tmp_path / "out" / "mine.txt", "cannot be used (Not a directory)"),
        (tmp_path / "out" / "mine.txt" / "x", "cannot be used (Not a directory)"),
    ):
        assert said in refusal(lambda out=out: refuse_early(tmp_path / "no", out, JPEG), out)
        assert said in refusal(lambda out=out: export(store, out, JPEG, processes=1), out)
    said = refusal(lambda: refuse_early(tmp_path / "no", tmp_path / "new", JPEG), tmp_path / "new")
    assert "found nothing; expected a folder with" in said


@pytest.mark.parametrize("there", [False, True])
def test_a_broken_case_leaves_nothing(few: Path, tmp_path: Path, there: bool) -> None:
    broken = few / "volume-2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-9])
    out = tmp_path / "new" / "out"
    if there:
        out.mkdir(parents=True)
    (tmp_path / "ct-stores").mkdir()
    assert f"{broken}: truncated" in refusal(lambda: run(few, out), out)
    assert (tmp_path / "new").exists() == there


def test_a_case_without_liver(few: Path, tmp_path: Path) -> None:
    write_case(few, 1, labels=np.zeros(SHAPE, np.uint8))
    (tmp_path / "ct-stores").mkdir()
    assert "case 1 has no liver" in refusal(lambda: run(few, tmp_path / "out"), tmp_path / "out")
    run(few, tmp_path / "out", data=ALL)
    assert len(list((tmp_path / "out" / "images").iterdir())) == 18


def test_too_few_patients_for_the_split_are_noticed_before_any_work(few: Path, tmp_path: Path) -> None:
    (few / "volume-0.nii.gz").write_bytes(b"")
    for path in few.glob("*-2.nii.gz"):
        path.unlink()
    message = refusal(lambda: refuse_early(few, tmp_path / "out", JPEG), tmp_path / "out")
    assert "found 2 patients; expected at least 3" in message and "--no-split" in message


def test_a_full_disk(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, out = stored(few), tmp_path / "out"
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(9, 9, 100))
        assert "0 MB free; expected about" in refusal(lambda: export(store, out, JPEG, processes=1), out)

    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "to_png", full)
    said = refusal(lambda: export(store, out, JPEG, processes=1), out)
    assert "cannot write the export (No space left on device)" in said


@pytest.mark.parametrize("there", [False, True])
def test_an_interrupt_leaves_nothing(few: Path, tmp_path: Path, there: bool) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    if there:
        (tmp_path / "out").mkdir()
    store = stored(few)
    with pytest.raises(KeyboardInterrupt):
        export(store, tmp_path / "out", JPEG, 1, interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct", "ct-stores", *(["out"] if there else [])]
    assert not there or not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quality": 0}, "greater than or equal to 1"),
        ({"window": "bone"}, "expected one of liver, custom, wide, notebook"),
        ({"format": "png", "quality": 90}, "format: found png, which loses nothing, with quality 90"),
        ({"format": "png", "subsampling": "4:2:0"}, "expected jpeg, or neither"),
        ({"split": {"folds": 3}}, "split: found folds"),
        ({"qualty": 90}, "Extra inputs"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        ExportConfig.model_validate(settings)
    assert said in str(error.value)
