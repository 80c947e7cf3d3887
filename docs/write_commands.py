"""Write ``commands.md`` from the command line itself: ``.venv/bin/python docs/write_commands.py``."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from litsexp.cli.app import app

PAGE = Path(__file__).parent / "commands.md"
OPENING = """\
# Commands

`litsexp COMMAND --help` says the same in a terminal. Exit codes: 0, it is done; 1, the command's own *no*; 2, the
input is wrong, in one line on stderr; 130, interrupted. `python run_study.py` is `litsexp study`, with
`experiments/mini.yaml` where no file is named.

<!-- Written by docs/write_commands.py; a test holds it against the command line. -->

```sh
litsexp --version
litsexp --help
```
"""


def page() -> str:
    """The whole page."""
    found = list(commands(app, "litsexp"))
    rows = [f"| [`{name}`](#{name.replace(' ', '-')}) | {first_line(function)} |" for name, function in found]
    overview = "\n".join(["| Command | Does |", "| --- | --- |", *rows])
    return "\n\n".join([OPENING.rstrip(), overview, *(section(name, function) for name, function in found)]) + "\n"


def commands(group: typer.Typer, name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every command's whole name and function; groups without a name of their own add theirs to the root."""
    for below in group.registered_groups:
        if below.typer_instance is not None:
            yield from commands(below.typer_instance, f"{name} {below.name}" if isinstance(below.name, str) else name)
    for command in group.registered_commands:
        if command.callback is not None:
            yield f"{name} {command.name or command.callback.__name__}", command.callback


def first_line(function: Callable[..., Any]) -> str:
    """The first paragraph of its docstring."""
    return inspect.cleandoc(function.__doc__ or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def section(name: str, function: Callable[..., Any]) -> str:
    """Heading, usage, text and options of one command."""
    params = [Param(name, *asked) for name, asked in parameters(function)]
    usage = " ".join([name, *(p.shown for p in params if p.argument), "[OPTIONS]"])
    rows = [p.row for p in params]
    table = "\n".join(["| Option | Takes | Means |", "| --- | --- | --- |", *rows])
    return "\n\n".join([f"## {name}", f"`{usage}`", inspect.getdoc(function) or "", table])


def parameters(function: Callable[..., Any]) -> Iterator[tuple[str, tuple[Any, Any, Any]]]:
    """Name, type, what typer is told of it, and default of each parameter."""
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, *extras = get_args(hints[name])
        yield name, (kind, extras[0], parameter.default)


@dataclass(frozen=True)
class Param:
    """An argument or an option."""

    name: str
    kind: Any
    info: Any  # typer's OptionInfo or ArgumentInfo
    default: Any

    @property
    def argument(self) -> bool:
        return isinstance(self.info, typer.models.ArgumentInfo)

    @property
    def needed(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def shown(self) -> str:
        """As the usage line and the table show it."""
        if not self.argument:
            said = [self.info.default, *(self.info.param_decls or ())]  # in Annotated the first name stands as default
            named = [word for word in said if isinstance(word, str) and word.startswith("--")]
            return named[0] if named else f"--{self.name.replace('_', '-')}"
        name = self.info.metavar or self.name.upper()
        return name if self.needed or name.startswith("[") else f"[{name}]"

    @property
    def takes(self) -> str:
        """What stands after an option; nothing after a flag."""
        if self.argument or self.kind is bool:
            return ""
        types = [kind for kind in (get_args(self.kind) or (self.kind,)) if kind is not type(None)]
        if not isinstance(types[0], type):
            types = list(get_args(types[0]))  # of a Literal
        plain = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
        return self.info.metavar or "|".join(plain.get(kind, str(kind)) for kind in types)

    @property
    def row(self) -> str:
        """One line of the table."""
        said = [(self.info.help or "").strip()]
        if self.needed:
            said.append("Needed.")
        elif self.default not in (None, False) and "efault:" not in said[0]:
            said.append(f"Default: `{self.default}`.")
        cells = (f"`{self.shown}`", f"`{self.takes}`" if self.takes else "", " ".join(filter(None, said)))
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
