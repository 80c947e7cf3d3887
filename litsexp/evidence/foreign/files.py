"""A table of results as it lies in a file: every cell, before anything is made of it."""

import csv
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from litsexp.evidence.foreign.tidy import LABELS
from litsexp.spec.errors import LitsexpError, one_line

SEPARATORS = ",;\t"
DECIMAL_COMMA = re.compile(r"([-+]?\d*),(\d+(?:[eE][-+]?\d+)?)")


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or parquet file; of a CSV all cells as text, so that case 007 stays 007.

    Cells may be separated by comma, semicolon or tab, whichever its header has most of. Where it is not the comma, 0,5
    is a half, as spreadsheets write it in much of Europe.

    Raises:
        LitsexpError: it cannot be read, is no such table, or has a row of another length than its header.
    """
    try:
        if path.suffix.lower() in (".csv", ".tsv", ".txt"):
            return _csv(path)
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
    except OSError as error:
        reason = error.strerror or "no such table"
        raise LitsexpError(f"{path}: cannot be read ({reason}); expected a table: CSV or parquet") from None
    except (ValueError, csv.Error) as error:
        raise LitsexpError(f"{path}: cannot be read ({one_line(error)}); expected CSV in UTF-8, or parquet") from None
    found = f"the ending {path.suffix!r}" if path.suffix else "no ending"
    raise LitsexpError(f"{path}: found {found}; expected .csv, .tsv or .parquet; save a spreadsheet as CSV")


def _csv(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets put a mark before the first letter
        first = file.readline()
        separator = max(SEPARATORS, key=first.count)
        file.seek(0)
        rows = csv.reader(file, delimiter=separator)
        header = [name.strip() for name in next(rows, [])]
        table = [_row(path, rows.line_num, row, header) for row in rows if any(cell.strip() for cell in row)]
    if not header:
        raise LitsexpError(f"{path}: found an empty file; expected a header and rows")
    if twice := [name for name, number in Counter(header).items() if number > 1]:
        raise LitsexpError(f"{path}: found the column {twice[0]!r} twice; expected it once; rename or remove one")
    cells = pd.DataFrame(table, columns=header, dtype=object)
    scores = [] if separator == "," else [name for name in header if name not in LABELS]
    return cells.assign(**{name: cells[name].map(_decimal_point) for name in scores})


def _decimal_point(cell: str) -> str:
    number = DECIMAL_COMMA.fullmatch(cell)
    return f"{number[1]}.{number[2]}" if number else cell


def _row(path: Path, line: int, row: list[str], header: list[str]) -> list[str]:
    if len(row) != len(header):
        raise LitsexpError(f"{path}: line {line}: found {len(row)} cells; expected {len(header)}, as in the header")
    return [cell.strip() for cell in row]
