"""What MLflow has of a study's cells already, read without leaving anything there."""

from pathlib import Path

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from litsexp.data.store import Store
from litsexp.spec.design import Cell, cells
from litsexp.spec.study import StudyConfig
from litsexp.study.clients import no_answer, opened_client
from litsexp.study.places import Places
from litsexp.study.reading import finished_of, read
from litsexp.study.results import Results
from litsexp.study.scorings import scoring_of
from litsexp.study.tracking import Tracking


def finished_cells(name: str, study: StudyConfig, store: Store, places: Places) -> tuple[list[Cell], Results | None]:
    """The cells that are trained, and what they scored on their test cases; None where there are none.

    Cells are found by content: runs of the same study with fewer seeds count, runs of another configuration do not.

    Raises:
        LitsexpError: a database that cannot be opened.
    """
    uri = places.tracking_uri
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return [], None
    try:
        known = opened_client(uri).get_experiment_by_name(name)
    except (MlflowException, SQLAlchemyError) as error:
        raise no_answer(uri, error) from None
    if known is None:
        return [], None
    tracking = Tracking(uri, name, places.root / "artifacts")
    by_key = {cell.run_key(study.split, store.fingerprint): cell for cell in cells(study)}
    runs = tracking.runs("attributes.status = 'FINISHED'")
    done = {key: by_key[key] for key in finished_of(runs) if key in by_key}
    wanted = {key: [scoring_of("test", key, store, "", True, study.leaks)] for key in done}
    return list(done.values()), read(tracking.client, runs, done, wanted) if done else None
