"""A tiny study file, an encoder for it that needs no network, and the MLflow UI as a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import RemoteDisconnected
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120  # on a machine that is busy with other things; no test waits for its end

STUDY = """\
question: Is a wide window [better]?
split: {folds: 2, valid: 0.25, seed: 0}
run: {init: scratch, window: liver, augment: none, epochs: 1, steps_per_epoch: 1, batch_size: 4}
factors: {window: [wide]}
"""
CLAIM = "{id: wide, says: Wider is better., factor: window, better: wide, than: liver}"


def study_file(text: str = STUDY) -> Path:
    path = Path("tiny.yaml")
    path.write_text(text)
    return path


@pytest.fixture
def no_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cached weights, no network; and a U-Net in place of resnet18's that trains in no time."""
    import torch

    from litsexp.training import architectures

    def small_encoder(_: str) -> torch.nn.Sequential:
        return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, 2, 1))

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setattr(architectures, "random_encoder", small_encoder)


@dataclass
class Ui:
    """A running ``litsexp ui``, in a process group of its own."""

    process: subprocess.Popen[bytes]
    port: int
    mlruns: Path
    log: Path
    run_id: str = ""  # of the one run that a test made

    def get(self, path: str, **headers: str) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return cast(bytes, answer.read())

    def wait_until_up(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            try:
                assert self.get("/health") == b"OK"
                return
            except (URLError, ConnectionError, RemoteDisconnected):
                time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def processes(self) -> list[str]:
        listed = subprocess.run(["ps", "-A", "-o", "pgid="], capture_output=True, text=True, check=True)
        return [group for group in listed.stdout.split() if int(group) == self.process.pid]

    def end_by(self, number: int) -> int:
        """Its exit code; nothing of it is left, and the port can be had."""
        from litsexp.cli import ui as cli

        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        assert self.processes() == []
        cli.listen(self.port).close()
        return code


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Any], Ui]]:
    """Start ``litsexp ui`` on these places; it ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(places: Any) -> Ui:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-c", "from litsexp.cli.app import main; main()", "ui", "--port", str(port)]
        log = tmp_path / "log.txt"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--mlruns", str(places.root)],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        started.append(process)
        ui = Ui(process, port, places.root, log)
        ui.wait_until_up()
        return ui

    yield start
    for process in started:
        process.kill()
        process.wait()
