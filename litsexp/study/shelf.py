"""Where finished studies are looked for: MLflow's database in a folder that was perhaps moved, or a server."""

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from litsexp.spec.errors import LitsexpError, one_line
from litsexp.study.addresses import database_url, masked, without_password
from litsexp.study.clients import opened_client


@dataclass(frozen=True)
class Shelf:
    """A tracking server or database; of a local one also the folder that its artifacts lie in."""

    client: MlflowClient
    root: Path | None  # a study's --mlruns
    name: str  # for people

    def experiments(self) -> dict[str, str]:
        """Experiment id -> name; LitsexpError where MLflow does not answer."""
        try:
            return {each.experiment_id: each.name for each in self.client.search_experiments()}
        except (MlflowException, SQLAlchemyError) as error:
            raise _silent(self.name, error) from None

    def runs(self, experiments: list[str], asked: str) -> list[Run]:
        """Every run of these experiments that is asked for, oldest first."""
        found: list[Run] = []
        token = None
        while experiments:
            page = self.client.search_runs(
                experiments, asked, order_by=["attributes.start_time ASC"], page_token=token, max_results=1000
            )
            found += page
            token = page.token
            if not token:
                break
        return found

    def artifact(self, run: Run, experiment: str, path: str) -> bytes:
        """The bytes of an artifact; of a folder that was moved since it was written, too."""
        if self.root is not None:
            local = self.root / "artifacts" / experiment / str(run.info.run_id) / "artifacts" / path
            if local.is_file():
                return local.read_bytes()
        try:
            with tempfile.TemporaryDirectory() as directory:
                where: str = self.client.download_artifacts(run.info.run_id, path, directory)
                return Path(where).read_bytes()
        except (OSError, MlflowException) as error:
            lost = f"its artifact {path} cannot be read ({one_line(error)})"
            raise LitsexpError(f"run {run.info.run_id}: {lost}; expected it in {self.name}; was it deleted?") from None


def place(words: str, mlruns: Path, uri: str | None) -> tuple[Shelf, str]:
    """Where to look, and for which study; empty: the one that ended last."""
    folder, _, chosen = words.rpartition(":")
    path = Path(words)
    if path.name == "report.html" and path.is_file():
        path = path.parent
    if path.is_dir():
        if (path / "mlflow.db").is_file():
            return _local(path), ""
        if path.resolve().parent.name == "reports":
            root = path.resolve().parents[1]
            return (_local(root) if (root / "mlflow.db").is_file() else _remote(uri, mlruns)), path.resolve().name
        found = "neither mlflow.db in it nor a study's report"
        raise LitsexpError(f"--compare {words}: found {found}; expected a folder that a study wrote; see --mlruns")
    if folder and Path(folder).is_dir():
        if not (Path(folder) / "mlflow.db").is_file():
            raise LitsexpError(f"--compare {words}: found no mlflow.db in {folder}; expected a study's --mlruns")
        return _local(Path(folder)), chosen
    return _remote(uri, mlruns), words


def _local(root: Path) -> Shelf:
    root = root.resolve()
    return Shelf(_client(f"sqlite:///{root / 'mlflow.db'}", str(root)), root, str(root))


def _remote(uri: str | None, mlruns: Path) -> Shelf:
    if uri is not None:
        uri = without_password(database_url(uri, "--tracking-uri"), "--tracking-uri")
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
            raise LitsexpError(f"--tracking-uri {uri}: found no database; expected one that a study wrote")
        root = mlruns.resolve() if uri.startswith("sqlite") else None
        return Shelf(_client(uri, f"--tracking-uri {masked(uri)}"), root, masked(uri))
    if not (mlruns / "mlflow.db").is_file():
        raise LitsexpError(f"--mlruns {mlruns}: found no mlflow.db; expected a folder that a study wrote")
    return _local(mlruns)


def _client(uri: str, name: str) -> MlflowClient:
    """LitsexpError where the file is no database of MLflow, or one of an older version that was not upgraded."""
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    try:
        return MlflowClient(uri) if uri.startswith("sqlite") else opened_client(uri)
    except (MlflowException, SQLAlchemyError) as error:
        raise _silent(name, error) from None


def _silent(name: str, error: Exception) -> LitsexpError:
    return LitsexpError(f"{name}: MLflow does not answer ({one_line(error)}); expected a database that it can read")
