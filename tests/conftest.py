"""What several rooms' tests share: a tiny phantom cohort, its slice store, one split of it; and the command line."""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is imported, here and in processes that tests start

import pytest

from litsexp.data.phantom.cohort import write_cohort
from litsexp.data.phantom.patient import PhantomConfig
from litsexp.data.splits import Split
from litsexp.data.store import Store, prepare
from litsexp.spec.cohort import DataConfig
from litsexp.spec.errors import LitsexpError
from litsexp.spec.study import StudyConfig

signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job starts with Ctrl-C ignored


@pytest.fixture(scope="session")
def phantom_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Six patients, 64 px, seven liver slices or so each; the phantom's seed leaves one of them without tumor."""
    root = tmp_path_factory.mktemp("phantom")
    write_cohort(root / "ct", PhantomConfig(6, seed=2, size=64, slices=8, lesions="large"), processes=1)
    store = prepare(root / "ct", root / "stores", DataConfig(size=64), processes=1)
    assert sum(store.has_tumor.values()) == 5
    return store


@pytest.fixture(scope="session")
def phantom_split(phantom_store: Store) -> Split:
    """Three patients to train on, the tumor-free one among them; one to validate, two to test."""
    free, *others = sorted(phantom_store.cases, key=phantom_store.has_tumor.__getitem__)
    return Split(train=(*others[:2], free), valid=(others[2],), test=tuple(others[3:]))


@pytest.fixture(scope="session")
def external_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three patients of the other scanner, at the same size: some of their case numbers are also the cohort's."""
    root = tmp_path_factory.mktemp("external")
    config = PhantomConfig(3, seed=9, size=64, slices=8, site="B", lesions="large")
    write_cohort(root / "elsewhere", config, processes=1)
    return prepare(root / "elsewhere", root / "stores", DataConfig(size=64), processes=1)


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like ``mlruns`` in which both databases have their tables and nothing else: MLflow's take seconds."""
    from mlflow import MlflowClient
    from optuna.storages import RDBStorage

    from litsexp.study.places import Places

    places = Places.below(tmp_path_factory.mktemp("schemas"))
    MlflowClient(places.tracking_uri).search_experiments()
    RDBStorage(places.storage_url)
    return places.root


@pytest.fixture(scope="session")
def at_half_size(
    tmp_path_factory: pytest.TempPathFactory, schemas: Path, phantom_store: Store
) -> Callable[[dict[str, Any]], tuple[Any, Path, StudyConfig]]:
    """Of what a study file says: places of its own, the phantom's volumes, the study on them at half their size."""

    from litsexp.study.places import Places

    def of(content: dict[str, Any]) -> tuple[Places, Path, StudyConfig]:
        root = tmp_path_factory.mktemp("half")
        shutil.copytree(schemas, root / "mlruns")
        cohort = phantom_store.directory.parents[1] / "ct"
        study = StudyConfig.model_validate({**content, "data": {"cohort": str(cohort), "size": 32}})
        return Places.below(root / "mlruns", stores=root / "data"), cohort, study

    return of


@pytest.fixture(scope="session")
def new_places(schemas: Path) -> Callable[[Path], Any]:
    """``new_places(folder)``: an empty ``mlruns`` in that folder, as the study room's ``Places``."""
    from litsexp.study.places import Places

    return lambda folder: Places.below(shutil.copytree(schemas, folder / "mlruns"))


@pytest.fixture(scope="module")
def servers_folder() -> Iterator[Path]:
    """Where PostgreSQL, which runs as another user where the tests run as root, may enter; there is none yet."""
    from litsexp.services.postgres import programs

    try:
        programs(Path("nowhere"))
    except LitsexpError as error:
        pytest.skip(str(error))
    folder = Path(tempfile.mkdtemp(prefix="litsexp-services-", dir="/var/tmp"))
    folder.chmod(0o711)
    yield folder / "services"
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def servers(servers_folder: Path) -> Iterator[Any]:
    """A PostgreSQL and an MLflow server of the module's own; the environment has their password."""
    from litsexp import services

    try:
        with pytest.MonkeyPatch.context() as patch:
            found = services.up(servers_folder, fsync=False)
            for name, value in found.variables().items():
                patch.setenv(name, value)
            yield found
    finally:
        services.down(servers_folder)


@pytest.fixture
def answering() -> Iterator[Callable[[dict[str, tuple[Any, ...]]], str]]:
    """``answering({path: (status, text)})``: the address of a server that answers so, and 404 elsewhere.

    A third value: by how many seconds its clock is ahead.
    """
    begun: list[HTTPServer] = []

    def start(answers: dict[str, tuple[Any, ...]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, text, *ahead_s = answers.get(self.path, (404, "<html>not here</html>"))
                self.send_response_only(status)
                self.send_header("Date", self.date_time_string(time.time() + sum(ahead_s)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_POST = do_GET

            def log_message(self, *_: Any) -> None: ...

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        begun.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in begun:
        server.shutdown()
        server.server_close()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder of the test's own to work in: what a command leaves shows there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def litsexp(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: exit code, stdout, stderr."""
    from litsexp.cli import app as cli

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main([str(word) for word in words])
        return (int(end.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def refused(litsexp: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Run a command that has to be refused; its one line on stderr."""

    def run(*words: object) -> str:
        code, _, error = litsexp(*words)
        assert code == 2
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        return error.strip()

    return run


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small patients."""
    root = tmp_path_factory.mktemp("few")
    return write_cohort(root / "ct", PhantomConfig(2, seed=0, size=32, slices=8), processes=1)


@pytest.fixture
def cohort(few: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    folder = tmp_path / "ct"
    folder.mkdir()
    for file in few.iterdir():
        os.link(file, folder / file.name)
    return folder


@pytest.fixture
def files() -> Callable[[Path], list[str]]:
    """``files(folder)``: all that lies below it."""
    return lambda folder: sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def places(elsewhere: None, new_places: Callable[[Path], Any], phantom_store: Store) -> list[object]:
    """Options that give a study its own ``mlruns`` and the tests' own phantom."""
    new_places(Path.cwd())
    root = phantom_store.directory.parents[1]
    return ["--data", root / "ct", "--stores", root]
