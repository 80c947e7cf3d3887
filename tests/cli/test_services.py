"""``litsexp services``, and a study on what it starts: the same cases as inline, and no password anywhere."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from litsexp import services
from litsexp.services import postgres
from litsexp.services.daemons import group

from ..slurm_cluster import wait_until
from .conftest import study_file


def test_a_study_on_the_servers_has_the_same_cases_and_its_password_is_nowhere(
    litsexp: Callable[..., tuple[int, str, str]],
    refused: Callable[..., str],
    places: list[object],
    no_downloads: None,
    servers: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The password comes in both addresses, the careless way."""
    file, secret = study_file(), servers.password.read_text().strip()
    shutil.copytree("mlruns", "remote")
    code, _, error = litsexp("study", file, *places, "--workers", 1)
    assert code == 0, error
    for name in servers.variables():
        monkeypatch.delenv(name)
        monkeypatch.setenv(name, "")  # for the end of the test
        del os.environ[name]
    with_secret = [
        *("--tracking-uri", servers.tracking_uri.replace("://", f"://{services.USER}:{secret}@")),
        *("--storage", servers.storage_url.replace("+psycopg", "").replace("@", f":{secret}@")),
        *("--mlruns", "remote"),
    ]
    code, said, error = litsexp("study", file, *places, "--workers", 1, *with_secret)
    assert code == 0, error
    assert servers.tracking_uri in said
    ours = cases(Path("mlruns/artifacts"))
    assert len(ours) == 4
    assert cases(servers.folder / "artifacts") == ours
    assert not Path("remote/artifacts/tiny-ct").exists()  # the server has them
    code, again, error = litsexp("report", file, *places, *with_secret)
    assert code == 0, error
    wrong = refused("study", file, *places, *(str(word).replace(secret, "wrong-password-99") for word in with_secret))
    assert "wrong-password-99" not in wrong
    for text in (said, again, error, wrong, *dumped(servers)):
        assert secret not in text
    for folder in (Path("remote"), servers.folder):
        for path in folder.rglob("*"):
            if path.is_file() and path != servers.password and "data" not in path.parts:  # the databases are dumped
                assert secret.encode() not in path.read_bytes(), path


def cases(artifacts: Path) -> dict[str, bytes]:
    """Run key -> the run's table of cases."""
    found = {path.parent: json.loads(path.read_text())["run_key"] for path in artifacts.rglob("run.json")}
    return {
        key: (folder / "cases.parquet").read_bytes() for folder, key in found.items() if "models" not in folder.parts
    }


def dumped(servers: Any) -> list[str]:
    """Both databases as SQL."""
    program = str(postgres.programs(servers.folder / "postgres").bin / "pg_dump")
    place = ["-h", "127.0.0.1", "-p", str(servers.postgres_port), "-U", services.USER]
    texts = []
    for name in postgres.DATABASES:
        environment = {**os.environ, **servers.variables()}
        done = subprocess.run([program, *place, name], capture_output=True, text=True, check=True, env=environment)
        texts.append(done.stdout)
    assert "run_key" in texts[0] and "run_key" in texts[1]
    return texts


def test_no_process_shows_the_password_and_nobody_else_may_read_it(servers: Any) -> None:
    secret = servers.password.read_text().strip()
    commands = subprocess.run(["ps", "-A", "-ww", "-o", "command="], capture_output=True, text=True, check=True).stdout
    assert str(servers.folder) in commands
    assert secret not in commands
    for name in ("password", "env", "mlflow-users.db"):
        assert (servers.folder / name).stat().st_mode & 0o077 == 0, name
    asked = ["/bin/sh", "-c", '. "$0"; env', str(servers.environment)]
    shell = subprocess.run(asked, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]})
    assert {f"{name}={value}" for name, value in servers.variables().items()} <= set(shell.stdout.splitlines())


def test_both_listen_on_this_machine_only(servers: Any) -> None:
    outward = socket.gethostbyname(socket.gethostname())
    for port in (servers.postgres_port, servers.mlflow_port):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        if not outward.startswith("127."):
            with pytest.raises(OSError):
                socket.create_connection((outward, port), timeout=5)


