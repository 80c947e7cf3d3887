"""What MLflow holds of a study: its parent run, and what its cells gave."""

from dataclasses import dataclass, field

import pandas as pd


@dataclass(frozen=True)
class Parent:
    """A study's parent run and the claims that were written to it before its first cell: id -> digest."""

    run_id: str
    preregistered: dict[str, str]
    claims_digest: str  # of all claims as they were when it was made


@dataclass(frozen=True)
class Results:
    """What the finished cells of a study gave; ``arm``, ``fold`` and ``seed`` in every table."""

    cases: pd.DataFrame  # a row a test case: counts and scores
    curves: pd.DataFrame  # a row a metric and epoch
    runs: pd.DataFrame  # a row a cell, finished or not
    external: pd.DataFrame  # a row a case of the external cohort and finished cell, like ``cases``; empty where none
    train: pd.DataFrame = field(default_factory=pd.DataFrame)  # of training cases, where a claim is about them
    epochs: pd.DataFrame = field(default_factory=pd.DataFrame)  # of validation cases after each epoch, likewise
    native: pd.DataFrame = field(default_factory=pd.DataFrame)  # a row a test case's whole volume, where asked
