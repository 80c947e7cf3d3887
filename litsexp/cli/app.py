"""The command line: its root, and how an error or an interruption ends it."""

import logging
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from litsexp import __version__
from litsexp.cli.aa import aa
from litsexp.cli.bench import bench
from litsexp.cli.data import commands as data_commands
from litsexp.cli.judge import commands as judge_commands
from litsexp.cli.look import look
from litsexp.cli.plan import plan
from litsexp.cli.predict import predict
from litsexp.cli.report import report
from litsexp.cli.score import score
from litsexp.cli.studies import commands as study_commands
from litsexp.cli.ui import ui
from litsexp.display import console
from litsexp.spec.errors import LitsexpError

app = typer.Typer(
    name="litsexp",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Does this choice really help a 2D U-Net segment liver and tumor, and by how much?",
)
for commands in (study_commands, judge_commands, data_commands):
    app.add_typer(commands)  # without a name: its commands stand at the root
app.command()(report)
app.command()(aa)
app.command()(plan)
app.command()(look)
app.command()(predict)
app.command()(score)
app.command()(ui)
app.add_typer(bench, name="bench")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        console.print(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a LitsexpError becomes one line on stderr and exit code 2, Ctrl-C exit code 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is an interruption, too
    logger = logging.getLogger("litsexp")
    logger.setLevel(logging.INFO)
    logger.handlers[:] = [logging.StreamHandler()]  # the plain message on stderr
    try:
        app(args=arguments, prog_name="litsexp", standalone_mode=True)
    except LitsexpError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