def test_up_again_goes_on_and_down_ends_nothing_else(
    litsexp: Callable[..., tuple[int, str, str]], refused: Callable[..., str], servers: Any
) -> None:
    database, server = services.daemons(servers.folder)
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    before = database.pid()
    try:
        assert before is not None
        number = server.pid()
        assert number is not None
        os.killpg(number, signal.SIGKILL)  # its pid file is stale now
        wait_until(lambda: not group(number))  # and its port free
        code, said, _ = litsexp("services", "up", servers.folder)
        assert code == 0
        assert f"--tracking-uri {servers.tracking_uri} --storage {servers.storage_url}" in said
        assert database.pid() == before and server.pid() not in (None, number)
        assert "runs on" in refused("services", "up", servers.folder, "--postgres-port", 1025)

        code, said, _ = litsexp("services", "down", servers.folder)
        assert (code, said) == (0, "ended: MLflow and PostgreSQL\n")
        assert not group(before)
        server.pid_file.write_text(f"{stranger.pid}\n")  # as after a restart of the machine
        assert litsexp("services", "down", servers.folder)[1] == "nothing ran; nothing was ended\n"
        assert stranger.poll() is None

        with socket.create_server(("127.0.0.1", servers.mlflow_port)):
            error = refused("services", "up", servers.folder)
        assert f"--mlflow-port {servers.mlflow_port}: taken by another program" in error
        assert database.pid() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_that_does_not_start_is_one_line_and_takes_the_other_with_it(
    refused: Callable[..., str], servers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the test above, which has ended both."""
    services.down(servers.folder)
    monkeypatch.setattr(services.tracking_server, "HOST", "not-a-host")
    error = refused("services", "up", servers.folder)
    assert "MLflow does not start (" in error and str(servers.folder / "mlflow.log") in error
    database, server = services.daemons(servers.folder)
    assert database.pid() is None and server.pid() is None


def test_what_is_missing_is_one_line_and_leaves_nothing(
    refused: Callable[..., str], elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "found no services; expected a folder that litsexp services up has made" in refused("services", "down", "x")
    monkeypatch.setattr(postgres, "PLACES", ())
    monkeypatch.setenv("PATH", "/nowhere")
    assert "initdb and postgres are not on this machine; install it: apt-get" in refused("services", "up", "x")
    monkeypatch.setattr(services, "find_spec", lambda name: None)
    assert 'psycopg, flask-wtf is missing; install it with pip install "litsexp[services]"' in refused(
        "services", "up", "x"
    )
    assert list(Path().iterdir()) == []


def test_a_folder_that_cannot_be_made_and_one_port_for_two_servers_are_one_line(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert f"{folder}: cannot be written (" in refused("services", "up", folder)
    error = refused("services", "up", tmp_path / "new", "--postgres-port", 1025, "--mlflow-port", 1025)
    assert "--mlflow-port 1025: found the port of PostgreSQL; expected another one" in error


def test_data_of_another_version_of_postgresql_are_refused(
    refused: Callable[..., str], servers: Any, tmp_path: Path
) -> None:
    data = tmp_path / "old" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    assert "its data are PostgreSQL 9's; found " in refused("services", "up", tmp_path / "old")


def test_a_server_of_another_version_or_clock_and_one_that_is_no_mlflow_are_refused(
    refused: Callable[..., str], places: list[object], answering: Callable[..., str]
) -> None:
    file = study_file()
    other = answering({"/version": (200, "2.22.0")})
    error = refused("study", file, *places, "--tracking-uri", other)
    assert f"--tracking-uri {other}: found a server of MLflow 2.22.0; expected MLflow 3" in error
    error = refused("study", file, *places, "--tracking-uri", answering({}))
    assert "MLflow does not answer (it answers 404, as no MLflow does); check the address" in error
    for ahead_s, words in ((-3600, "60 min behind"), (3600, "60 min ahead of")):
        error = refused("study", file, *places, "--tracking-uri", answering({"/version": (200, "3.17.0", ahead_s)}))
        assert f"found its clock {words} that of host {socket.gethostname()}; expected them within 10 min" in error
    assert not list(Path("mlruns").glob("reports"))
