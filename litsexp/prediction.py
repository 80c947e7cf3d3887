"""From finished runs to masks on disk, each in its volume's own geometry; what ``litsexp predict`` does.

Of an ensemble a volume is labeled by the runs that have not learned from its patient: who that is, is told by the
pixels, not by the file's name, so that copies and renamed files are known, too.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from numpy.typing import NDArray

from litsexp.data.ct.layout import find_volumes
from litsexp.data.ct.nifti import write_labels
from litsexp.data.ct.volume import open_image
from litsexp.data.parallel import Progress
from litsexp.data.store import Store
from litsexp.data.store.convert import all_slices
from litsexp.evaluation.native import WayBack
from litsexp.files import whole_file
from litsexp.spec.errors import LitsexpError
from litsexp.study.executors.inline import torch_threads
from litsexp.study.places import Places
from litsexp.study.trained import TrainedRun, check_weights, connected, ensemble_of, members, trained_run
from litsexp.training.predict import Predictor

ABOUT = "predictions.json"  # in the folder of masks: which runs made them, of which volumes


@dataclass(frozen=True)
class Predicted:
    """What became of the volumes of a folder."""

    written: int  # masks, in this call
    kept: int  # of an interrupted one
    by: dict[str, list[str]]  # mask's name -> ids of the runs that labeled it
    learned: dict[str, str]  # of a single run, where it has seen the patient: mask's name -> training or validation
    unchecked: str  # why nobody could tell whether patients had been learned from; empty: they were compared


def predict(
    run_id: str,
    data: Path | str,
    out: Path | str,
    places: Places | None = None,
    *,
    ensemble: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> Predicted:
    """Label every CT volume under a folder by a finished run, a mask each in the volume's own geometry.

    ``litsexp.predict("3f2a…", "LiTS", "masks").written``

    Args:
        run_id: as MLflow knows it.
        data: volumes in any subfolders; segmentations beside them are left alone.
        out: a new folder, or that of the same call before it was interrupted.
        places: where the run is; default: below ``mlruns/`` here.
        ensemble: all folds and seeds of the run's arm; see ``predict_folder``.
        threads: another number changes the last bits.
        progress: called with volumes done and in all.

    Raises:
        LitsexpError: something the user can put right, in one line.
    """
    client = connected((places or Places.below()).tracking_uri)
    runs = [trained_run(client, run_id)]
    with torch_threads(threads):
        return predict_folder(
            client, ensemble_of(client, runs[0]) if ensemble else runs, Path(data), Path(out), ensemble, progress
        )


def predict_folder(
    client: MlflowClient, runs: Sequence[TrainedRun], data: Path, out: Path, ensemble: bool, progress: Progress | None
) -> Predicted:
    """Label every volume under ``data`` and write its mask to ``out``, one after the other, each whole or not at all.

    The same call goes on after an interruption; masks that somebody else made are never touched.

    Raises:
        LitsexpError: no volume; one that cannot be read as CT; ``out`` holds other files; a run without its weights; a
            patient that every run of the ensemble has learned from; the slices that an ensemble learned from are not
            there to compare with.
    """
    check_weights(runs)
    volumes = find_volumes(data)
    known = _store_of(runs[0])
    if ensemble and known is None:
        raise LitsexpError(
            f"--ensemble: the slices that the runs learned from are not at {runs[0].store}; expected them, to keep "
            "patients from runs that have learned from them; run the study's command again, which rebuilds them"
        )
    sources = {name: str(path.resolve()) for name, path in volumes.items()}
    asked = {"runs": [run.run_id for run in runs], "ensemble": ensemble, "volumes": sources}
    done = _begin(out, asked)
    predictor = Predictor(members(client, runs))
    by, learned = dict(done.get("by", {})), dict(done.get("learned", {}))
    kept = [name for name in volumes if (out / name).is_file()]
    for number, (name, path) in enumerate(volumes.items(), start=1):
        if name not in kept:
            opened = open_image(path)
            hu = all_slices(opened, predictor.size)
            case = same_patient(hu, known) if known is not None else None
            among = _allowed(runs, case, path) if ensemble else [0]
            labels = predictor.label(hu, WayBack(opened.shape[1:], opened.flips, predictor.size), among)
            by[name] = [runs[i].run_id for i in among]
            if not ensemble and (side := _side(runs[0], case)):
                learned[name] = side
            try:
                _tell(out, {**asked, "by": by, "learned": learned})
                with whole_file(out / name) as temporary:
                    write_labels(temporary, opened.as_stored(labels), opened.image)
            except OSError as error:
                raise _unwritable(out, error) from None
        if progress is not None:
            progress(number, len(volumes))
    unchecked = "" if known else f"the slices that the run learned from are not at {runs[0].store}"
    return Predicted(len(volumes) - len(kept), len(kept), by, learned, unchecked)


def same_patient(hu: NDArray[np.int16], store: Store) -> int | None:
    """The case of the store that this volume is, by the pixels of a slice in its middle; None: it is none of them."""
    cases, z = store.index["case"].to_numpy(), store.index["z"].to_numpy()
    for case in store.cases:
        rows = np.flatnonzero(cases == case)
        middle = rows[len(rows) // 2]
        if z[middle] < len(hu) and np.array_equal(hu[z[middle]], store.hu[middle]):
            return case
    return None


def _allowed(runs: Sequence[TrainedRun], case: int | None, path: Path) -> list[int]:
    """Numbers of the runs that have not learned from this patient, nor chosen their checkpoint by it."""
    among = [i for i, run in enumerate(runs) if case is None or case in run.split.test]
    if not among:
        raise LitsexpError(
            f"{path}: is case {case} of the study's own data, which no run of the ensemble has tested; "
            "expected a run that has not learned from it; leave the volume out"
        )
    return among


def _side(run: TrainedRun, case: int | None) -> str:
    """Whether the run has learned from the case: ``training``, ``validation``; else empty."""
    sides = {"training": run.split.train, "validation": run.split.valid}
    return next((side for side, cases in sides.items() if case in cases), "")


def _store_of(run: TrainedRun) -> Store | None:
    """The slices that a run learned from, where they still are."""
    if not (run.store / "store.json").is_file():
        return None
    store = Store.open(run.store)
    return store if store.fingerprint == run.fingerprint else None


def _begin(out: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """What an interrupted call of the same runs and volumes has told; LitsexpError: something else is in ``out``."""
    try:
        told: dict[str, Any] = json.loads((out / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = {}
    if told and {key: told.get(key) for key in asked} == asked:
        return told
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "masks of other runs or volumes" if told else "other files"
        raise LitsexpError(f"--out {out}: found {what}; expected a new or empty folder; name another one")
    try:
        out.mkdir(parents=True, exist_ok=True)
        _tell(out, asked)
    except OSError as error:
        raise _unwritable(out, error) from None
    return {}


def _unwritable(out: Path, error: OSError) -> LitsexpError:
    return LitsexpError(f"--out {out}: cannot be written ({error.strerror or error}); expected a folder with room")


def _tell(out: Path, about: dict[str, Any]) -> None:
    with whole_file(out / ABOUT, replace=True) as temporary:
        temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
