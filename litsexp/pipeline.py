"""The whole way of a study: store, runs, verdicts, report, log. The command line, a notebook and the tests call it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from litsexp.data.cohorts import store_of
from litsexp.data.rows import held_out_rows
from litsexp.data.splits import make_splits, split_table
from litsexp.display import LiveDisplay, console, progress_bar, say
from litsexp.evaluation.cases import trivial_cases
from litsexp.evaluation.truths import NativeCohort
from litsexp.evidence.judge import Verdict, judge
from litsexp.evidence.kinds import Tables
from litsexp.evidence.leaks import marked, warning
from litsexp.evidence.material import Evidence, External, arm_names
from litsexp.evidence.parent import failed_runs, note, scalars, verdict_tags
from litsexp.evidence.report import write_report
from litsexp.evidence.search_page import write_search_page
from litsexp.evidence.tables import write_tables
from litsexp.side_by_side import best_first, shown_side_by_side
from litsexp.spec.claim import Claim
from litsexp.spec.errors import LitsexpError
from litsexp.spec.keys import digest
from litsexp.spec.reading import load_study
from litsexp.spec.study import StudyConfig
from litsexp.study.addresses import linked, masked
from litsexp.study.cohorts import cohort_name, cohort_tags
from litsexp.study.datasets import cohort_inputs, log_inputs
from litsexp.study.executors import AUTO, executor_of, workers_of
from litsexp.study.gpu_room import room_on_gpu
from litsexp.study.jobs import Executor
from litsexp.study.keeping import KeepWeights, check_choice
from litsexp.study.models import Registered, register_best
from litsexp.study.observer import Observer
from litsexp.study.places import Places
from litsexp.study.reading import finished_of
from litsexp.study.results import Results
from litsexp.study.session import Session, open_study
from litsexp.study.supply import check_sending, send_all
from litsexp.study.versions import versions
from litsexp.study.views import LOCAL, address, prepare

NO_LEAK = "expected split.unit: patient; a leaking study tests held-out slices, not volumes"


@dataclass(frozen=True)
class Conclusion:
    """What a study ended with."""

    evidence: Evidence
    report: Path
    results: Results
    failures: dict[str, str]  # name of each run that failed in this session -> reason
    trained_s: list[float]  # fit and evaluation of each run that was trained in this session
    wall_s: float  # of all of them
    experiment: str  # in MLflow
    experiment_id: str

    @property
    def verdicts(self) -> Sequence[Verdict]:
        """One a claim, on the patients that the study tested."""
        return self.evidence.verdicts


def run_study(
    study: StudyConfig | Path | str,
    places: Places | None = None,
    *,
    name: str = "",
    executor: str | None = None,
    workers: int | str | None = None,
    threads: int | None = None,
    executor_options: Sequence[str] = (),
    retries: int = 0,
    send_stores: bool = False,
    keep_weights: KeepWeights = "all",
    observer: Observer | None = None,
    train: bool = True,
    score: bool = False,
    native: bool = False,
    command: str = "",
    before: Callable[[Session, int | None], None] | None = None,
) -> Conclusion:
    """Run a study to its verdicts; running it again goes on, and never runs a cell twice.

    Args:
        study: a study, or the path of its file.
        places: where results and stores go; default: ``mlruns/`` and ``data/`` here.
        name: of the MLflow experiment; default: the file's stem, or ``study``.
        executor: where cells run, a name of the table; default: by ``workers``.
        workers: runs at a time, or ``auto``: as many as a GPU holds; default: a core each, one on a GPU, 20 jobs.
        threads: of a run; default: 1. Another number changes the last bits.
        executor_options: of a cluster's jobs: ``partition=gpu``, as sbatch's long options; ``num_gpus=0.5`` of Ray.
        retries: how often a run whose worker died is run again, when the others have ended.
        send_stores: whether slice stores are sent to MLflow, for workers that do not see the stores' folder.
        keep_weights: which runs keep them in MLflow: ``all``, ``baseline`` (its arm's), ``none``; scores are the same.
        observer: told of what happens; default: a live table in the terminal or notebook.
        train: whether missing runs are trained; without, the report is written from the runs there are.
        score: whether, without ``train``, finished runs are scored where a scoring is missing.
        native: whether test cases are scored at native resolution, too; as a claim about it asks anyway.
        command: that repeats the study, for the report's reader.
        before: told of the open study, and of the number of workers, before anything is trained.

    Raises:
        LitsexpError: something the user can put right, in one line.
    """
    asked, name = study_and_name(study, name)
    check_choice(keep_weights, asked)
    places, engine = places or Places.below(), None
    if workers == AUTO and score and not train:
        raise LitsexpError(f"--workers {AUTO}: found a study that is only scored; expected a number")
    number, measure = workers_of(executor, workers)
    if train or score:  # before anything is written
        engine = executor_of(executor, number, threads, executor_options, places)
    if send_stores:
        check_sending(executor, places.tracking_uri, native or "native" in asked.needs)
    with opened(asked, name, places, None, native, keep_weights, train or score) as session:
        if measure and engine is not None:
            number = as_many_as_fit(session, threads)
            engine = executor_of(executor, number, threads, executor_options, places)
        if before is not None:
            before(session, number)
        if send_stores:
            send_all(session.tracking.client, (session.store, session.external), progress_bar)
        if engine is not None:
            train_missing(session, engine, observer, train, retries)
        with console.status("writing the report") if observer is None else nullcontext():
            return conclude(session, command)


def study_and_name(study: StudyConfig | Path | str, name: str) -> tuple[StudyConfig, str]:
    """The study, and the name of its experiment."""
    if isinstance(study, StudyConfig):
        return study, name or "study"
    return load_study(Path(study)), name or Path(study).stem


@contextmanager
def opened(
    study: StudyConfig,
    name: str,
    places: Places | None,
    fixed: Sequence[Claim] | None = None,
    native: bool = False,
    keep_weights: KeepWeights = "all",
    scoring: bool = True,
) -> Iterator[Session]:
    """The study's session, its stores built where they are missing; ``open_study`` knows the rest."""
    places, native = places or Places.below(), native or "native" in study.needs
    if native and study.leaks:
        raise LitsexpError(f"native resolution: found a study in which an arm leaks; {NO_LEAK}")
    store = store_of(study.data, places.stores, bar=progress_bar)
    external = store_of(study.external_data, places.stores, bar=progress_bar) if study.external_data else None
    splits = make_splits(store.has_tumor, study.split)
    whole = NativeCohort.of(study.data, places.stores, progress_bar) if native else None
    asked = (name, study, store, splits, places, external, fixed, whole, keep_weights, scoring)
    with open_study(*asked) as session:
        log_inputs(session.tracking.client, session.parent.run_id, cohort_inputs(store, external))
        yield session


def train_missing(
    session: Session, executor: Executor, observer: Observer | None, train: bool = True, retries: int = 0
) -> None:
    """Run what is missing, seen by ``observer``, or in a live table; without ``train``, only score finished runs."""
    live = LiveDisplay(console, session.study, cohort_name(session.study.data, session.store))
    watch: AbstractContextManager[Observer] = live if observer is None else nullcontext(observer)
    if observer is None and (said := warning(session.study)):
        say(said, style="red")
    with watch as watching:
        session.run(executor, watching, train, retries)


def as_many_as_fit(session: Session, threads: int | None) -> int:
    """Runs at a time on this machine's GPU; measured, and told in one line."""
    with progress_bar("arms rehearsed for their memory") as advance:
        room = room_on_gpu(session, threads or 1, advance)
    if room.left:
        say(room.words)
    return room.workers


def conclude(session: Session, command: str = "") -> Conclusion:
    """Judge the claims, write report and tables, log them to the parent run; what has not finished is missing."""
    tracking, runs = session.tracking, session.tracking.runs()  # once: what is asked of them stays as it is
    study, results, phantom = session.study, session.results(runs), session.store.phantom
    failures, registered = failures_of(session), session.parent.preregistered
    model = register_best(session, finished_of(runs))
    names = best_first(session) if study.search else arm_names(study, results.runs, results.cases)
    trivial = trivial_cases(session.store, held_out_rows(session.store, session.splits) if study.leaks else None)
    evidence = Evidence(
        name=session.name,
        study=study,
        cohort=cohort_name(study.data, session.store),
        phantom=phantom,
        verdicts=marked(judge(study, tables_of(results, trivial), registered, kind="phantom" * phantom), study),
        cases=results.cases,
        curves=results.curves,
        runs=results.runs,
        trivial=trivial,
        split=split_table(session.store, session.splits),
        pictures=shown_side_by_side(session, session.store, results.cases, results.runs, names, "test"),
        facts=facts(session, results.runs, command, model),
        search=session.trials() if study.search else None,
        importances=session.ledger.importances() if study.search else None,
        notes=[f"{name} failed: {reason}" for name, reason in failures.items()],
        external=external_part(session, results, names),
        native=results.native,
    )
    directory = report_folder(session, session.name)
    write_tables(evidence, directory)
    report = write_report(evidence, directory / "report.html")
    if study.search:
        write_search_page(evidence, directory / "search.html")
    tags = {**cohort_tags(study, session.store), **verdict_tags(evidence)}
    if session.external is not None and evidence.external is not None:
        tags |= {"external_cohort": evidence.external.cohort, "external_fingerprint": session.external.fingerprint}
    tracking.mark("failed_to_learn", failed_runs(evidence), results.runs.get("run_id", ()), runs)
    edited = directory.name if directory.parent.name != "reports" else ""
    said = note(evidence, f"{edited}/report.html" if edited else "report.html")
    tracking.conclude(session.parent, said, tags, scalars(evidence), directory, edited)
    own = [run for run in runs if run.data.tags.get("run_key") in session.cells]
    prepare(tracking.client, tracking.experiment_id, own)
    told = (session.trained_s, session.wall_s, session.name, tracking.experiment_id)
    return Conclusion(evidence, report, results, failures, *told)


def tables_of(results: Results, trivial: pd.DataFrame) -> Tables:
    """What the judge is shown."""
    return Tables(results.cases, results.train, results.epochs, trivial, results.native)


def failures_of(session: Session) -> dict[str, str]:
    """Name of each run that failed in this session -> reason."""
    return {cell.name: outcome.reason for cell, outcome in session.failures.items()}


def report_folder(session: Session, name: str) -> Path:
    """Made where it is missing; of the same runs on another external cohort it is another folder.

    Of claims that are not those from before the first run it is a folder within: an edited claim never changes an
    earlier report.
    """
    key = session.digest
    if session.external is not None:
        key = digest({"design": key, "external": session.external.fingerprint})
    directory = session.places.root / "reports" / f"{name}-{key[:8]}"
    if session.parent.claims_digest != session.study.claims_digest:
        directory /= f"claims-{session.study.claims_digest[:8]}"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def external_part(session: Session, results: Results, names: Sequence[str]) -> External | None:
    """What the finished runs scored on the external cohort, judged by the same claims; None without one."""
    store, asked = session.external, session.study.external
    if store is None or asked is None:
        return None
    kind, trivial = "external phantom" if store.phantom else "external", trivial_cases(store)
    tables = Tables(results.external, trivial=trivial)
    return External(
        cohort=cohort_name(asked, store),
        phantom=store.phantom,
        verdicts=judge(session.study, tables, session.parent.preregistered, kind=kind, external=True),
        cases=results.external,
        trivial=trivial,
        pictures=shown_side_by_side(session, store, results.external, results.runs, names, "external"),
    )


def facts(session: Session, runs: pd.DataFrame, command: str, model: Registered | None) -> dict[str, str]:
    """What a sceptic wants to know, by name."""
    done = runs[runs["status"] == "FINISHED"]
    registered = session.parent.preregistered
    experiment, run, uri = session.tracking.experiment_id, session.parent.run_id, session.tracking.uri
    server = linked(uri) if uri.startswith("http") else LOCAL
    after = "" if uri.startswith("http") else "after litsexp ui: "
    whose = "search's" if session.study.search else "baseline's"
    return {
        "command": command,
        "design digest": session.digest,
        "data fingerprint": session.store.fingerprint,
        **({"external fingerprint": session.external.fingerprint} if session.external else {}),
        "claims digest": session.study.claims_digest,
        "claims digest before the first run": digest(registered) if registered else "none",
        "device": ", ".join(sorted({str(device) for device in done.get("device", ())})),
        "precision": ", ".join(sorted({str(name) for name in done.get("precision", ())})),
        "training and evaluation, all runs": f"{float(done['minutes'].sum()):.1f} min" if len(done) else "none",
        "MLflow": f"{masked(uri)}, experiment {session.name}, run {run}",
        "in the MLflow UI": f"{after}{address(server, experiment)}",
        "the study's own run there": f"{server.rstrip('/')}/#/experiments/{experiment}/runs/{run}",
        **({f"the {whose} best model": model.how} if model else {}),
        **versions(),
    }
