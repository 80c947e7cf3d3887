"""The contact sheet: where each case lies, its frame's color, its picture, and equal bytes for equal reports."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from litsexp.data.check.folder import THUMBNAIL_PX, CaseReport, FolderReport, Thumbnail
from litsexp.data.check.oddities import Anatomy
from litsexp.evaluation import contact
from litsexp.evaluation.contact import FRAME_PX, GAP_PX, REFUSED, TILE_HEIGHT_PX, TILE_WIDTH_PX, WARNED, contact_sheet
from litsexp.evaluation.overlays import LIVER, PAPER, to_png

TOP_PX = contact.HEAD_PX


def anatomy(liver_ml: float = 1500.0, lesions: int = 3, liver_voxels: int = 9) -> Anatomy:
    nothing = slice(0, 0)
    return Anatomy(
        shape=(8, 8, 8),
        spacing_mm=(1, 1, 1),
        orientation="RAS",
        dtype="int16",
        hu_range=(-1000, 1000),
        clipped=0,
        padding=0,
        remarks=(),
        liver_slices=1,
        liver_voxels=liver_voxels,
        tumor_voxels=lesions,
        liver_ml=liver_ml,
        tumor_ml=1.0,
        liver_hu=110.0,
        tumor_hu=60.0,
        lesions=lesions,
        largest_lesion_mm=5.0,
        liver_box=(nothing, nothing, nothing),
    )


def report(case: int, error: str = "", warnings: tuple[str, ...] = ()) -> CaseReport:
    """A liver that fills the left half of a uniform picture of 40 HU."""
    labels = np.zeros((THUMBNAIL_PX, THUMBNAIL_PX), np.uint8)
    labels[:, : THUMBNAIL_PX // 2] = 1
    thumbnail = Thumbnail(np.full(labels.shape, 40, np.int16), labels)
    return CaseReport(case, error=error, warnings=warnings, anatomy=anatomy(), thumbnail=thumbnail)


def folder(*cases: CaseReport, phantom: bool = False) -> FolderReport:
    return FolderReport(Path("/data/ct"), cases, phantom=phantom)


def tile(sheet: Image.Image, row: int, column: int) -> Image.Image:
    left = GAP_PX + column * (TILE_WIDTH_PX + GAP_PX)
    top = TOP_PX + row * (TILE_HEIGHT_PX + GAP_PX)
    return sheet.crop((left, top, left + TILE_WIDTH_PX, top + TILE_HEIGHT_PX))


def test_frames_pictures_and_the_place_of_each_case() -> None:
    odd, refused = report(2, warnings=("odd",)), report(3, "no liver", ("odd",))
    sheet = contact_sheet(folder(report(1), odd, refused, report(8), report(9)))
    assert sheet.size == (GAP_PX + 4 * (TILE_WIDTH_PX + GAP_PX), TOP_PX + 2 * (TILE_HEIGHT_PX + GAP_PX))
    places = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    assert [tile(sheet, *place).getpixel((0, 0)) for place in places] == [PAPER, WARNED, REFUSED, PAPER, PAPER]
    middle = FRAME_PX + THUMBNAIL_PX // 2
    for place in places:
        assert tile(sheet, *place).getpixel((middle - 1, middle)) == LIVER  # the outline's rim
        assert tile(sheet, *place).getpixel((middle - 9, middle)) == (128, 128, 128)
    assert tile(sheet, 1, 1).getcolors() == [(TILE_WIDTH_PX * TILE_HEIGHT_PX, PAPER)]


def test_an_unreadable_case_is_its_error_in_a_red_frame() -> None:
    unread = CaseReport(4, "volume-4.nii", error="/data/ct/volume-4.nii: truncated " + "or corrupt " * 80)
    shown = tile(contact_sheet(folder(unread)), 0, 0)
    assert shown.getpixel((0, 0)) == REFUSED
    inside = np.asarray(shown)[FRAME_PX:-FRAME_PX, FRAME_PX : TILE_WIDTH_PX - FRAME_PX]
    assert (inside.reshape(-1, 3) != PAPER).any(axis=1).mean() > 0.05  # words
    shorter = CaseReport(4, "volume-4.nii", error="volume-4.nii: truncated " + "or corrupt " * 80)
    assert to_png(contact_sheet(folder(shorter))) == to_png(contact_sheet(folder(unread)))  # the folder is not repeated


@pytest.mark.parametrize(("cases", "columns"), [(1, 4), (4, 4), (17, 5), (131, 12)])
def test_the_grid_is_about_as_high_as_wide(cases: int, columns: int) -> None:
    sheet = contact_sheet(folder(*(CaseReport(n, error="x") for n in range(cases))))
    assert sheet.width == GAP_PX + columns * (TILE_WIDTH_PX + GAP_PX)
    assert sheet.height == TOP_PX + math.ceil(cases / columns) * (TILE_HEIGHT_PX + GAP_PX)


def test_equal_reports_give_equal_bytes_and_a_phantom_is_called_one() -> None:
    first, second = (to_png(contact_sheet(folder(report(1), report(2)))) for _ in range(2))
    assert first == second
    assert to_png(contact_sheet(folder(report(1), report(2), phantom=True))) != first
    assert to_png(contact_sheet(folder(report(1), report(3)))) != first


def test_what_a_case_holds_in_few_words() -> None:
    def said(found: Anatomy | None) -> str:
        return contact._contents(CaseReport(1, anatomy=found))

    assert said(anatomy()) == "1.5 L liver · 3 lesions"
    assert said(anatomy(lesions=1)) == "1.5 L liver · 1 lesion"
    assert said(anatomy(liver_ml=math.nan, lesions=0)) == "liver · no tumor"
    assert said(anatomy(liver_voxels=0)) == "no liver"
    assert said(None) == "refused"


def test_lines_are_wrapped_and_long_words_broken() -> None:
    font = ImageFont.load_default(size=12)
    text = "a/very/long/path/without/any/space/volume-1.nii.gz: is truncated"
    lines = list(contact._wrapped(text, 100, font))
    assert all(font.getlength(line) <= 100 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert list(contact._wrapped("", 100, font)) == []
