"""Tables as they lie in files: separators, decimal commas, and what is refused."""

import pandas as pd
import pytest

from litsexp.evidence.foreign.files import read_table
from litsexp.spec.errors import LitsexpError


@pytest.fixture
def read(tmp_path):
    def of(content, name="results.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(tmp_path / name)

    return of


def test_every_cell_is_text_as_it_stands(read):
    table = read('arm,case,dice\n"lr 0,1",007, 0.50 \n\nold,008,\n')
    assert table.to_dict("list") == {"arm": ["lr 0,1", "old"], "case": ["007", "008"], "dice": ["0.50", ""]}


def test_a_spreadsheets_own_csv_with_decimal_commas(read):
    table = read(b"\xef\xbb\xbfarm;case;dice;hd95\r\nlr 0,1, Adam;p,1;0,50;-1,5e2\r\n")
    assert table.iloc[0].to_dict() == {"arm": "lr 0,1, Adam", "case": "p,1", "dice": "0.50", "hd95": "-1.5e2"}


def test_tabs(read):
    assert read("arm\tcase\nold\tp1\n", "results.tsv")["case"].tolist() == ["p1"]


def test_parquet_as_it_is(tmp_path):
    table = pd.DataFrame({"arm": ["old"], "case": [3], "dice": [0.5]})
    table.to_parquet(tmp_path / "results.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "results.parquet"), table)


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("", "results.csv", "found an empty file; expected a header and rows"),
        ("arm,case,arm\n", "results.csv", "found the column 'arm' twice; expected it once"),
        ("arm,case\nold,p1\nold,p1,0.5\n", "results.csv", "line 3: found 3 cells; expected 2, as in the header"),
        (b"arm,case\n\xff\n", "results.csv", "expected CSV in UTF-8, or parquet"),
        ("arm", "results.xlsx", "found the ending '.xlsx'; expected .csv, .tsv or .parquet"),
        ("arm", "results", "found no ending; expected .csv, .tsv or .parquet"),
        ("arm", "results.parquet", "cannot be read"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(read, content, name, said):
    with pytest.raises(LitsexpError) as caught:
        read(content, name)
    assert f"{name}: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(LitsexpError, match=r"no\.csv: cannot be read \(No such file or directory\)"):
        read_table(tmp_path / "no.csv")
