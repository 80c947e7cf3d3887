"""``litsexp ui``: MLflow's own web app on the studies' database, served by this process and no other.

``mlflow ui`` starts a dozen processes: web workers, and runners for jobs on language models, which a study has none of.
They take ten times the memory and outlive a command that is killed. Here one uvicorn serves the same app inside the
command, so what ends the command ends the server; MLflow's checks of hosts and origins stay in front of it.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from litsexp.cli.options import Runs, Uri
from litsexp.cli.ui_page import landing, studies
from litsexp.display import console, say
from litsexp.interrupts import unbroken
from litsexp.spec.errors import LitsexpError

if TYPE_CHECKING:
    from types import FrameType

    from uvicorn import Server

HOST = "127.0.0.1"
HOSTS = f"{HOST},{HOST}:*,localhost,localhost:*"  # MLflow's default also takes 10.any.name for a private address
LISTED = 5  # studies whose pages are named, the newest first
GRACE_S = 2  # for answers that are on their way when the server is told to end


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    tracking_uri: Uri = None,
    mlruns: Runs = Path("mlruns"),
) -> None:
    """Open the MLflow UI on the studies' database, on 127.0.0.1 only.

    Example: `litsexp ui --port 5001`
    """
    from litsexp.study.addresses import is_http, linked
    from litsexp.study.places import Places
    from litsexp.study.views import address

    if tracking_uri and is_http(tracking_uri):
        say(f"{linked(tracking_uri)} is a server already; open that address in a browser")
        return
    uri = Places.below(mlruns, tracking_uri).tracking_uri

    file = uri.removeprefix("sqlite:///")
    if file != uri and not Path(file).is_file():
        shown = file if tracking_uri else mlruns / "mlflow.db"
        raise LitsexpError(f"{shown}: not there; run a study first, or name its folder with --mlruns")
    with suppress(KeyboardInterrupt), listen(port) as sock:
        with console.status("opening the MLflow UI"):
            server = make_server(uri, mlruns.resolve() / "artifacts")
            opened = prepared_views(uri)
        place = f"http://{HOST}:{port}"
        say(f"MLflow UI on {place} (this machine only); Ctrl-C ends it")
        for name, experiment_id in opened[:LISTED]:
            say(f"{name}: {address(place, experiment_id)}")
        run(server, sock)
    raise typer.Exit(130)


def listen(port: int) -> socket.socket:
    """The port, held from here on: a browser that comes before the app is loaded waits for its answer."""
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        found = (
            "taken by another program; end that one, or" if error.errno == errno.EADDRINUSE else f"{error.strerror};"
        )
        raise LitsexpError(f"--port {port}: {found} take another, as --port {max(1024, port % 65535 + 1)}") from None


def make_server(uri: str, artifacts: Path) -> Server:
    """MLflow's app, not yet running; ``artifacts`` is for experiments made in the UI, studies know their own."""
    os.environ.setdefault("MLFLOW_SERVER_ALLOWED_HOSTS", HOSTS)
    os.environ |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)

    import uvicorn  # before MLflow, which puts its checks into the app where it finds a server loaded
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.server import constants, handlers
    from sqlalchemy.exc import SQLAlchemyError

    root = artifacts.as_uri()
    os.environ |= {constants.BACKEND_STORE_URI_ENV_VAR: uri, constants.ARTIFACT_ROOT_ENV_VAR: root}
    try:
        with unbroken():
            handlers.initialize_backend_stores(uri, uri, root)
    except (MlflowException, SQLAlchemyError) as error:
        from litsexp.study.addresses import hidden, masked

        first = hidden(str(error).splitlines()[0], uri)
        raise LitsexpError(f"{masked(uri)}: MLflow cannot open it ({first}); see what else uses it") from None
    with warnings.catch_warnings(action="ignore"):  # MLflow's app uses a part of Starlette's that is on its way out
        from mlflow.server.fastapi_app import app
    app.router.routes.insert(0, landing(MlflowClient(uri)))
    # without its life span, which cleans up after sandboxes that are not used here
    return uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning", timeout_graceful_shutdown=GRACE_S))


def prepared_views(uri: str) -> list[tuple[str, str]]:
    """Name and id of every study's experiment, the newest first; what older versions ran gets its view here."""
    from mlflow import MlflowClient

    from litsexp.study.views import prepare_missing

    client = MlflowClient(uri)
    prepare_missing(client)
    return [(experiment.name, experiment.experiment_id) for experiment in studies(client)]


def run(server: Server, sock: socket.socket) -> None:
    """Serve until Ctrl-C or a polite kill. Its signals only set a flag: uvicorn raises them again when it has ended."""

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server.run([sock])
