"""A search's own page: what it tried, and which settings its scores went with. Exploratory, and it says so."""

from pathlib import Path

import pandas as pd

from litsexp.evidence.material import Evidence
from litsexp.evidence.report import environment, grid, script
from litsexp.evidence.search_figure import BEST_DRAWN, SCORE, history, importances, parallel_coordinates
from litsexp.evidence.tables import best_trials
from litsexp.files import whole_file

FEW = 20  # finished trials; of fewer the importances say little


def write_search_page(evidence: Evidence, path: Path) -> Path:
    """Write the HTML file, whole or not at all."""
    with whole_file(path, replace=True) as temporary:
        temporary.write_text(render(evidence), encoding="utf-8", newline="\n")
    return path


def render(evidence: Evidence) -> str:
    """The page as HTML text."""
    trials = evidence.search if evidence.search is not None else pd.DataFrame()
    done = best_trials(trials, len(trials))
    params = [name for name in done.columns if name not in ("trial", SCORE)]
    shares = evidence.importances or {}
    return (
        environment()
        .get_template("search.html")
        .render(
            evidence=evidence,
            study=evidence.study,
            **script(),
            colours={},
            best=BEST_DRAWN,
            few=FEW,
            finished=len(done),
            parallel=parallel_coordinates(done, params) if len(done) > 1 else "",
            shares=shares,
            importances=importances(shares) if shares else "",
            history=history(trials) if len(done) > 1 else "",
            trials=grid(trials, "trials.csv") if len(trials) else None,
        )
    )
