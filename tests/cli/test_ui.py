"""The MLflow UI as a person starts it: one process that shows the runs, and nothing left of it however it ends."""

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from urllib.error import HTTPError

import pytest

from litsexp.cli import ui as cli
from litsexp.spec.errors import LitsexpError


@pytest.fixture
def served(tmp_path: Path, new_places: Callable[[Path], Any], serve: Callable[[Any], Any]) -> Any:
    """The UI on a database with one run that has one artifact."""
    from litsexp.study.tracking import Tracking

    places = new_places(tmp_path)
    tracking = Tracking(places.tracking_uri, "tiny", places.root / "artifacts")
    run_id = tracking.client.create_run(tracking.experiment_id).info.run_id
    tracking.client.log_text(run_id, "how it went", "notes/note.txt")
    ui = serve(places)
    ui.run_id = run_id
    return ui


def test_one_process_shows_the_runs_on_this_machine_only(served: Any, refused: Callable[..., str]) -> None:
    assert len(served.processes()) == 1
    assert b"<title>MLflow</title>" in served.get("/")
    found = json.loads(served.get("/ajax-api/2.0/mlflow/experiments/search?max_results=5"))["experiments"]
    assert "tiny" in [experiment["name"] for experiment in found]
    assert served.get(f"/get-artifact?run_id={served.run_id}&path=notes/note.txt") == b"how it went"
    listed = json.loads(served.get(f"/ajax-api/2.0/mlflow/artifacts/list?run_id={served.run_id}&path=notes"))
    assert [file["path"] for file in listed["files"]] == ["notes/note.txt"]

    for host in ("somewhere.example", "10.somewhere.example"):  # names that a foreign page may point at 127.0.0.1
        with pytest.raises(HTTPError, match="403"):
            served.get("/", Host=host)
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", served.port), timeout=5):
        pass
    taken = refused("ui", "--port", served.port, "--mlruns", served.mlruns)
    assert taken.startswith(f"error: --port {served.port}: taken by another program; end that one, or take another")

    assert served.end_by(signal.SIGTERM) == 130
    said = f"MLflow UI on http://127.0.0.1:{served.port} (this machine only); Ctrl-C ends it"
    assert said in served.log.read_text()
    assert "Traceback" not in served.log.read_text()


def test_killed_without_a_word_it_leaves_nothing_running(served: Any) -> None:
    assert served.end_by(signal.SIGKILL) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_ends_the_server_and_raises_nothing(number: signal.Signals) -> None:
    class Server:
        should_exit = False

        def run(self, sockets: list[socket.socket]) -> None:
            signal.raise_signal(number)

    server, before = Server(), [(one, signal.getsignal(one)) for one in (signal.SIGINT, signal.SIGTERM)]
    try:
        cli.run(cast(Any, server), cast(Any, None))
    finally:
        for one, handler in before:
            signal.signal(one, handler)
    assert server.should_exit


@pytest.mark.usefixtures("elsewhere")
def test_ctrl_c_while_it_loads_ends_it_like_one_later(
    litsexp: Callable[..., tuple[int, str, str]], new_places: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    new_places(Path.cwd())
    monkeypatch.setattr(cli, "make_server", interrupted)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert litsexp("ui", "--port", port) == (130, "", "")


@pytest.mark.usefixtures("elsewhere")
def test_a_server_needs_no_other_in_front_of_it(litsexp: Callable[..., tuple[int, str, str]]) -> None:
    address = "http://tracking.example:5000"
    said = f"{address} is a server already; open that address in a browser\n"
    assert litsexp("ui", "--tracking-uri", address) == (0, said, "")


@pytest.mark.usefixtures("elsewhere")
def test_a_database_that_is_not_there_is_named_and_not_made(
    refused: Callable[..., str], files: Callable[[Path], list[str]]
) -> None:
    assert "mlruns/mlflow.db: not there; run a study first" in refused("ui")
    assert "other.db: not there; run a study first" in refused("ui", "--tracking-uri", "sqlite:///other.db")
    assert files(Path.cwd()) == []


def test_what_is_no_database_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.db").write_text("no database, and long enough to be read as one: " * 50)
    uri = f"sqlite:///{tmp_path / 'text.db'}"
    with pytest.raises(LitsexpError, match=r"MLflow cannot open it .*not a database") as caught:
        cli.make_server(uri, tmp_path / "artifacts")
    assert "\n" not in str(caught.value)
