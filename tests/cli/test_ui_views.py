"""The MLflow UI in a real browser that was never here before: what one sees of a study without a click."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..browser import browser, needs_browser

pytestmark = needs_browser
STUDY = {
    "question": "Is a wide window better?",
    "split": {"folds": 2, "valid": 0.25, "seed": 0},
    "seeds": [0, 1],
    "run": {"init": "scratch", "window": "liver", "augment": "none", "epochs": 2, "steps_per_epoch": 1},
    "factors": {"window": ["wide"]},
}
DICE = {  # arm, fold, seed: a tumor Dice that no other run has
    (arm, fold, seed): 0.1 + 0.4 * (arm != "baseline") + 0.2 * fold + 0.05 * seed
    for arm in ("baseline", "window=wide")
    for fold in (0, 1)
    for seed in (0, 1)
}
PLOTS = """JSON.stringify([...document.querySelectorAll(".js-plotly-plot")].map(plot => plot.data.filter(
    each => !each.fill).map(({name, x, y, line, marker}) => ({name, x: [...x], y: [...y], line, marker}))))"""


def by_color(plot: list[dict[str, Any]]) -> dict[str, dict[float, float]]:
    """Of a plot's lines: color -> x -> y; bars, and what is drawn paler below a line, have no color of their own."""
    colors = [str((each.get("marker") or {}).get("color")).lower() for each in plot]
    lines = [(color, each) for color, each in zip(colors, plot, strict=True) if len(color) == len("#rrggbb")]
    return {color: dict(zip(line["x"], line["y"], strict=True)) for color, line in lines}


@pytest.fixture
def browse(tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    with browser(tmp_path / "profile") as opens:
        yield opens


@pytest.fixture
def shown(tmp_path: Path, new_places: Callable[[Path], Any], serve: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The UI on eight runs that an older version has left without a view, and their tracking."""
    from mlflow.entities import Metric

    from litsexp.spec.design import cells
    from litsexp.spec.study import StudyConfig
    from litsexp.study.tracking import Tracking

    places, study, phantom = new_places(tmp_path), StudyConfig.model_validate(STUDY), {"phantom": "true"}
    tracking = Tracking(places.tracking_uri, "tiny", places.root / "artifacts")
    tags = {"study_digest": "d1", **phantom}
    parent = tracking.open_parent(study, "d1", "tiny", [], phantom)
    for number, cell in enumerate(cells(study)):
        run = tracking.start_cell(cell, f"key{number}", parent, tags)
        dice = DICE[cell.arm.name, cell.fold, cell.seed]
        curve = [Metric("valid/dice_tumor", dice / 2 * (epoch + 1), 0, epoch) for epoch in range(2)]
        tracking.client.log_batch(run, metrics=[*curve, Metric("test/dice_tumor", dice, 0, 0)])
        for epoch in range(2):
            picture = np.full((8, 8, 3), 20 * number, np.uint8)
            tracking.client.log_image(run, picture, key=f"valid case {cell.fold}", step=epoch)
        tracking.end(run, "FINISHED")
    tracking.end(parent.run_id, "FINISHED")
    return serve(places), tracking


def test_a_fresh_browser_sees_arms_folds_scores_and_curves_without_a_click(shown: Any, browse: Any) -> None:
    """The bare address opens the charts; each arm has the report's color, and its runs are points of one line."""
    from litsexp.evidence.figures import ARM_COLOURS
    from litsexp.study.views import address

    ui, tracking = shown
    server = f"http://127.0.0.1:{ui.port}"
    page = browse(server)
    wait = "test/dice_tumor by fold and seed"
    text = page.shows("phantom · arms", wait, "valid/dice_tumor", "litsexp: arms")
    assert page.ask("location.href").startswith(address(server, tracking.experiment_id))
    assert "Which run performed best?" not in text and "Prompts" not in text  # the assistant; the language models' menu
    page.wait("[...document.querySelectorAll('.js-plotly-plot')].filter(plot => plot.data?.length).length >= 3")
    drawn = [by_color(plot) for plot in json.loads(page.ask(PLOTS))]
    colors = [color.lower() for color in ARM_COLOURS[:2]]
    by_run, curves = (plot for plot in drawn if set(plot) == set(colors))  # the bars have no lines
    for arm, color in zip(("baseline", "window=wide"), colors, strict=True):
        places = {(fold, seed): DICE[arm, fold, seed] for fold in (0, 1) for seed in (0, 1)}
        assert by_run[color] == pytest.approx({10 * fold + seed: dice for (fold, seed), dice in places.items()})
        mean = sum(places.values()) / 4
        assert curves[color] == pytest.approx({0: mean / 2, 1: mean})
    assert f"tiny: {address(server, tracking.experiment_id)}" in ui.log.read_text()


def test_the_table_lists_every_run_below_its_arm(shown: Any, browse: Any) -> None:
    from litsexp.study.views import address

    ui, tracking = shown
    page = browse(address(f"http://127.0.0.1:{ui.port}", tracking.experiment_id, table=True))
    page.shows("Group: baseline", "Group: window=wide", "test/dice_tumor")
    rows = [f"{arm} {fold} {seed} {dice}" for (arm, fold, seed), dice in DICE.items()]
    page.wait(f"{json.dumps(rows)}.every(row => document.body.innerText.replace(/\\s+/g, ' ').includes(row))")
    names = "[...document.querySelectorAll('.ag-pinned-left-cols-container a')].filter(a => a.innerText)"
    assert page.ask(f"{names}.map(a => a.innerText)[0]") == "phantom · f0 s00 · baseline"
    assert page.ask(f"{names}.every(a => a.scrollWidth <= a.clientWidth || a.scrollWidth == 0)")  # nothing is cut


def test_the_same_slices_of_every_run_are_beside_each_other(shown: Any, browse: Any) -> None:
    from litsexp.study.views import SLICES, address

    ui, tracking = shown
    page = browse(address(f"http://127.0.0.1:{ui.port}", tracking.experiment_id, SLICES))
    text = page.shows(
        "phantom · the same slices in every run of fold 0", "valid case 0", "phantom · f0 s01 · window=wide"
    )
    assert "f1 s0" not in text
    loaded = "[...document.querySelectorAll('img[src*=get-artifact]')].filter(img => img.naturalWidth)"
    page.wait(f"{loaded}.length == 4")
    assert page.ask(f"{loaded}.every(img => decodeURIComponent(img.src).includes('step+1'))")


def test_where_the_ui_cannot_read_a_view_it_shows_the_experiments_plain_page(shown: Any, browse: Any) -> None:
    from litsexp.study.views import ARMS, TAG, address

    ui, tracking = shown
    tracking.client.set_experiment_tag(tracking.experiment_id, TAG + ARMS, "from another version")
    page = browse(address(f"http://127.0.0.1:{ui.port}", tracking.experiment_id, table=True))
    page.wait("!location.href.includes('viewStateShareKey') && document.body.innerText.includes('Overview')")
    assert "tiny" in page.ask("document.body.innerText")
