"""Tables: built-in rows resolve, an unknown name lists the known ones, a registered row is like a built-in one."""

import inspect
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from litsexp.spec.catalog import INITIALISATIONS, LOSSES, TABLES, WEIGHTS_FILE, Part, registered_modules
from litsexp.spec.cohort import SplitConfig
from litsexp.spec.design import Arm, Cell
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.spec.tables import load_plugins, register, resolve

REFERENCES = [
    (table.concept, name, field.name)
    for table in TABLES.values()
    for name, row in table.items()
    for field in fields(row)
    if isinstance(value := getattr(row, field.name), str) and value.startswith("litsexp.")
]


@pytest.fixture(autouse=True)
def tables_as_they_were() -> Iterator[None]:
    before = {concept: (dict(table.data), dict(table.added)) for concept, table in TABLES.items()}
    yield
    for concept, table in TABLES.items():
        table.data, table.added = before[concept]


@pytest.mark.parametrize(("concept", "name", "field"), REFERENCES, ids=str)
def test_every_built_in_row_names_a_function_that_is_there(concept: str, name: str, field: str) -> None:
    function = resolve(getattr(TABLES[concept][name], field))
    assert callable(function)


def test_every_row_says_what_it_is_in_one_line() -> None:
    for table in TABLES.values():
        for row in table.values():
            assert 0 < len(row.words) <= 70
            assert "\n" not in row.words


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    known = "one of ce_dice, focal, tversky"
    with pytest.raises(LitsexpError, match=rf"^loss: found 'ce_dyce'; expected {known}; did you mean 'ce_dice'"):
        LOSSES["ce_dyce"]
    with pytest.raises(ValueError, match=r"found 'notebok'; expected one of .*wide.*; did you mean 'notebook'"):
        RunConfig(window="notebok")


@pytest.mark.parametrize("init", ["a/b.safetensors", "x.pth", "file", "file:", ""])
def test_what_names_no_weights_file_is_no_init(init: str) -> None:
    with pytest.raises(ValueError, match=r"expected one of scratch, imagenet, shuffled, .*file:PATH"):
        RunConfig(init=init)


def test_a_weights_file_is_named_as_one() -> None:
    with pytest.raises(ValueError, match=r"found 'a/b\.safetensors'; .*; did you mean 'file:a/b\.safetensors'\?"):
        RunConfig(init="a/b.safetensors")
    assert RunConfig(init="file:a/b.safetensors").init == "file:a/b.safetensors"
    assert INITIALISATIONS.row_name("file:a:b.pth") == WEIGHTS_FILE


def test_a_registered_row_is_a_level_like_any_other() -> None:
    register("loss", "squared", words="a toy", make=lambda run: None)
    assert isinstance(LOSSES["squared"], Part)
    assert RunConfig(loss="squared").loss == "squared"
    assert registered_modules() == (__name__,)
    register("loss", "squared", words="loaded again", make=lambda run: None)  # a module may replace its own row
    assert LOSSES["squared"].words == "loaded again"


@pytest.mark.parametrize(
    ("concept", "name", "row", "told"),
    [
        ("los", "mine", {"words": "?"}, "register: found 'los'; expected one of metric, .*; did you mean 'loss'"),
        ("loss", "mine", {"words": "?"}, "register loss 'mine': missing 1 required .* 'make'; expected \\(words"),
        ("loss", "mine", {"words": "?", "made": 1}, "register loss 'mine': got an unexpected .* 'made'"),
        ("loss", "my loss", {"words": "?", "make": print}, "loss: found the name 'my loss'; expected letters"),
        ("loss", "ce_dice", {"words": "?", "make": print}, "loss: 'ce_dice' is there already"),
    ],
)
def test_a_row_that_is_none_is_refused(concept: str, name: str, row: dict[str, object], told: str) -> None:
    with pytest.raises(LitsexpError, match=told):
        register(concept, name, **row)


PLUGIN = """
import litsexp
litsexp.register("loss", "mine", words="a toy", make=len)
"""


def test_a_plugin_is_loaded_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_plugin_a.py").write_text(PLUGIN)
    load_plugins(["my_plugin_a"])
    load_plugins(["my_plugin_a"])  # loaded once
    assert resolve(LOSSES["mine"].make) is len
    assert "my_plugin_a" in registered_modules()


def test_an_edited_plugin_is_another_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_plugin_b.py").write_text(PLUGIN)
    load_plugins(["my_plugin_b"])

    def key(**settings: str) -> str:
        return Cell(Arm("any", RunConfig.model_validate(settings)), 0, 0).run_key(SplitConfig(folds=3), "abc")

    before, plain = key(loss="mine"), key()
    Path("my_plugin_b.py").write_text(PLUGIN + "# another\n")
    assert key(loss="mine") != before
    assert key() == plain


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "No module named"),
        ("1 / 0", "ZeroDivisionError"),
        ("import litsexp; litsexp.register('x', 'y')", "found 'x'"),
    ],
)
def test_a_plugin_that_fails_is_told_in_one_line(
    text: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("my_plugin_c.py").write_text(text)
    with pytest.raises(LitsexpError, match=told) as error:
        load_plugins(["my_plugin_c"])
    assert "\n" not in str(error.value)


def test_rows_have_docstrings() -> None:
    assert all(inspect.getdoc(table.row) for table in TABLES.values())
