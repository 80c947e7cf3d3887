"""A folder of cases: copies, order, what is not there."""

from pathlib import Path

import pytest

from litsexp.data.check import folder as check
from litsexp.data.check.folder import check_folder
from litsexp.data.ct.layout import Case
from litsexp.data.ct.volume import CtVolume
from litsexp.spec.errors import LitsexpError

from .conftest import TUMOR, Scene


def test_copies_are_named_whatever_their_storage_and_labels(scene: Scene, tmp_path: Path) -> None:
    scene.write(tmp_path, 3)
    scene.hu[0, 0, 0] += 1
    scene.write(tmp_path, 5)
    scene.hu[0, 0, 0] -= 1
    scene.labels[TUMOR] = 1
    scene.write(tmp_path, 9, flips=(-1, -1, 1))
    third, fifth, ninth = check_folder(tmp_path, processes=1).cases
    text = "the same image as case {}: training and test may share a patient; leave one out"
    assert (third.warnings, fifth.warnings, ninth.warnings) == ((text.format(9),), (), (text.format(3),))
    assert ninth.anatomy is not None and ninth.anatomy.orientation == "LPS"


def test_a_folder_in_the_order_of_numbers_with_all_that_is_wrong(scene: Scene, tmp_path: Path) -> None:
    for number in (10, 2, 4):
        scene.hu[0, 0, 0] += 1
        scene.write(tmp_path, number)
    (tmp_path / "segmentation-4.nii").unlink()
    (tmp_path / "volume-2.nii").write_text("nothing")
    for name in ("test-volume-3.nii", "mask.nii.gz"):
        (tmp_path / name).touch()
    calls: list[tuple[int, int]] = []
    report = check_folder(tmp_path, 2, lambda done, total: calls.append((done, total)))
    assert [case.case for case in report.cases] == [2, 4, 10]
    assert [case.case for case in report.errors] == [2, 4]
    assert "volume-2.nii: not a NIfTI file" in report.cases[0].error
    assert "no segmentation with number 4" in report.cases[1].error
    assert (report.unlabeled, report.others, report.usable, report.phantom) == (1, 1, False, False)
    assert calls == [(1, 2), (2, 2)]


def test_a_folder_without_cases_cannot_be_used_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    report = check_folder(tmp_path)
    assert not report.usable and not report.cases
    assert "found no labeled CT case" in report.problem
    with pytest.raises(LitsexpError, match="found nothing"):
        check_folder(tmp_path / "no")


def test_a_lack_of_memory_is_an_error_of_the_case(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starved(case: Case) -> CtVolume:
        raise MemoryError

    scene.write(tmp_path, 1)
    monkeypatch.setattr(check, "read_case", starved)
    (report,) = check_folder(tmp_path, processes=1).cases
    assert report.error.startswith(f"{tmp_path / 'volume-1.nii'}: too large for the memory there is")
