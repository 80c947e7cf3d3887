"""What the pages promise: links that lead somewhere, tables that are whole, errors in the words that there are."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

import litsexp
from litsexp.spec.catalog import TABLES
from litsexp.spec.claim import Claim
from litsexp.spec.cohort import DataConfig, SplitConfig
from litsexp.spec.run import RunConfig
from litsexp.spec.study import SearchConfig, StudyConfig
from litsexp.spec.table_claims import TableClaims

from .pages import PAGES, ROOT, name_of, prose

DOCS = ROOT / "docs"
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+?)\s*$", re.MULTILINE)


def links() -> Iterator[tuple[str, Path, str, str]]:
    """Page, file and anchor of every link that leads to another place in the repository."""
    for page in PAGES:
        for target in LINK.findall(prose(page)):
            if not re.match(r"https?:", target):
                file, _, anchor = target.partition("#")
                yield name_of(page), (page.parent / file).resolve() if file else page, anchor, target


def anchors(page: Path, joined: str) -> set[str]:
    """Of the page's headings: as a git host makes them, and, with ``joined`` a hyphen, as the built site does."""
    bare = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in HEADING.findall(prose(page)))
    return {re.sub(r"[-\s]+", "-", words) if joined else words.replace(" ", "-") for words in bare}


@pytest.mark.parametrize(
    ("page", "file", "anchor", "target"), links(), ids=[f"{page}-{target}" for page, *_, target in links()]
)
def test_every_link_and_picture_is_there(page: str, file: Path, anchor: str, target: str) -> None:
    assert file.is_file(), f"{page}: {target}"
    assert page == "README.md" or file.is_relative_to(DOCS), f"{page}: {target} is no part of the site"
    for joined in ("-", "") if anchor else ():
        assert anchor in anchors(file, joined), f"{page}: {target}; expected one of {sorted(anchors(file, joined))}"


def test_every_picture_is_shown() -> None:
    assert {file.name for file in (DOCS / "pictures").iterdir()} == {
        file.name for _, file, _, _ in links() if file.suffix == ".png"
    }


def test_the_readme_is_short_and_names_every_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
    reached = {file for page, file, _, _ in links() if page == "README.md"}
    assert set(DOCS.glob("*.md")) - reached == {DOCS / "index.md"}  # the site's own way in


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_commands", DOCS / "write_commands.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its data class looks for its own types
    spec.loader.exec_module(module)
    return module


def test_the_commands_are_those_of_the_command_line() -> None:
    written = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert generator().page() == written, "run .venv/bin/python docs/write_commands.py"
    assert "| `--set` | `KEY=VALUE` |" in written
    assert "| `--port` | `N` | Default: `5000`. |" in written


def shown(value: Any) -> str:
    """A default as the tables show it."""
    return "none" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def rows(page: str, heading: str) -> dict[str, str]:
    """The tables below a heading, up to the next one: each name in a first column -> the whole line."""
    text = (DOCS / page).read_text(encoding="utf-8")
    below = re.split(r"^#+ .+$", text.split(f"# {heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in below.splitlines() if line.startswith("| `")]
    return {name: line for line in lines for name in re.findall(r"`(\w+)`", line.split("|")[1])}


@pytest.mark.parametrize(
    ("heading", "model", "besides"),
    [
        ("Settings of a run", RunConfig, set()),
        ("`data` and `external`", DataConfig, set()),
        ("`split`", SplitConfig, {"unit"}),
        ("The sections", StudyConfig, set()),
        ("Claims", Claim, set()),
    ],
)
def test_the_tables_of_a_study_file_are_whole(heading: str, model: type[BaseModel], besides: set[str]) -> None:
    told = rows("study-files.md", heading)
    assert set(model.model_fields) | besides <= set(told)


@pytest.mark.parametrize(("heading", "model"), [("Settings of a run", RunConfig), ("Claims", Claim)])
def test_every_setting_is_told_with_its_default(heading: str, model: type[BaseModel]) -> None:
    told = rows("study-files.md", heading)
    assert set(told) == set(model.model_fields)
    plain = {name: field.default for name, field in model.model_fields.items() if not field.is_required()}
    for name, default in plain.items():
        if isinstance(default, str | int | float | None):
            assert told[name].split("|")[-2].strip().startswith(shown(default)), name


def test_the_keys_of_a_search_and_of_a_claims_file_are_told() -> None:
    text = (DOCS / "study-files.md").read_text()
    assert all(f"| `{name}` |" in text for name in SearchConfig.model_fields)
    assert set(rows("judge.md", "The claims file")) == set(TableClaims.model_fields)


def test_every_table_that_can_be_added_to_is_told() -> None:
    assert set(rows("add-an-arm.md", "Every table")) == set(TABLES)


def test_errors_are_quoted_in_the_words_that_there_are() -> None:
    source = " ".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "litsexp").rglob("*.py")))
    joined = re.sub(r'"\s*f?"', "", source)  # a message that goes on in the next line
    faq = (DOCS / "faq.md").read_text().split("## Errors that people meet")[1]
    quoted = re.findall(r"^\| `([^`]+)` \|", faq, re.MULTILINE)
    assert len(quoted) > 8
    assert [words for words in quoted if words.replace("expected one of", "one of") not in joined] == []


def test_the_reference_has_every_public_name() -> None:
    told = re.findall(r"^::: litsexp\.(\S+)$", (DOCS / "reference" / "api.md").read_text(), re.MULTILINE)
    assert {f"{home}.{name}" for name, home in litsexp._HOMES.items()} <= set(told)


class Resources(HTMLParser):
    """What a page has a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("script", "img", "iframe", "source", "video", "link"):
            self.found += [given[name] for name in ("src", "href") if name in given]


def test_the_site_is_built_without_a_warning_and_fetches_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr + built.stdout
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        resources = Resources()
        resources.feed(page.read_text(encoding="utf-8"))
        assert len(resources.found) > 3
        assert [url for url in resources.found if re.match(r"(https?:)?//", url)] == [], page.name
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(url\(|@import\s*)[\"']?(https?:)?//", style.read_text(encoding="utf-8")), style.name
