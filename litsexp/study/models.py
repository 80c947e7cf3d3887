"""A study's best run as a model of MLflow: logged to that run, and registered under the experiment's name.

``mlflow.pyfunc.load_model("models:/mini@baseline").predict("volume-7.nii.gz")``: the alias ``baseline`` is on that run
of the baseline that has the best validation score; of a search, whose arms are its results, ``best`` is on its best
run. A name has one version a run; where several studies have one name, the alias is that of the one that ended last.

Only ``MlflowClient`` is used, so that no active run is left and nobody's tracking address changes.
"""

import json
import logging
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Metric, Run
from mlflow.entities.logged_model_status import LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion

from litsexp.data.store import Store
from litsexp.interrupts import unbroken
from litsexp.spec.catalog import ARCHITECTURES
from litsexp.spec.design import cells
from litsexp.spec.errors import LitsexpError, one_line
from litsexp.spec.run import IN_TABLES, RunConfig
from litsexp.study.addresses import masked
from litsexp.study.keeping import WEIGHTS, keeps, no_weights
from litsexp.study.served import HU, RUN, VOLUME
from litsexp.study.served import WEIGHTS as WEIGHTS_ARTIFACT
from litsexp.study.session import Session

log = logging.getLogger(__name__)
MODEL_FORMAT = "1"  # raise it when a model of the same run would be another: the next end of a study registers it anew
FORMAT_TAG = "litsexp.model_format"  # of a registered model that studies own, and of its versions
BASELINE, BEST = "baseline", "best"  # aliases: of a fixed design, of a search
PACKAGES = ("litsexp", "mlflow", "torch", "torchvision", "fastai", "timm", "segmentation-models-pytorch")
READERS = ("nibabel", "isal", "numpy", "pandas", "safetensors", "pydantic")
MONAI = ("monai", "einops")  # where the network is one of MONAI's
SCORES = ("best/score", "test/dice_tumor", "test/dice_liver", "native/dice_tumor", "external/dice_tumor")
CONTEXTS = {"best": "validation", "test": "testing", "external": "external"}  # of the data that a score is of


@dataclass(frozen=True)
class Registered:
    """Where the best run of a study stands among the registered models."""

    name: str
    alias: str
    version: str
    uri: str  # of the tracking server or database

    @property
    def how(self) -> str:
        """The line that loads it."""
        loaded = f'mlflow.pyfunc.load_model("models:/{self.name}@{self.alias}")'
        return f'{loaded} after mlflow.set_tracking_uri("{masked(self.uri)}"); it is version {self.version}'


def register_best(session: Session, finished: Mapping[str, Run]) -> Registered | None:
    """Log and register the best of the study's ``finished`` runs, unless it is; the alias moves to it.

    None where no run has finished. No study fails for that: where MLflow refuses, or the best run keeps no weights, a
    warning says why in one line, and None is returned. Ctrl-C waits.
    """
    try:
        with unbroken():
            best = best_run(session, finished)
            return _registered(session, best) if best else None
    except Exception as error:  # the study is over: whatever breaks here must not cost its report
        why = str(error) if isinstance(error, LitsexpError) else one_line(error)
        log.warning("the study's best run is not registered as a model: %s", why)
        return None


def best_run(session: Session, finished: Mapping[str, Run]) -> Run | None:
    """The finished run with the best validation score: of the baseline, or of a search; None where none has one."""
    arm = None if session.study.search else cells(session.study)[0].arm.name
    runs = [finished[key] for key, cell in session.cells.items() if key in finished and arm in (None, cell.arm.name)]
    scored = [run for run in runs if "best/score" in run.data.metrics]
    return max(scored, key=lambda run: float(run.data.metrics["best/score"]), default=None)


def _registered(session: Session, run: Run) -> Registered:
    client, alias = session.tracking.client, BEST if session.study.search else BASELINE
    name = re.sub(r"[/:'\"]", "-", session.name)  # MLflow's registry refuses some of them
    known = [one for one in client.search_model_versions(f"name='{name}'") if _is_of(one, run)]
    if not known and not keeps(run):
        raise no_weights(run.info.run_id, run.info.run_name, "registration")
    owner = _owned(client, name, session.store.phantom)
    number = str(known[0].version) if known else _new_version(session, name, run)
    if str(owner.aliases.get(alias, "")) != number:
        client.set_registered_model_alias(name, alias, number)
    return Registered(name, alias, number, session.tracking.uri)


