"""The blocks that install, start servers or want a cluster, typed as they stand on their page."""

import base64
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from litsexp.data.phantom.cohort import write_cohort
from litsexp.data.phantom.patient import PhantomConfig

from ..ray_cluster import HEAD, OTHER, needs_ray
from ..slurm_cluster import free_ports, needs_slurm, queue, slurm
from .pages import PAGES, blocks
from .sandbox import answers
from .terminal import PATIENCE_S, Terminal, checkout, wait_for

WITHOUT_MAKE = "python3 -m venv .venv"
WITH_MAKE = "make study"
SERVER = "litsexp study experiments/mini.yaml --tracking-uri http://127.0.0.1:5001 --storage sqlite:////tmp/o.db"
SERVICES = "pip install -c constraints.txt '.[services]'"
SLURM = "python3.11 -m venv /shared/env"
RAY = "ray get-auth-token --generate"
COMPOSE = "compose.yaml"
IN_A_SHELL = (WITHOUT_MAKE, WITH_MAKE, SERVER, SERVICES, SLURM, RAY)  # the first command of each such block


def commands_from(first: str) -> list[str]:
    """The block that begins with this command."""
    (found,) = (block.commands for page in PAGES for block in blocks(page) if block.commands[:1] == [first])
    return found


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """A terminal in a checkout, with an environment of its own, made as README says without make."""
    terminal = Terminal(checkout(tmp_path_factory.mktemp("shell") / "checkout"))
    terminal.environment["PYTEST_ADDOPTS"] = "-p no:cacheprovider -n 0 tests/test_files.py"  # of all the tests
    for command in commands_from(WITHOUT_MAKE)[:2]:
        terminal.type(command)
    return terminal


def test_what_the_readme_says_installs_runs_and_tests(reader: Terminal) -> None:
    study, tests = (reader.type(command) for command in commands_from(WITHOUT_MAKE)[2:])
    assert "report" in study and " passed" in tests
    (reader.folder / ".venv" / ".installed").unlink(missing_ok=True)
    study, tests = (reader.type(command) for command in commands_from(WITH_MAKE))
    assert (reader.folder / ".venv" / ".installed-dev").exists()
    assert "report" in study and " passed" in tests


def test_services_start_serve_a_study_and_end(reader: Terminal, servers_folder: Path, tmp_path: Path) -> None:
    terminal = Terminal(reader.folder, {"/var/tmp/services": str(servers_folder)}, before=[". .venv/bin/activate"])
    install, up, environment, down = commands_from(SERVICES)
    terminal.type(install)
    told = terminal.type(up)
    address = told.partition("--tracking-uri ")[2].split()[0]
    terminal.type(environment)
    terminal.names |= {"http://127.0.0.1:5001": address, "/tmp/o.db": str(tmp_path / "o.db")}
    try:
        (study,) = commands_from(SERVER)
        assert address in terminal.type(study)
        assert (tmp_path / "o.db").is_file()
        assert_composed_server_asks_for_the_password(terminal, told, servers_folder, tmp_path)
    finally:
        assert terminal.type(down) == "ended: MLflow and PostgreSQL\n"


def assert_composed_server_asks_for_the_password(
    terminal: Terminal, told: str, servers_folder: Path, folder: Path
) -> None:
    """The command of compose.yaml's MLflow, on the PostgreSQL that ``services up`` has started."""
    (composed,) = (yaml.safe_load(block.text) for page in PAGES for block in blocks(page) if block.file_name == COMPOSE)
    service, (port,) = composed["services"]["mlflow"], free_ports(1)
    assert all(one["ports"][0].startswith("127.0.0.1:") for one in composed["services"].values())
    secret = (servers_folder / "password").read_text().strip()
    assert set(service["environment"].values()) == {"${PASSWORD:?}"}
    database = told.partition("--storage ")[2].split()[0].rpartition("@")[2].partition("/")[0]
    names = {"0.0.0.0": "127.0.0.1", "--port 5000": f"--port {port}", "postgres:5432": database}
    own = Terminal(
        folder, {**names, "/artifacts": str(folder / "artifacts")}, dict.fromkeys(service["environment"], secret)
    )
    installs, _, serve = service["command"][-1].partition(" && exec ")
    assert f"mlflow=={version('mlflow')}" in installs
    with running(own, serve) as server:
        assert answers(f"http://127.0.0.1:{port}/health", server) == b"OK"
        asked = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1"
        with pytest.raises(HTTPError, match="401"):
            urlopen(asked)
        named = base64.b64encode(f"admin:{secret}".encode()).decode()
        with urlopen(Request(asked, headers={"Authorization": f"Basic {named}"})) as answer:
            assert b"experiments" in answer.read()


