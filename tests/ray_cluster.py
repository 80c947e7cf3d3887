"""A Ray of two nodes on this host, with a token of its own; ended by process id: ``ray stop`` would end every Ray."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

from .slurm_cluster import free_ports, wait_until

needs_ray = pytest.mark.skipif(
    "LITSEXP_RAY" not in os.environ and find_spec("ray") is None,  # there it has to be, or fail
    reason='no Ray; pip install "litsexp[ray]"',
)
PATIENCE_S = 120
START = "from ray.scripts.scripts import main; main()"
HEAD, OTHER = "127.0.0.2", "127.0.0.3"  # 127.0.0.1 would become the machine's outward address


@dataclass
class Ray:
    """The cluster."""

    folder: Path
    address: str
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)  # by address

    def start(self, node: str) -> None:
        """A node of two CPUs and one ``slot``; the first one is the head."""
        port = self.address.partition(":")[2]
        head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self.folder}"]
        own = {"slot": 1, "other" if node == OTHER else "first": 1}
        words = [*(head if node == HEAD else [f"--address={self.address}"]), f"--node-ip-address={node}"]
        words += ["--num-cpus=2", "--num-gpus=0", f"--resources={json.dumps(own)}", "--object-store-memory=80000000"]
        words += ["--disable-usage-stats", "--include-log-monitor=false", "--block"]
        with self.log(node).open("wb") as log:
            self.nodes[node] = subprocess.Popen(
                [sys.executable, "-c", START, "start", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def log(self, node: str) -> Path:
        return self.folder / f"{node}.log"

    def up(self, node: str) -> bool:
        return "Ray runtime started" in self.log(node).read_text()

    def logs(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in self.folder.glob("*.log"))

    def kill(self, node: str) -> None:
        """All of its processes, at once: the machine has lost its power."""
        process = self.nodes.pop(node)
        for pid in of_session(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@contextmanager
def ray_cluster() -> Iterator[Ray]:
    """Inside, the environment has the cluster's token; at the end nothing of it runs."""
    folder = Path(tempfile.mkdtemp(prefix="lr-", dir="/tmp"))  # a socket's path may have 107 characters
    (folder / "token").write_text(secrets.token_hex(32))
    (folder / "token").chmod(0o600)
    ray = Ray(folder, f"{HEAD}:{free_ports(1)[0]}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # another's tests may fill the memory
        patch.delenv("RAY_ADDRESS", raising=False)
        try:
            for node in (HEAD, OTHER):
                ray.start(node)
                wait_until(lambda node=node: ray.up(node), ray.logs, PATIENCE_S)
            yield ray
        finally:
            for node in list(ray.nodes):
                ray.kill(node)
            shutil.rmtree(folder, ignore_errors=True)


def of_session(session: int) -> list[int]:
    """Processes of the session that this process leads."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                found.append(int(folder.name))
    return found


def workers_of(session: int) -> list[int]:
    """Processes of a node that have a task; Ray names them so."""
    found = []
    for pid in of_session(session):
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::litsexp-"):
                found.append(pid)
    return found
