"""A table a concept: the names that a study file may use, and what stands behind each.

A row says in one line what it is and names its functions as ``module:attribute``; they are imported when they are
used, so that reading a study file loads no torch. ``register`` adds a row from any module: it is then used like a
built-in one.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from litsexp.spec.errors import LitsexpError
from litsexp.spec.keys import file_sha256

Reference = Callable[..., Any] | str  # a function, or where it stands: "package.module:function"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Row:
    """What every row has."""

    words: str  # what it is, in one line


R = TypeVar("R", bound=Row)


class Table(Mapping[str, R], Generic[R]):
    """One concept's rows by name, in the order in which they are shown."""

    def __init__(self, concept: str, row: type[R], built_in: Mapping[str, R]):
        self.concept, self.row = concept, row
        self._rows: dict[str, R] = dict(built_in)
        self._added: dict[str, str] = {}  # name -> the module that registered it

    def __getitem__(self, name: str) -> R:
        """The row; LitsexpError lists the known names."""
        try:
            return self._rows[name]
        except KeyError:
            raise LitsexpError(f"{self.concept}: {self.unknown(name)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def unknown(self, name: object) -> str:
        """What is said of a name that is not in the table: ``found 'x'; expected one of a, b; did you mean 'a'?``"""
        return f"found {name!r}; expected {one_of(self)}{nearest(name, self)}"

    def add(self, name: str, row: R, module: str) -> None:
        """Add a row; a module that is loaded again replaces its own."""
        if not NAME.fullmatch(name):
            raise LitsexpError(f"{self.concept}: found the name {name!r}; expected letters, digits and _; rename it")
        if name in self._rows and self._added.get(name) != module:
            raise LitsexpError(f"{self.concept}: {name!r} is there already; expected another name; rename it")
        self._rows[name], self._added[name] = row, module

    def source(self, name: str) -> str:
        """SHA-256 of the file that registered a row, so that an edited arm is another arm; empty for a built-in one."""
        module = sys.modules.get(self._added.get(name, ""))
        file = getattr(module, "__file__", None)
        return file_sha256(Path(file)) if file else ""

    @property
    def modules(self) -> list[str]:
        """The modules that registered rows here."""
        return sorted(set(self._added.values()))


def resolve(reference: Reference) -> Callable[..., Any]:
    """The function behind a reference."""
    if not isinstance(reference, str):
        return reference
    module, _, attribute = reference.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return function


def register(concept: str, name: str, **row: Any) -> None:
    """Add a row to a table: from here on study files may name it.

    Args:
        concept: the table: metric, measure, encoder, architecture, init, encoding, window, augment, loss, executor.
        name: what study files call it.
        row: the row's fields, ``words`` among them; ``litsexp.spec.catalog`` says what each table's rows have.

    Raises:
        LitsexpError: an unknown table, a field that is missing or unknown, a name that is taken.
    """
    from litsexp.spec.catalog import TABLES

    table = TABLES.get(concept)
    if table is None:
        raise LitsexpError(f"register: found {concept!r}; expected {one_of(TABLES)}{nearest(concept, TABLES)}")
    try:
        made = table.row(**row)
    except TypeError as error:
        found = str(error).partition("__init__() ")[2] or str(error)
        expected = str(inspect.signature(table.row)).partition(" -> ")[0]
        raise LitsexpError(f"register {concept} {name!r}: {found}; expected {expected}") from None
    frame = inspect.currentframe()
    caller = frame.f_back if frame else None
    table.add(name, made, str(caller.f_globals.get("__name__", "")) if caller else "")


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules that register rows, from the working folder too; LitsexpError in one line where that fails."""
    here = str(Path.cwd())
    for module in modules:
        if module in sys.modules:
            continue
        before = list(sys.path)
        sys.path.insert(0, here)  # a console script's own folder stands there, not the user's
        try:
            importlib.import_module(module)
        except LitsexpError:
            raise
        except Exception as error:  # whatever somebody's module does when it is loaded
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise LitsexpError(
                f"--plugin {module}: cannot be imported ({what}); expected a module of {here}, or an installed one"
            ) from None
        finally:
            sys.path[:] = before


def one_of(names: Iterable[str]) -> str:
    """``one of a, b, c``."""
    return f"one of {', '.join(names)}"


def nearest(word: object, known: Iterable[str]) -> str:
    """``; did you mean 'notebook'?``, or nothing where no name is like it."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
