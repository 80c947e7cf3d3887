"""The MLflow page one lands on: views of an experiment that are prepared for whoever opens its address.

MLflow's UI keeps a named view (columns, grouping, charts) as JSON in a tag of the experiment, and opens it where the
address names the tag. Here are two: the runs by arm, as a table or as charts, and the same slices in every run. A
server whose UI knows no such views shows its plain page instead.
"""

import base64
import json
import logging
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from litsexp.interrupts import unbroken
from litsexp.study.names import run_name

log = logging.getLogger(__name__)
LOCAL = "http://127.0.0.1:5000"  # where ``litsexp ui`` shows a database
TAG = "mlflow.sharedViewState."
ARMS, SLICES = "litsexp-arms", "litsexp-slices"  # a view's name in the address
TITLES = {ARMS: "litsexp: arms", SLICES: "litsexp: slices"}  # and in the page's menu
ARMS_TAG = "litsexp.arms"  # of an experiment: its arms in their order, as JSON; the UI's colors go by it
MAX_TAG = 5000  # characters that MLflow's databases hold
MAX_GROUPS = 20  # a search's samples are arms of one run each: not worth a group

PARAMS = ("arm", "fold", "seed")
SCORES = ("test/dice_tumor", "test/dice_liver", "external/dice_tumor", "native/dice_tumor", "best/epoch", "time/fit_s")
PAIRED = "test/dice_tumor by fold and seed"  # at step 10 x fold + seed: an arm's runs are the points of its line
CHARTS = (  # in rows of three: the first row is what is seen without scrolling
    ("LINE", PAIRED),
    ("BAR", "test/dice_tumor"),
    ("LINE", "valid/dice_tumor"),
    ("LINE", "valid/dice_liver"),
    ("BAR", "test/dice_liver"),
    ("LINE", "valid/loss"),
)
MAX_SLICES = 6
IMAGE = re.compile(r"images/(?P<key>.+?)[+%]step[+%](?P<step>\d+)[+%].*\.png")
NAME, CREATED = "attributes.`Run Name`", "runDateAndNestInfo"  # columns, by the table's own ids


def address(server: str, experiment_id: str, view: str = ARMS, table: bool = False) -> str:
    """Of a prepared view on a server: its charts, or the ``table`` of its runs."""
    mode = "" if table else "&compareRunsMode=CHART"
    asked = f"workflowType=machine_learning&viewStateShareKey={view}{mode}"  # else the page is about language models
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{asked}"


def prepare(client: MlflowClient, experiment_id: str, runs: Sequence[Run]) -> None:
    """Write the views of an experiment, where they are missing or have changed, for a study's runs, oldest first.

    What somebody has changed in the UI stays theirs, and so does every other view. A server that does not take the
    tags keeps its plain page: no study fails for that.
    """
    cells = [run for run in runs if "run_key" in run.data.tags and run.data.params.keys() >= set(PARAMS)]
    if not cells:  # a driver that was killed as it began a run has left one that does not say which it is
        return
    try:
        with unbroken():
            experiment = client.get_experiment(experiment_id)
            _log_paired(client, cells)
            images = _images(client, cells)
            states = {ARMS: arms_state(cells), SLICES: slices_state(cells, images)}
            arms = list(dict.fromkeys(run.data.params["arm"] for run in cells))
            wanted = {
                TAG + view: _view(TITLES[view], state, experiment.creation_time) for view, state in states.items()
            }
            wanted[ARMS_TAG] = json.dumps(arms)
            for tag, value in wanted.items():
                known = experiment.tags.get(tag)
                if known != value and not _edited(known) and len(value) <= MAX_TAG:
                    client.set_experiment_tag(experiment_id, tag, value)
    except (MlflowException, OSError) as error:
        log.warning("no view is prepared in the MLflow UI: %s", str(error).splitlines()[0])


def prepare_missing(client: MlflowClient) -> None:
    """Write the views of every experiment that has none, for its newest study."""
    try:
        with unbroken():
            experiments = [each for each in client.search_experiments() if ARMS_TAG not in each.tags]
            found = [(each.experiment_id, every_run(client, each.experiment_id)) for each in experiments]
    except MlflowException:
        return
    for experiment_id, runs in found:
        cells = [run for run in runs if "run_key" in run.data.tags]
        prepare(client, experiment_id, [run for run in cells if _digest(run) == _digest(cells[-1])])