@needs_ray
def test_a_study_goes_through_a_ray_that_was_started_by_hand(reader: Terminal, tmp_path: Path) -> None:
    shared, (port, head) = tmp_path / "shared", free_ports(2)
    write_cohort(shared / "LiTS", PhantomConfig(6, seed=2, size=48, slices=10, lesions="large"), processes=1)
    (shared / "LiTS" / "phantom.json").unlink()
    names = {
        "10.0.0.1": HEAD,
        "10.0.0.2": OTHER,
        "6379": str(head),
        "/shared": str(shared),
        "HEAD:5000": f"127.0.0.1:{port}",
    }
    names["ray start"] = (
        "ray start --num-cpus=2 --num-gpus=1 --object-store-memory=80000000"  # no GPU: one is pretended
    )
    home = Path(tempfile.mkdtemp(prefix="lr-", dir="/tmp"))  # a socket's path may have 107 characters
    own = {"HOME": str(home), "RAY_TMPDIR": str(home), "RAY_memory_monitor_refresh_ms": "0"}
    terminal = Terminal(reader.folder, names, own, [". .venv/bin/activate"])
    serve = (
        f"mlflow server --host 127.0.0.1 --port {port} --workers 1 --backend-store-uri sqlite:///{tmp_path}/server.db"
    )
    try:
        with running(terminal, f"{serve} --artifacts-destination {tmp_path}/artifacts") as server:
            answers(f"http://127.0.0.1:{port}/health", server)
            printed = [terminal.type(command) for command in commands_from(RAY)]
        assert "report" in printed[-1]
    finally:
        end_all_with(f"HOME={home}")
        shutil.rmtree(home, ignore_errors=True)


def end_all_with(variable: str) -> None:
    """Kill what was started with this in its environment: ``ray stop`` would end every Ray of the machine."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if variable.encode() in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)


@needs_slurm
def test_from_a_laptop_to_slurm_in_ten_commands(reader: Terminal, tmp_path: Path) -> None:
    shared, (port,) = tmp_path / "shared", free_ports(1)
    write_cohort(shared / "LiTS", PhantomConfig(6, seed=2, size=48, slices=10, lesions="large"), processes=1)
    (shared / "LiTS" / "phantom.json").unlink()
    shutil.copytree(reader.folder / "experiments", shared / "me" / "experiments")
    names = {
        "/shared": str(shared),
        "--port 5000": f"--port {port}",
        "HEAD:5000": f"127.0.0.1:{port}",
        "HEAD": "127.0.0.1",
    }
    terminal = Terminal(reader.folder, names)
    make, activate, install, enter, serve, check, mini, paper, status, listed, follow = commands_from(SLURM)
    for command in (make, activate, install, enter):
        terminal.type(command)
    (tmp_path / "cluster").mkdir()
    with slurm(tmp_path / "cluster"), running(terminal, serve) as server:
        answers(f"http://127.0.0.1:{port}/health", server)
        terminal.type(check)
        terminal.type(mini)
        with running(terminal, paper) as study:
            log = wait_for(shared / "me" / "mlruns" / "slurm", "*/log")
            terminal.type(listed)
            assert f"litsexp-{log.parent.name}" in queue()
            terminal.names["RUN_ID"] = log.parent.name
            with running(terminal, follow) as tail:
                assert tail.poll() is None
            assert "running" in terminal.type(status).lower()
            printed, _ = study.communicate(timeout=PATIENCE_S)
            assert study.returncode == 0, printed
        assert "report" in printed


@contextmanager
def running(terminal: Terminal, command: str) -> Iterator[Any]:
    """A command in a terminal of its own; at the end it and all that it has started are ended."""
    process = terminal.start(command)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
