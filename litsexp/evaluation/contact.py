"""A contact sheet: one liver slice a case, so that a person sees at a glance what no rule would notice."""

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from litsexp.data.check.folder import THUMBNAIL_PX, CaseReport, FolderReport
from litsexp.data.ct.windows import windowed
from litsexp.evaluation.overlays import INK, PAPER, Color, Font, grays, labelled

WINDOW = (400, 40)  # (width, level) in HU: the whole abdomen
FRAME_PX, GAP_PX, LINE_PX, FONT_PX = 4, 10, 15, 12
LEAST_COLUMNS = 4
REFUSED: Color = (220, 40, 40)
WARNED: Color = (255, 176, 0)  # amber
TILE_WIDTH_PX = THUMBNAIL_PX + 2 * FRAME_PX
TILE_HEIGHT_PX = TILE_WIDTH_PX + 2 * LINE_PX
HEAD_PX = 2 * LINE_PX + 2 * GAP_PX
LEGEND = (
    "green: liver · yellow: tumor · amber frame: warnings · red frame: refused · the patient's right is on the left"
)


def contact_sheet(report: FolderReport) -> Image.Image:
    """The cases by number in a grid about as high as wide: 12 columns for 131 cases.

    Each has its slice in the ``WINDOW`` with the tumor filled and the liver outlined, and below it the case number and
    what it holds. An amber frame means warnings, a red one that a study refuses the case; without a slice the frame
    holds the error. Equal reports give equal pixels. RGB.
    """
    columns = max(LEAST_COLUMNS, math.ceil(math.sqrt(len(report.cases))))
    rows = math.ceil(len(report.cases) / columns)
    width = columns * (TILE_WIDTH_PX + GAP_PX) + GAP_PX
    sheet = Image.new("RGB", (width, HEAD_PX + rows * (TILE_HEIGHT_PX + GAP_PX)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=FONT_PX)
    kind = "phantom, no real patients" if report.phantom else f"window {WINDOW[0]}/{WINDOW[1]} HU"
    folder, count = report.root.resolve().name, "1 case" if len(report.cases) == 1 else f"{len(report.cases)} cases"
    draw.text((GAP_PX, GAP_PX + LINE_PX // 2), f"{folder} · {count} · {kind}", INK, font, anchor="lm")
    draw.text((GAP_PX, GAP_PX + 3 * LINE_PX // 2), LEGEND, INK, font, anchor="lm")
    for index, case in enumerate(report.cases):
        row, column = divmod(index, columns)
        place = (GAP_PX + column * (TILE_WIDTH_PX + GAP_PX), HEAD_PX + row * (TILE_HEIGHT_PX + GAP_PX))
        sheet.paste(_tile(case, f"{report.root}/", font), place)
    return sheet


def _tile(case: CaseReport, folder: str, font: Font) -> Image.Image:
    tile = Image.new("RGB", (TILE_WIDTH_PX, TILE_HEIGHT_PX), PAPER)
    draw = ImageDraw.Draw(tile)
    frame = REFUSED if case.error else WARNED if case.warnings else PAPER
    draw.rectangle((0, 0, TILE_WIDTH_PX - 1, TILE_WIDTH_PX - 1), outline=frame, width=FRAME_PX)
    if case.thumbnail is not None:
        gray = grays(windowed(case.thumbnail.hu.astype(np.float32), *WINDOW))
        picture = labelled(np.repeat(gray[..., None], 3, axis=-1), case.thumbnail.labels)
        tile.paste(Image.fromarray(picture), (FRAME_PX, FRAME_PX))
    else:
        lines = list(_wrapped(case.error.replace(folder, ""), THUMBNAIL_PX - 8, font))
        most = THUMBNAIL_PX // LINE_PX
        if len(lines) > most:
            lines[most - 1 :] = [f"{lines[most - 1][:-1]}…"]
        for number, line in enumerate(lines):
            draw.text((FRAME_PX + 4, FRAME_PX + 2 + number * LINE_PX), line, INK, font)
    for number, line in enumerate((f"case {case.case}", _contents(case))):
        draw.text((FRAME_PX, TILE_WIDTH_PX + (number + 0.5) * LINE_PX), line, INK, font, anchor="lm")
    return tile


def _contents(case: CaseReport) -> str:
    """``1.5 L liver · 3 lesions``"""
    if case.anatomy is None:
        return "refused"
    if not case.anatomy.liver_voxels:
        return "no liver"
    volume = "liver" if math.isnan(case.anatomy.liver_ml) else f"{case.anatomy.liver_ml / 1000:.1f} L liver"
    lesions = {0: "no tumor", 1: "1 lesion"}.get(case.anatomy.lesions, f"{case.anatomy.lesions} lesions")
    return f"{volume} · {lesions}"


def _wrapped(text: str, width_px: float, font: Font) -> Iterator[str]:
    """Lines no wider than ``width_px``; a word that is wider alone, such as a path, is broken."""
    line = ""
    for word in text.split():
        if line and font.getlength(f"{line} {word}") > width_px:
            yield line
            line = word
        else:
            line = f"{line} {word}".strip()
        while font.getlength(line) > width_px:
            fits = next(n for n in range(len(line), 0, -1) if n == 1 or font.getlength(line[:n]) <= width_px)
            yield line[:fits]
            line = line[fits:]
    if line:
        yield line