def _owned(client: MlflowClient, name: str, phantom: bool) -> Any:
    """The registered model of this name, made where it is missing; LitsexpError where it is somebody else's."""
    found = [one for one in client.search_registered_models(f"name='{name}'") if one.name == name]
    if not found:
        of = " of phantom patients, which are synthetic" if phantom else ""
        said = f"The best runs of studies{of}, as functions of a CT volume; each version says which run it is."
        return client.create_registered_model(name, {FORMAT_TAG: MODEL_FORMAT}, said)
    if FORMAT_TAG not in found[0].tags:
        raise LitsexpError(
            f"registered model {name!r}: found one that no study made; "
            "expected none of this name, or a study's; rename it, or the study's file"
        )
    return found[0]


def _is_of(one: ModelVersion, run: Run) -> bool:
    return bool(one.run_id == run.info.run_id and one.tags.get(FORMAT_TAG) == MODEL_FORMAT)


def _new_version(session: Session, name: str, run: Run) -> str:
    """Register the run's model, logged where it is not; the number of the version."""
    client, store = session.tracking.client, session.store
    with tempfile.TemporaryDirectory() as folder:
        for file in (WEIGHTS, "run.json"):
            client.download_artifacts(run.info.run_id, file, folder)
        about = json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))
        megabytes = (Path(folder) / WEIGHTS).stat().st_size / 1e6
        model_id = _logged_before(client, run) or _log(client, run, about, store, Path(folder))
    tags = {**_tags(run, about, megabytes), "model_id": model_id}
    of = {"run_id": run.info.run_id, "model_id": model_id, "tags": tags, "description": _told(run, tags)}
    source = client.get_logged_model(model_id).artifact_location  # models:/ID would be asked of the global address
    number = str(client.create_model_version(name, source, **of).version)
    registered = json.dumps([{"name": name, "version": number}])  # what the page of a run's models links
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": registered})
    return number


def _logged_before(client: MlflowClient, run: Run) -> str | None:
    """The model that an interrupted call has logged whole; what it left unfinished is deleted."""
    asked = f"source_run_id = '{run.info.run_id}' AND tags.`{FORMAT_TAG}` = '{MODEL_FORMAT}'"
    whole = None
    for found in client.search_logged_models([run.info.experiment_id], asked):
        if found.status == LoggedModelStatus.READY:
            whole = str(found.model_id)
        else:
            client.delete_logged_model(found.model_id)
    return whole


def _log(client: MlflowClient, run: Run, about: dict[str, Any], store: Store, folder: Path) -> str:
    """Log the run's model to the run; its id. What cannot be logged whole is deleted."""
    name = re.sub(r"[/:.%\"']", "-", run.info.run_name)  # a phantom's says so
    tags = {
        FORMAT_TAG: MODEL_FORMAT,
        **{tag: run.data.tags[tag] for tag in ("phantom", "leaks") if tag in run.data.tags},
    }
    made = client.create_logged_model(
        run.info.experiment_id, name, run.info.run_id, tags, dict(run.data.params), "segmentation"
    )
    try:
        _save(folder / "model", made, run, about, folder, store)
        client.log_model_artifacts(made.model_id, str(folder / "model"))
        client.log_outputs(run.info.run_id, [LoggedModelOutput(made.model_id, step=0)])
        _log_scores(client, run, made.model_id)
        client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
    except BaseException:
        client.delete_logged_model(made.model_id)
        raise
    return str(made.model_id)


def _save(place: Path, made: Any, run: Run, about: dict[str, Any], folder: Path, store: Store) -> None:
    """Write the model as MLflow lays one out, without running it."""
    import mlflow.pyfunc
    from mlflow.models import Model

    settings = RunConfig.model_validate(about["run"])
    meta = Model(artifact_path=made.artifact_location, run_id=run.info.run_id, model_uuid=made.model_id)
    meta.model_id = made.model_id
    mlflow.pyfunc.save_model(
        place,
        python_model=Path(__file__).with_name("logged_model.py"),
        artifacts={WEIGHTS_ARTIFACT: str(folder / WEIGHTS), RUN: str(folder / "run.json")},
        model_config={"threads": 1, "plugins": _plugins(settings)},
        signature=signature(),
        input_example={VOLUME: _example(about, store)},
        pip_requirements=requirements(settings),
        mlflow_model=meta,
    )


