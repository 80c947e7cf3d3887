"""The whole way of an A/A test: the baseline's runs, dealt to pretended arms; table, JSON, picture and log."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from litsexp.display import console, progress_bar
from litsexp.evidence.aa import AATest, aa_study, aa_test
from litsexp.evidence.aa_figure import aa_figure
from litsexp.files import whole_file
from litsexp.pipeline import as_many_as_fit, failures_of, opened, report_folder, study_and_name, train_missing
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig
from litsexp.study.cohorts import cohort_name, cohort_tags
from litsexp.study.executors import executor_of, workers_of
from litsexp.study.keeping import KeepWeights, check_choice
from litsexp.study.names import run_name
from litsexp.study.observer import Observer
from litsexp.study.places import Places
from litsexp.study.results import Results
from litsexp.study.session import Session
from litsexp.study.supply import check_sending, send_all


@dataclass(frozen=True)
class AAResult:
    """What an A/A test ended with."""

    test: AATest
    directory: Path  # aa.json, aa.csv, aa.svg
    results: Results  # of the baseline's runs
    failures: dict[str, str]  # name of each run that failed in this session -> reason
    experiment: str  # in MLflow


def run_aa(
    study: StudyConfig | Path | str,
    places: Places | None = None,
    *,
    seeds: int = 8,
    name: str = "",
    executor: str | None = None,
    workers: int | str | None = None,
    threads: int | None = None,
    executor_options: Sequence[str] = (),
    retries: int = 0,
    send_stores: bool = False,
    keep_weights: KeepWeights = "all",
    observer: Observer | None = None,
) -> AAResult:
    """Train a study's baseline with seeds 0, 1, ... and see how often its own runs are told apart.

    The study's runs of the baseline are taken over, and the study takes over these: none is trained twice. Its claims
    are written down before the first run, as the study itself would, so that they stay fixed beforehand.

    Args:
        study: a study, or the path of its file.
        places: where results and stores go; default: ``mlruns/`` and ``data/`` here.
        seeds: of the baseline, 0, 1, ...; 2 or more. Half of them, times the folds, should be 5 run pairs or more.
        name: of the MLflow experiment, the study's own; default: the file's stem, or ``study``.
        executor: where cells run, a name of the table; default: by ``workers``.
        workers: runs at a time; default: one a core (at most 8), one on a GPU; ``auto``: as many as fit on it.
        threads: of a run; default: 1. Another number changes the last bits.
        executor_options: of a cluster's jobs, as are the next two; as ``run_study`` takes them.
        retries: how often a run whose worker died is run again, when the others have ended.
        send_stores: whether slice stores are sent to MLflow, for workers that do not see the stores' folder.
        keep_weights: ``none``: no run keeps them in MLflow; scores are the same.
        observer: told of what happens; default: a live table in the terminal or notebook.

    Raises:
        LitsexpError: something the user can put right, in one line.
    """
    if seeds < 2:
        raise LitsexpError(f"seeds: found {seeds}; expected 2 or more: two pretended arms need a run each")
    asked, name = study_and_name(study, name)
    alone, places = aa_study(asked, seeds), places or Places.below()
    check_choice(keep_weights, alone)
    number, measure = workers_of(executor, workers)
    engine = executor_of(executor, number, threads, executor_options, places)
    if send_stores:
        check_sending(executor, places.tracking_uri, native=False)
    with opened(alone, name, places, asked.claims, keep_weights=keep_weights) as session:
        if measure:
            engine = executor_of(executor, as_many_as_fit(session, threads), threads, executor_options, places)
        if send_stores:
            send_all(session.tracking.client, (session.store, session.external), progress_bar)
        train_missing(session, engine, observer, retries=retries)
        with console.status("dealing the runs") if observer is None else nullcontext():
            return conclude_aa(session, asked)


def conclude_aa(session: Session, asked: StudyConfig) -> AAResult:
    """Deal the finished runs, write table, JSON and picture, log them to the parent run.

    LitsexpError where a fold has fewer than two finished runs.
    """
    results, failures = session.results(), failures_of(session)
    _check_enough(results.cases, session.study.split.n_folds, failures)
    cases = {"test": (cohort_name(asked.data, session.store), results.cases)}
    if session.external is not None and asked.external is not None and len(results.external):
        cases["external"] = cohort_name(asked.external, session.external), results.external
    test = aa_test(session.name, asked, len(session.study.seeds), cases)
    directory = report_folder(session, f"{session.name}-aa")
    csv = test.shares.assign(patients_are=test.shares["cohort"].map(test.cohorts))
    contents = {
        "aa.json": test.as_json(),
        "aa.csv": csv.to_csv(index=False, lineterminator="\n"),
        "aa.svg": aa_figure(test),
    }
    for file, content in contents.items():
        with whole_file(directory / file, replace=True) as temporary:
            temporary.write_text(content, encoding="utf-8")
    tags = cohort_tags(session.study, session.store)
    tags[MLFLOW_RUN_NAME] = run_name(directory.name, tags)
    session.tracking.conclude(session.parent, test.note, tags, test.scalars, directory)
    return AAResult(test, directory, results, failures, session.name)


def _check_enough(cases: pd.DataFrame, folds: int, failures: Mapping[str, str]) -> None:
    for fold in range(folds):
        runs = cases.loc[cases["fold"] == fold, "seed"].nunique() if len(cases) else 0
        if runs < 2:
            found = f"A/A test: found {runs} finished run{'s' * (runs != 1)} on fold {fold}; expected 2 or more"
            why = "".join(f"; {name} failed: {reason}" for name, reason in list(failures.items())[:1])
            raise LitsexpError(f"{found}{why}; mend that, and the same command goes on")