def every_run(client: MlflowClient, experiment_id: str, filter_string: str = "") -> list[Run]:
    """Every run of an experiment that is not deleted, oldest first."""
    found: list[Run] = []
    token, order = None, ["attributes.start_time ASC"]
    while True:
        page = client.search_runs([experiment_id], filter_string, order_by=order, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def arms_state(cells: Sequence[Run]) -> dict[str, Any]:
    """Runs by arm: a table of scores, and the arms' learning curves with bands."""
    shown = {metric for _, metric in CHARTS}
    cards = [
        _card(kind, "arms", number, metricKey=metric, selectedMetricKeys=[metric])
        for number, (kind, metric) in enumerate(CHARTS)
    ]
    section = _section("arms", run_name("arms", _marks(cells)))  # no list of names is seen beside the charts
    return _state(cells, section, cards, shown)


def slices_state(cells: Sequence[Run], images: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """The same slices (key, step) in every run of the first fold."""
    cards = [
        _card("IMAGE", "slices", number, imageKeys=[key], step=step, showRunParams=False)
        for number, (key, step) in enumerate(images)
    ]
    fold = cells[0].data.params["fold"]
    title = run_name(f"the same slices in every run of fold {fold}", _marks(cells))
    section = _section("slices", title, columns=1, cardHeight=640)
    return {
        **_state(cells, section, cards, set()),
        "searchFilter": f"{_filter(cells)} and params.fold = '{fold}'",
        "orderByKey": "params.`seed`",  # the grid shows ten runs: every arm's first seeds
        "orderByAsc": True,
        "groupBy": None,
    }


def _state(
    cells: Sequence[Run], section: dict[str, Any], cards: Sequence[dict[str, Any]], shown: set[str]
) -> dict[str, Any]:
    metrics = {metric for run in cells for metric in run.data.metrics}
    params, scores = [f"params.`{name}`" for name in PARAMS], [f"metrics.`{m}`" for m in SCORES if m in metrics]
    arms = [run.data.params["arm"] for run in cells]
    by_arm = {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "arm"}]}
    grouped = len(set(arms)) <= min(MAX_GROUPS, len(arms) - 1)
    width = max(len(run.info.run_name or "") for run in cells) * 7 + 60  # pixels; a name is not cut
    return {
        "searchFilter": _filter(cells),
        "orderByKey": "tags.`mlflow.runName`" if grouped else "metrics.`best/score`",
        "orderByAsc": grouped,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": [*params, *scores],
        "columnOrder": [NAME, *params, *scores, CREATED, "duration"],
        "columnWidths": {
            **{NAME: min(width, 420), CREATED: 130, "duration": 80},
            **dict(zip(params, (max(len(arm) for arm in arms) * 7 + 40, 60, 60), strict=True)),
            **dict.fromkeys(scores, 130),
        },
        "runsHiddenMode": "SHOW_ALL",
        "groupBy": by_arm if grouped else None,
        "groupsExpanded": {},
        "useGroupedValuesInCharts": True,
        "compareRunCharts": list(cards),
        "compareRunSections": [section, *_folded(metrics - shown)],
        "isAccordionReordered": True,  # or the page sorts the sections by name
        "hideEmptyCharts": True,
        "viewMaximized": False,
        "runListHidden": True,
        "chartsSearchFilter": "",
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _filter(cells: Iterable[Run]) -> str:
    """The study's own cells; every study's of this name where it took over cells of an earlier one."""
    digests, all_cells = {_digest(run) for run in cells}, "params.arm != ''"
    return f"{all_cells} and tags.study_digest = '{digests.pop()}'" if len(digests) == 1 else all_cells


def _digest(run: Run) -> str:
    return str(run.data.tags.get("study_digest"))


def _marks(cells: Iterable[Run]) -> dict[str, str]:
    """What is true of any of the runs: that it is of a phantom, that it leaks."""
    return {tag: value for run in cells for tag, value in run.data.tags.items() if value == "true"}


def _folded(metrics: Iterable[str]) -> list[dict[str, Any]]:
    """Closed sections, by the names that the page gives them, for the charts that it adds of its own accord."""
    names = sorted({metric.rpartition("/")[0] for metric in metrics} - {""})
    return [
        {**_section(f"more-{name}", name), "display": False} for name in [*names, "Model metrics", "System metrics"]
    ]


def _section(key: str, name: str, **more: int) -> dict[str, Any]:
    flags = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
    return {"uuid": f"litsexp-{key}", "name": name, **flags, **more}


def _card(kind: str, section: str, number: int, **more: Any) -> dict[str, Any]:
    place = {"uuid": f"litsexp-{section}-{number}", "metricSectionId": f"litsexp-{section}"}
    lines = {"xAxisKey": "step", "useGlobalXaxisKey": True, "scaleType": "linear", "lineSmoothness": 0, "range": {}}
    flags = {"deleted": False, "isGenerated": False, "runsCountToCompare": 100}
    return {"type": kind, **place, **flags, **(lines if kind == "LINE" else {}), **more}


def _log_paired(client: MlflowClient, cells: Iterable[Run]) -> None:
    """A finished run's tumor Dice once more, at its fold and seed, for the chart of pairs; seeds of one digit only."""
    for run in cells:
        score, seed = run.data.metrics.get("test/dice_tumor"), int(run.data.params["seed"])
        if score is not None and seed < 10 and PAIRED not in run.data.metrics:
            client.log_metric(run.info.run_id, PAIRED, score, step=10 * int(run.data.params["fold"]) + seed)


def _images(client: MlflowClient, cells: Sequence[Run]) -> list[tuple[str, int]]:
    """Key and last step of the slices that the first fold's runs watch; other folds validate other patients."""
    first = cells[0].data.params["fold"]
    done = [run for run in cells if run.data.params["fold"] == first and run.info.status == "FINISHED"]
    last: dict[str, int] = {}
    for file in client.list_artifacts(done[0].info.run_id, "images") if done else ():
        if match := IMAGE.fullmatch(file.path):
            last[match["key"]] = max(int(match["step"]), last.get(match["key"], 0))
    return sorted(last.items())[:MAX_SLICES]


def _view(title: str, state: dict[str, Any], created: int) -> str:
    """A tag's value as the UI writes it; ``updatedAt`` stays ``createdAt`` until somebody changes the view there."""
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    return json.dumps({"name": title, "createdAt": created, "updatedAt": created, "state": f"deflate;{packed}"})


def _edited(known: str | None) -> bool:
    """Whether somebody saved their own state under one of these names."""
    try:
        view = json.loads(known or "{}")
    except json.JSONDecodeError:
        return False
    return isinstance(view, dict) and view.get("createdAt") != view.get("updatedAt")
