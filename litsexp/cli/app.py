"""The command line: its root, and how an error or an interruption ends it."""

import logging
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, TextIO

import typer

from litsexp import __version__
from litsexp.cli.aa import aa
from litsexp.cli.bench import bench
from litsexp.cli.data import commands as data_commands
from litsexp.cli.judge import commands as judge_commands
from litsexp.cli.look import look
from litsexp.cli.options import BELIEVE, MASKS, STUDIES
from litsexp.cli.plan import plan
from litsexp.cli.predict import predict
from litsexp.cli.report import report
from litsexp.cli.score import score
from litsexp.cli.services import commands as services
from litsexp.cli.status import status
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
    help="""Does this choice really help a 2D U-Net segment liver and tumor, and by how much?

From a folder of CT to a verdict:

1. `litsexp check ~/LiTS`: may a study use these files?
2. `litsexp look STUDY.yaml --data ~/LiTS`: what each arm's network will see
3. `litsexp plan STUDY.yaml --data ~/LiTS`: runs, hours, and what they could settle
4. `litsexp study STUDY.yaml --data ~/LiTS`: the runs, the verdicts, a report; Ctrl-C, and the same command goes on
5. `litsexp ui`: every run in the MLflow UI
6. `litsexp predict`, `litsexp score`: masks of new volumes, and their scores

Without CT at hand: `litsexp study experiments/mini.yaml` makes synthetic patients first.""",
)
for commands in (study_commands, judge_commands, data_commands):
    app.add_typer(commands)  # without a name: its commands stand at the root
for command, panel in (
    (plan, STUDIES),
    (look, STUDIES),
    (status, STUDIES),
    (report, STUDIES),
    (ui, STUDIES),
    (aa, BELIEVE),
    (predict, MASKS),
    (score, MASKS),
):
    app.command(rich_help_panel=panel)(command)
app.add_typer(bench, name="bench", rich_help_panel=BELIEVE)
app.add_typer(services, name="services", rich_help_panel=STUDIES)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        console.print(__version__)
        raise typer.Exit


class _Stderr(logging.StreamHandler[TextIO]):
    """The plain message on what is stderr now: a live table puts itself in its place and lets lines pass above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message."""
        self.stream = sys.stderr
        super().emit(record)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a LitsexpError becomes one line on stderr and exit code 2, Ctrl-C exit code 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill is an interruption, too
    logger = logging.getLogger("litsexp")
    logger.setLevel(logging.INFO)
    logger.handlers[:] = [_Stderr()]
    try:
        app(args=arguments, prog_name="litsexp", standalone_mode=True)
    except LitsexpError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
