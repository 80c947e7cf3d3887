"""What stands on a page: its fenced blocks, the commands in them, and those in its sentences."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:litsexp|python run_study\.py) [^`]+)`")
FILE_NAME = re.compile(r"# (\S+\.(?:py|ya?ml))\n")
SHELL = set("|&;<>${}*?!`")  # what only a shell understands: no command on a page needs it


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str  # sh, yaml, python; empty for what is only shown
    text: str
    line: int

    @property
    def file_name(self) -> str:
        """What a reader saves it as: the comment in its first line; empty for none."""
        found = FILE_NAME.match(self.text)
        return found[1] if found else ""

    @property
    def commands(self) -> list[str]:
        """Each line of a shell block without its comment, as it is typed."""
        lines = self.text.replace("\\\n", " ").splitlines() if self.kind == "sh" else []
        return [shown for line in lines if (shown := shlex.join(shlex.split(line, comments=True)))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Every fenced block, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(found[1], found[2], text.count("\n", 0, found.start()) + 1) for found in FENCE.finditer(text)]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def commands_in_sentences(page: Path) -> Iterator[str]:
    """``litsexp …`` in backquotes, one each."""
    yield from dict.fromkeys(found[1].replace("\n", " ") for found in INLINE.finditer(prose(page)))
