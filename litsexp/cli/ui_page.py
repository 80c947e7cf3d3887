"""MLflow's own page with a few words to the browser before it starts, for who comes to it for the first time.

The arms get the report's colors: MLflow picks a group's color by a hash, and two arms may share one. The assistant,
a quarter of the window, waits until it is asked. A bare address opens the newest study. What a browser has kept from
an earlier visit stays as it is; where MLflow's page looks otherwise, it is served as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

BEFORE = '<script defer="defer"'  # MLflow's app, that reads what is kept in the browser
SCRIPT = """<script>try {
const kept = JSON.parse(localStorage.getItem("experimentRunColors") || "{}");
localStorage.setItem("experimentRunColors", JSON.stringify({...COLORS, ...kept}));
const opened = "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1";
if (localStorage.getItem(opened) === null) localStorage.setItem(opened, "true");
if (!location.hash && HASH) location.hash = HASH;
} catch (error) { console.warn(error); }</script>"""


def landing(client: MlflowClient) -> Route:
    """The route of MLflow's page, in front of MLflow's own."""
    import mlflow.server
    from starlette.responses import HTMLResponse
    from starlette.routing import Route

    file = Path(mlflow.server.__file__).parent / mlflow.server.REL_STATIC_DIR / "index.html"

    def page(_: Request) -> Response:
        html = file.read_text(encoding="utf-8")
        return HTMLResponse(prepared(html, studies(client)), headers={"Cache-Control": "no-cache"})

    return Route("/", page, methods=["GET"])


def studies(client: MlflowClient) -> Sequence[Experiment]:
    """The experiments that have a prepared view, the newest first; none where the database cannot be read just now."""
    from mlflow.exceptions import MlflowException

    from litsexp.study.views import ARMS_TAG

    try:
        found = client.search_experiments(order_by=["last_update_time DESC"])
    except MlflowException:
        return []
    return [experiment for experiment in found if ARMS_TAG in experiment.tags]


def prepared(html: str, experiments: Sequence[Experiment]) -> str:
    """MLflow's page, the script in front of its app."""
    from litsexp.study.views import ARMS_TAG, address

    names = dict.fromkeys(arm for experiment in experiments for arm in json.loads(experiment.tags[ARMS_TAG]))
    first = address("", experiments[0].experiment_id).removeprefix("/") if experiments else ""
    script = SCRIPT.replace("HASH", _literal(first)).replace("COLORS", _literal(colors(names)))
    return html.replace(BEFORE, script + BEFORE, 1)


def colors(arms: Iterable[str]) -> dict[str, str]:
    """Of each arm's group, by the UI's name for it, as in the report; where there are more arms they begin again."""
    from litsexp.evidence.figures import ARM_COLOURS

    return {f"param.arm.{arm}": ARM_COLOURS[number % len(ARM_COLOURS)] for number, arm in enumerate(arms)}


def _literal(value: object) -> str:
    """As it may stand in a script: a name from a study file ends no tag."""
    return json.dumps(value).replace("<", "\\u003c")
