"""``litsexp services``: a PostgreSQL and an MLflow server of one's own, to try a study on and to test."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from litsexp.display import console, say

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Their data, logs, pid files and password.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Default: that of last time, else a free one.")]

commands = typer.Typer(no_args_is_help=True, help="PostgreSQL and MLflow on this machine, to try remote studies.")


@commands.command()
def up(folder: Folder, postgres_port: Port = None, mlflow_port: Port = None) -> None:
    """Start a PostgreSQL and an MLflow server from installed programs, on 127.0.0.1, with a generated password.

    Prints the two options that a study takes. They run on when the command has ended; the same folder goes on with the
    same data.

    Example: `litsexp services up /var/tmp/services`
    """
    from litsexp.services import up as start

    try:
        with console.status("starting PostgreSQL and MLflow"):
            found = start(folder, postgres_port, mlflow_port)
    except KeyboardInterrupt:
        print("interrupted; what was started is ended again", file=sys.stderr)
        raise typer.Exit(130) from None
    say(f"PostgreSQL on 127.0.0.1:{found.postgres_port}, MLflow on {found.tracking_uri}: this machine only")
    say(f"options:  --tracking-uri {found.tracking_uri} --storage {found.storage_url}")
    say(f"password: . {shlex.quote(str(found.environment))}  sets PGPASSWORD, MLFLOW_TRACKING_USERNAME and …_PASSWORD")
    say(f"end:      {shlex.join(['litsexp', 'services', 'down', str(folder)])}")


@commands.command()
def down(folder: Folder) -> None:
    """End the servers that `litsexp services up DIR` has started; their data stay.

    Example: `litsexp services down /var/tmp/services`
    """
    from litsexp.services import down as stop

    ended = stop(folder)
    say(f"ended: {' and '.join(ended)}" if ended else "nothing ran; nothing was ended")
