"""``mlflow server`` in front of a PostgreSQL database: workers on other machines hand it artifacts, too."""

import os
import secrets
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

from litsexp.files import whole_file
from litsexp.services import postgres
from litsexp.services.daemons import HOST, Daemon

ASK_S = 5
USERS = """\
[mlflow]
default_permission = READ
database_uri = sqlite:///{users}
admin_username = {user}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
auth_cache_max_size = 100
"""


def daemon(folder: Path) -> Daemon:
    """The server of this folder."""
    return Daemon("MLflow", folder, "mlflow", str(folder / "artifacts"), "mlflow", signal.SIGTERM)


def start(daemon: Daemon, port: int, postgres_port: int, user: str, password: Path) -> None:
    """Start it on a database that runs, and wait until it answers."""
    settings = daemon.folder / "mlflow-users.ini"
    with whole_file(settings, replace=True) as part:
        part.write_text(USERS.format(users=daemon.folder / "mlflow-users.db", user=user))
    options = {
        "--host": HOST,
        "--port": str(port),
        "--workers": "1",
        "--app-name": "basic-auth",
        "--backend-store-uri": postgres.url(postgres_port, user, "mlflow"),
        "--artifacts-destination": str(daemon.folder / "artifacts"),
    }
    words = [word for option in options.items() for word in option]
    secret = password.read_text().strip()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PG"))},
        "PGPASSWORD": secret,
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": secret,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(24),  # of forms in its pages
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # runners for language models, which studies have none of
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONWARNINGS": "ignore",
    }
    daemon.start([sys.executable, "-m", "mlflow", "server", *words], environment)
    daemon.wait_until(lambda: _answers(port))


def _answers(port: int) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine is behind no proxy
    try:
        with direct.open(f"http://{HOST}:{port}/health", timeout=ASK_S) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
