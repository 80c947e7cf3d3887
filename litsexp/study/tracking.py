"""MLflow: one experiment a study name, a parent run a study, a child run a cell. ``reading`` makes data frames of them.

Only ``MlflowClient`` with explicit run ids is used: the fluent API's active run belongs to a thread. Runs are found by
the tag ``run_key``, never by name.
"""

import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import yaml
from mlflow.entities import Param, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE, MLFLOW_SOURCE_NAME
from sqlalchemy.exc import SQLAlchemyError

from litsexp.interrupts import unbroken_methods
from litsexp.spec.claim import Claim
from litsexp.spec.design import Cell
from litsexp.spec.study import StudyConfig
from litsexp.study.addresses import artifacts_are_shared
from litsexp.study.clients import CLOCK_S, experiment_id_of, no_answer, opened_client
from litsexp.study.jobs import Job, Outcome
from litsexp.study.names import run_name, short_name
from litsexp.study.reading import finished_of, is_done, within
from litsexp.study.results import Parent
from litsexp.study.versions import versions
from litsexp.study.views import every_run

UI_KIND = {"mlflow.experimentKind": "custom_model_development"}  # the UI shows runs and charts, not traces


@unbroken_methods
class Tracking:
    """The driver's view of one MLflow experiment."""

    def __init__(self, uri: str, experiment: str, artifacts: Path):
        self.uri = uri
        self._finished: dict[str, Run] = {}
        self._asked_ms = 0
        local = not artifacts_are_shared(uri)
        if local:
            artifacts.mkdir(parents=True, exist_ok=True)
        try:
            self.client = opened_client(uri)
            place = (artifacts / experiment).resolve().as_uri() if local else None
            self.experiment_id = experiment_id_of(self.client, experiment, place, UI_KIND)
        except (MlflowException, SQLAlchemyError) as error:
            raise no_answer(uri, error) from None

    def runs(self, filter_string: str = "") -> list[Run]:
        """Every run of the experiment that is not deleted, oldest first."""
        return every_run(self.client, self.experiment_id, filter_string)

    def finished(self) -> dict[str, Run]:
        """The finished run of each run key, in the whole experiment: a cell is its content, not its study.

        Asked again, only what has ended since is fetched; after ``forget`` all of it, with what was scored meanwhile.
        """
        asked, now_ms = "attributes.status = 'FINISHED'", int(time.time() * 1000)
        if self._finished:
            asked += f" and attributes.end_time >= {self._asked_ms - int(CLOCK_S * 1000)}"
        self._finished |= finished_of(self.runs(asked))
        self._asked_ms = now_ms
        return dict(self._finished)

    def forget(self) -> None:
        """What is finished was changed: the next ``finished`` asks anew."""
        self._finished.clear()

    def as_far_as_it_came(self, job: Job, outcome: Outcome) -> tuple[Job, Outcome]:
        """Where a job's worker died, what it had done by then: its run may have finished, and lack a scoring."""
        if job.trained or not outcome.died:
            return job, outcome
        run = self.client.get_run(job.run_id)
        if run.info.status != "FINISHED":
            return job, outcome
        if not is_done(run):
            return job, Outcome("pruned")
        left = tuple(scoring for scoring in job.scorings if scoring.tag not in run.data.tags)
        told = replace(outcome, status="unscored") if left else Outcome("finished")
        return replace(job, trained=True, scorings=left), replace(told, value=value_of(run))

    def finished_among(self, run_keys: Iterable[str]) -> dict[str, Run]:
        """The same of a few run keys."""
        return finished_of(run for key in run_keys if key for run in self.runs(f"tags.run_key = '{key}'"))

    def open_parent(
        self,
        study: StudyConfig,
        digest: str,
        name: str,
        donors: Iterable[str],
        tags: Mapping[str, str],
        fixed: Iterable[Claim] | None = None,
    ) -> Parent:
        """The study's parent run, made before its first cell with the claims' digests; RUNNING from here on.

        ``donors`` are parent runs whose finished cells this study takes over: a claim then counts as fixed beforehand
        only if they had it too. ``tags`` say of which patients its results are. ``fixed`` are the claims that are
        written down; default: the study's own.
        """
        known = self.runs(f"tags.study_digest = '{digest}' and tags.claims_preregistered LIKE '%'")  # no cell of it
        if known:
            self.client.update_run(known[0].info.run_id, status="RUNNING")
            tags = known[0].data.tags
            of_then = tags.get("claims_digest", study.claims_digest)
            return Parent(known[0].info.run_id, json.loads(tags["claims_preregistered"]), of_then)
        claims = {claim.id: claim.digest for claim in (study.claims if fixed is None else fixed)}
        for donor in donors:
            found = self.client.get_run(donor).data.tags
            theirs = json.loads(found.get("claims_preregistered", "{}")).values()
            claims = {claim: value for claim, value in claims.items() if value in theirs}
        all_tags = {
            MLFLOW_RUN_NAME: run_name(f"{name}-{digest[:8]}", tags),
            MLFLOW_RUN_NOTE: f"**{study.question}**\n\nThe answer stands here when the study has ended.",
            "study_digest": digest,
            "claims_preregistered": json.dumps(claims),
            "claims_digest": study.claims_digest,
            **tags,
            **versions(),
        }
        run_id = self.client.create_run(self.experiment_id, tags=all_tags).info.run_id
        self.client.log_text(run_id, to_yaml(study), "study.yaml")
        return Parent(run_id, claims, study.claims_digest)

    def close_interrupted(self, parent: Parent) -> None:
        """Close as KILLED the runs that a killed driver left RUNNING below this parent."""
        for run in self.runs(f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.run_id}' and attributes.status = 'RUNNING'"):
            self.end(run.info.run_id, "KILLED", "the driver was interrupted")

    def below(self, parent: Parent, run_ids: Iterable[str]) -> list[str]:
        """Those of these runs that are this parent's."""
        found = []
        for run_id in run_ids:
            with suppress(MlflowException):  # not of this database
                if self.client.get_run(run_id).data.tags.get(MLFLOW_PARENT_RUN_ID) == parent.run_id:
                    found.append(run_id)
        return found

    def start_cell(self, cell: Cell, run_key: str, parent: Parent, tags: Mapping[str, str]) -> str:
        """A new RUNNING child run for a cell; earlier attempts are marked superseded. Returns its run id."""
        earlier = self.runs(f"tags.run_key = '{run_key}'")
        for run in earlier:
            self.client.set_tag(run.info.run_id, "superseded", "true")
        all_tags = {
            MLFLOW_RUN_NAME: run_name(short_name(cell), tags),
            MLFLOW_PARENT_RUN_ID: parent.run_id,
            MLFLOW_SOURCE_NAME: "litsexp",
            "run_key": run_key,
            "attempt": str(len(earlier) + 1),
            **tags,
        }
        run_id: str = self.client.create_run(self.experiment_id, tags=all_tags).info.run_id
        settings = {"arm": cell.arm.name, **cell.arm.run.model_dump(), "fold": cell.fold, "seed": cell.seed}
        self.client.log_batch(run_id, params=[Param(name, str(value)) for name, value in settings.items()])
        return run_id

    def end(self, run_id: str, status: str, reason: str = "", detail: str = "") -> None:
        """End a run as FINISHED, FAILED or KILLED, with the reason as a tag and the detail as ``failure.txt``."""
        if reason:
            self.client.set_tag(run_id, "reason", reason[:1000])
        if detail:
            self.client.log_text(run_id, detail, "failure.txt")
        self.client.set_terminated(run_id, status)

    def mark(self, tag: str, values: Mapping[str, str], among: Iterable[str], runs: Iterable[Run]) -> None:
        """Set a tag on those of ``runs`` that ``values`` names, by id, and take it from the others ``among`` a study's.

        What an earlier conclusion said and no longer holds is gone.
        """
        theirs = set(among)
        for run in runs:
            run_id, known = run.info.run_id, run.data.tags.get(tag)
            if run_id in values and known != values[run_id][:1000]:
                self.client.set_tag(run_id, tag, values[run_id][:1000])
            elif run_id in theirs and run_id not in values and known is not None:
                with suppress(MlflowException):  # another study that shares it was faster
                    self.client.delete_tag(run_id, tag)

    def conclude(
        self,
        parent: Parent,
        note: str,
        tags: Mapping[str, str],
        scores: Mapping[str, float],
        directory: Path,
        within: str = "",
    ) -> None:
        """Write answer, tags, scores and every file of ``directory`` to the parent and finish it.

        ``within`` is the folder among its artifacts that the files go to.
        """
        for name, value in {MLFLOW_RUN_NOTE: note, **tags}.items():
            self.client.set_tag(parent.run_id, name, value[:8000])
        for name, score in scores.items():
            self.client.log_metric(parent.run_id, name, score)
        self.client.log_artifacts(parent.run_id, str(directory), within or None)
        self.client.set_terminated(parent.run_id, "FINISHED")

    def beside_cases(self, run_id: str, folder: str, name: str) -> bytes | None:
        """A file in a scoring's folder (``.``: that of the run); None where there is none."""
        path = within(folder, name)
        there = self.client.list_artifacts(run_id, None if folder == "." else folder)
        return self.artifact(run_id, path) if any(file.path == path for file in there) else None

    def artifact(self, run_id: str, path: str) -> bytes:
        """The bytes of one artifact of a run."""
        with tempfile.TemporaryDirectory() as directory:
            return Path(self.client.download_artifacts(run_id, path, directory)).read_bytes()


def value_of(run: Run) -> float:
    """What the ledger is told of a finished cell: its best validation score."""
    return float(run.data.metrics["best/score"])


def to_yaml(study: StudyConfig) -> str:
    """The resolved study file."""
    return yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
