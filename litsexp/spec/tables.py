"""A table a concept: the names that a study file may use, and what stands behind each.

A row says in one line what it is and names its functions as ``module:attribute``; they are imported when they are
used, so that reading a study file loads no torch. ``register`` adds a row from any module: it is then used like a
built-in one.
"""

import difflib
import importlib
import inspect
import pkgutil
import re
import sys
from collections import UserDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from litsexp.spec.errors import LitsexpError, one_line
from litsexp.spec.keys import file_sha256

Reference = Callable[..., Any] | str  # a function, or where it stands: "package.module:function"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Row:
    """What every row has.

    A row that is named ``jpeg:Q`` stands for every ``jpeg:90``: ``argument`` is the regular expression of what may
    stand after the colon.
    """

    words: str  # what it is, in one line
    argument: str = field(default="", kw_only=True)


R = TypeVar("R", bound=Row)


class UnknownName(LitsexpError, KeyError):
    """A name that is not in its table; a KeyError too, so that a table's ``get`` works like any mapping's."""

    __str__ = Exception.__str__  # KeyError's would be in quotes


class Table(UserDict[str, R]):
    """One concept's rows by name, in the order in which they are shown."""

    def __init__(self, concept: str, row: type[R], built_in: Mapping[str, R]):
        super().__init__(built_in)
        self.concept, self.row = concept, row
        self.added: dict[str, str] = {}  # name -> the module that registered it

    def __missing__(self, name: str) -> R:
        raise UnknownName(f"{self.concept}: {self.unknown(name)}")

    def row_name(self, value: str) -> str:
        """The row that a value stands for: its own name, or of ``jpeg:90`` the row ``jpeg:Q``; UnknownName for none."""
        if value in self.data and not self.data[value].argument:
            return value
        family, colon, argument = value.partition(":")
        for name, row in self.data.items():
            if colon and row.argument and name.startswith(f"{family}:") and re.fullmatch(row.argument, argument):
                return name
        raise UnknownName(f"{self.concept}: {self.unknown(value)}")

    def of(self, value: str) -> R:
        """The row that a value stands for."""
        return self.data[self.row_name(value)]

    def unknown(self, name: object) -> str:
        """What is said of a name that is not in the table: ``found 'x'; expected one of a, b; did you mean 'a'?``"""
        files = [f"file:{name}"] if "file:PATH" in self and Path(str(name)).suffix else []
        return f"found {name!r}; expected {one_of(self)}{nearest(name, [*files, *self])}"

    def add(self, name: str, row: R, module: str) -> None:
        """Add a row; a module that is loaded again replaces its own."""
        if not NAME.fullmatch(name):
            raise LitsexpError(f"{self.concept}: found the name {name!r}; expected letters, digits and _; rename it")
        if name in self.data and self.added.get(name) != module:
            raise LitsexpError(f"{self.concept}: {name!r} is there already; expected another name; rename it")
        self.data[name], self.added[name] = row, module

    def source(self, value: str) -> str:
        """SHA-256 of the file that registered a row, so that an edited arm is another arm; empty for a built-in one."""
        module = sys.modules.get(self.added.get(self.row_name(value), ""))
        file = getattr(module, "__file__", None)
        return file_sha256(Path(file)) if file else ""


def argument_of(value: str) -> str:
    """What stands after the colon: ``90`` of ``jpeg:90``."""
    return value.partition(":")[2]


def resolve(reference: Reference) -> Callable[..., Any]:
    """The function behind a reference."""
    if not isinstance(reference, str):
        return reference
    function: Callable[..., Any] = pkgutil.resolve_name(reference)
    return function


def register(concept: str, name: str, **row: Any) -> None:
    """Add a row to a table: from here on study files may name it.

    Args:
        concept: the table: metric, measure, encoder, architecture, init, encoding, window, augment, loss, schedule,
            executor.
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
        found, expected = str(error).partition("__init__() ")[2], str(inspect.signature(table.row)).partition(" -> ")[0]
        raise LitsexpError(f"register {concept} {name!r}: {found}; expected {expected}") from None
    table.add(name, made, module=inspect.stack()[1].frame.f_globals["__name__"])


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules that register rows, from the working folder too; LitsexpError in one line where that fails."""
    here = str(Path.cwd())
    for module in modules:
        before = list(sys.path)
        sys.path.insert(0, here)  # a console script's own folder stands there, not the user's
        try:
            importlib.import_module(module)
        except LitsexpError:
            raise
        except Exception as error:  # whatever somebody's module does when it is loaded
            expected = f"expected a module of {here}, or an installed one"
            raise LitsexpError(f"--plugin {module}: cannot be imported ({one_line(error)}); {expected}") from None
        finally:
            sys.path[:] = before


def one_of(names: Iterable[str]) -> str:
    """``one of a, b, c``."""
    return f"one of {', '.join(names)}"


def nearest(word: object, known: Iterable[str]) -> str:
    """``; did you mean 'notebook'?``, or nothing where no name is like it."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
