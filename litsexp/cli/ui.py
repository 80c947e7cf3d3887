"""`litsexp ui`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from litsexp.cli.options import Runs, Uri
from litsexp.display import console
from litsexp.spec.errors import LitsexpError

commands = typer.Typer()


@commands.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    tracking_uri: Uri = None,
    mlruns: Runs = Path("mlruns"),
) -> None:
    """Open the MLflow UI on the studies' database, on 127.0.0.1 only.

    Example: `litsexp ui --port 5001`
    """
    if tracking_uri is None and not (mlruns / "mlflow.db").is_file():
        raise LitsexpError(f"{mlruns / 'mlflow.db'}: not there; run a study first, or name its folder with --mlruns")
    uri = tracking_uri or f"sqlite:///{mlruns.resolve() / 'mlflow.db'}"
    console.print(f"MLflow UI on http://127.0.0.1:{port} (this machine only); Ctrl-C ends it")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    raise typer.Exit(subprocess.run([*command, "--port", str(port)], check=False).returncode)  # noqa: S603 (no shell)