def signature() -> Any:
    """A path or HU to labels. MLflow's columns cannot say "one of the two": ``Served`` checks what it is given."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec
    from mlflow.types.schema import Array

    hu = Array(Array(Array(DataType.double)))  # z, row, column
    asked = [ColSpec(DataType.string, VOLUME, required=False), ColSpec(hu, HU, required=False)]
    found = ModelSignature(Schema(asked), Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1))]))
    found._is_signature_from_type_hint = True  # "the model checks": else MLflow refuses arrays and plain strings
    return found


def requirements(run: RunConfig) -> list[str]:
    """What a model needs, in the versions that are installed; without a build's mark, ``+cpu``."""
    more = MONAI if "monai" in str(ARCHITECTURES[run.architecture].make) else ()
    return [f"{name}=={version(name).partition('+')[0]}" for name in (*PACKAGES, *READERS, *more)]


def _plugins(run: RunConfig) -> list[str]:
    """Modules that registered rows which the run names; a notebook's own cannot be loaded elsewhere."""
    modules = {table.added.get(table.row_name(getattr(run, name)), "") for name, table in IN_TABLES.items()}
    return sorted(modules - {"", "__main__"})


def _example(about: dict[str, Any], store: Store) -> str:
    """The volume of a patient that the run was tested on, where it lay when the slices were stored."""
    told, case = store.about(), min(about["split"]["test"], default=None)
    files = [next(iter(one["files"])) for one in told["inputs"] if case in (None, one["case"])]
    return str(Path(told["root"]) / files[0]) if files else "volume-0.nii.gz"


def _log_scores(client: MlflowClient, run: Run, model_id: str) -> None:
    """The run's scores once more, as this model's, on the data that they are of."""
    data = {one.tags[0].value: one.dataset for one in run.inputs.dataset_inputs if one.tags}
    points = []
    for name in SCORES:
        for point in client.get_metric_history(run.info.run_id, name)[-1:]:
            of = data.get(CONTEXTS.get(name.partition("/")[0], ""))
            which = {"dataset_name": of.name, "dataset_digest": of.digest} if of else {}
            points.append(Metric(name, point.value, point.timestamp, point.step, model_id, **which))
    client.log_batch(run.info.run_id, metrics=points)


def _tags(run: Run, about: dict[str, Any], megabytes: float) -> dict[str, str]:
    """What a version says of its run, for programs."""
    names = ("phantom", "leaks", "cohort", "study_digest", "git_commit")
    return {
        FORMAT_TAG: MODEL_FORMAT,
        "arm": run.data.params["arm"],
        "fold": str(about["fold"]),
        "seed": str(about["seed"]),
        "validation_score": f"{run.data.metrics['best/score']:.4f}",
        "size_mb": f"{megabytes:.1f}",
        "data_fingerprint": about["data_fingerprint"],
        **{name: run.data.tags[name] for name in names if name in run.data.tags},
    }


def _told(run: Run, tags: dict[str, str]) -> str:
    """The version's description, in Markdown."""
    warned = []
    if tags.get("phantom") == "true":
        warned.append(
            "**Phantom: the patients are synthetic.** It shows how the instrument works, not what holds in patients."
        )
    if tags.get("leaks") == "true":
        warned.append("**Leaks:** it has learned from neighbours of the slices that it was tested on.")
    facts = [
        f"arm: {tags['arm']}, fold {tags['fold']}, seed {tags['seed']}",
        f"validation score: {tags['validation_score']}",
        f"size: {tags['size_mb']} MB",
        f"data: {tags.get('cohort', 'unknown cohort')}, fingerprint {tags['data_fingerprint']}",
        f"run: {run.info.run_id}; run.json says which patients it learned from",
    ]
    use = '`predict("volume.nii.gz")`, or of an array of HU (z, row, column): labels, 1 liver, 2 tumor.'
    return "\n\n".join([*warned, "\n".join(f"- {fact}" for fact in facts), use])
