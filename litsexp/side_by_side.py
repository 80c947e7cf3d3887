"""A few patients as every arm sees them: chosen by evidence, drawn from what the runs kept of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from litsexp.data.store import Store
from litsexp.evaluation.overlays import side_by_side, to_webp
from litsexp.evidence.material import PICTURE_ARMS, Panel, SideBySide
from litsexp.evidence.measures import measure_of
from litsexp.evidence.shown import by_patient, deciding, shown_patients
from litsexp.evidence.words import plain
from litsexp.spec.design import arm_of
from litsexp.study.pictures import gray_of, slice_title
from litsexp.study.scorings import CohortKind
from litsexp.study.session import Session

Labels = NDArray[np.uint8]
Tallest = Callable[[str], Mapping[int, Labels]]  # a run's id -> row of the store -> what it makes of that slice


def best_first(session: Session) -> list[str]:
    """A search's finished arms, the highest validation score first."""
    done = [trial for trial in session.ledger.trials() if trial.state.name == "COMPLETE"]
    ordered = sorted(done, key=lambda trial: -(trial.value or 0.0))
    return [arm_of(session.study, trial.params).name for trial in ordered]


def shown_side_by_side(
    session: Session, store: Store, cases: pd.DataFrame, runs: pd.DataFrame, arms: Sequence[str], kind: CohortKind
) -> list[SideBySide]:
    """The chosen patients' tallest slices as the first arms' runs label them; runs of before these were kept: none.

    ``cases`` are the scores on this cohort, ``runs`` says which MLflow run a cell has.
    """
    scored = set(cases["arm"]) if len(cases) else set()
    names = [arm for arm in arms if arm in scored][:PICTURE_ARMS]
    tallest: Tallest = cache(lambda run_id: session.tallest(run_id, kind))
    ran = cases[["arm", "fold", "seed", "case"]].merge(runs[["arm", "fold", "seed", "run_id"]]) if names else cases
    found = []
    for shown in shown_patients(cases, names) if names else ():
        of_case = ran[ran["case"] == shown.case].sort_values(["fold", "seed"], kind="stable")
        drawn = {arm: _first(of_case[of_case["arm"] == arm], shown.case, store, tallest) for arm in names}
        if None not in drawn.values():
            title, panels = _panels(shown.case, store, cases, {arm: one for arm, one in drawn.items() if one}, kind)
            found.append(SideBySide(title, shown.why, panels))
    return found


def _first(runs: pd.DataFrame, case: int, store: Store, tallest: Tallest) -> tuple[int, int, int, Labels] | None:
    """Fold, seed, row of the store and labels of the first of an arm's runs that kept this case's slice."""
    numbers = store.index["case"].to_numpy()
    for fold, seed, run_id in zip(runs["fold"], runs["seed"], runs["run_id"], strict=True):
        for row, labels in tallest(run_id).items():
            if numbers[row] == case:
                return int(fold), int(seed), row, labels
    return None


def _panels(
    case: int,
    store: Store,
    cases: pd.DataFrame,
    drawn: Mapping[str, tuple[int, int, int, Labels]],
    kind: CohortKind,
) -> tuple[str, list[Panel]]:
    """The slice's title, and its panels: the truth, then the arms."""
    metric = deciding(cases)
    assert metric is not None  # by which the case was chosen
    row = next(row for _, _, row, _ in drawn.values())
    pictures = side_by_side(
        gray_of(store, row), np.asarray(store.labels[row]), [labels for *_, labels in drawn.values()]
    )
    means, words = by_patient(cases, list(drawn)).loc[case].to_dict(), measure_of(metric).words
    panels = [Panel("truth", "CT, liver and tumor outlined", to_webp(pictures[0]))]
    for (arm, (fold, seed, _, _)), picture in zip(drawn.items(), pictures[1:], strict=True):
        one = cases[cases["case"].eq(case) & cases["arm"].eq(arm) & cases["fold"].eq(fold) & cases["seed"].eq(seed)]
        score = float(measure_of(metric).values(one).iloc[0])
        caption = (
            f"{words} {plain(score, 2)} (fold {fold}, seed {seed}); mean of its runs {plain(float(means[arm]), 2)}"
        )
        panels.append(Panel(arm, caption, to_webp(picture)))
    return slice_title(store, row, external=kind == "external"), panels
