"""The cohorts of a study: what they are called, and which external cohort may stand beside which data."""

from pathlib import Path

from litsexp.data.store import Store
from litsexp.spec.cohort import CohortConfig
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig


def cohort_name(cohort: CohortConfig, store: Store) -> str:
    """``phantom, 30 patients, seed 0``, or the folder's name and its patients: ``ct, 12 phantom patients``."""
    number = len(store.cases)
    plural = "s" if number != 1 else ""
    if cohort.cohort == "phantom":
        site = f", site {cohort.site}" if cohort.site != "A" else ""
        lesions = f", {cohort.lesions} lesions" if cohort.lesions != "lits" else ""
        return f"phantom, {number} patient{plural}, seed {cohort.seed}{site}{lesions}"
    return f"{Path(cohort.cohort).resolve().name}, {number} {'phantom ' if store.phantom else ''}patient{plural}"


def cohort_tags(study: StudyConfig, store: Store) -> dict[str, str]:
    """What a run in MLflow says of its patients: ``phantom`` = true where they are synthetic."""
    return {"cohort": cohort_name(study.data, store), "phantom": str(store.phantom).lower()}


def leak_tags(leaks: bool) -> dict[str, str]:
    """What a run in MLflow says that learned from neighbours of tested slices, or a study with such a run."""
    return {"leaks": "true"} if leaks else {}


def check_external(store: Store, external: Store | None) -> None:
    """LitsexpError where scoring this external cohort would say nothing, or something false."""
    if external is None:
        return
    expected = "expected another cohort"
    if external.fingerprint == store.fingerprint:
        raise LitsexpError(f"external: found the slices of data itself ({external.directory}); {expected}")
    if external.phantom and not store.phantom:
        raise LitsexpError("external: found a phantom beside real patients; expected real patients, or no external")
    if external.size != store.size:
        sizes = f"slices of {external.size} px, and of {store.size} px as data"
        raise LitsexpError(f"external: found {sizes}; expected one size; prepare it again")
