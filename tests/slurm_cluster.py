"""A Slurm of two nodes on this host, with a munge of its own: nothing of the system's is used or changed."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
os.environ["PATH"] += os.pathsep + "/usr/sbin"  # where Debian puts daemons
needs_slurm = pytest.mark.skipif(
    ("LITSEXP_SLURM" not in os.environ)  # there it has to be, or fail
    and (any(shutil.which(name) is None for name in DAEMONS) or os.getuid() != 0),
    reason="no Slurm, or not root; apt-get install slurm-wlm munge",
)
PATIENCE_S = 60
CONFIGURATION = """
ClusterName=tests
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=3000
SchedulerParameters=sched_interval=2,batch_sched_delay=0,defer_batch
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MpiDefault=none
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
KillWait=2
MinJobAge=300
MailProg=/bin/true
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=16000 Gres=gpu:1
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=16000 Gres=gpu:1
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=60
PartitionName=gpu Nodes=n1,n2 MaxTime=600
"""


@dataclass
class Cluster:
    """Its daemons by name: munged, slurmctld, and the nodes n1 and n2."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """A daemon; one that has ended is started again, and finds what it knew."""
        files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid", "seed-file": "munge.seed"}
        words = ["slurmd", "-D", "-f", os.environ["SLURM_CONF"], "-N", name]
        if name == "munged":
            words = [name, "--foreground", "--force", *(f"--{key}={self.folder / file}" for key, file in files.items())]
        elif name == "slurmctld":
            words = [name, "-D", "-f", os.environ["SLURM_CONF"]]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def logs(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))

    def idle(self) -> bool:
        """Whether both nodes are there, and free."""
        return said("sinfo", "--noheader", "--Node", "--partition=all", "--format=%T").split() == ["idle"] * 2


@contextmanager
def slurm(folder: Path) -> Iterator[Cluster]:
    """Inside, Slurm's commands find this cluster; at the end nothing of it runs."""
    cluster, before = Cluster(folder), os.environ.get("SLURM_CONF")
    folder.chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    (folder / "state").mkdir()
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, ports=free_ports(3)))
    (folder / "gres.conf").write_text("NodeName=n1,n2 Name=gpu File=/dev/null\n")  # stands for one
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        cluster.start("munged")
        wait_until((folder / "munge.socket").exists, cluster.logs)
        for name in ("slurmctld", "n1", "n2"):
            cluster.start(name)
        wait_until(cluster.idle, cluster.logs)
        yield cluster
    finally:
        said("scancel", f"--user={os.getuid()}")
        with suppress(AssertionError):
            wait_until(lambda: not queue(), patience_s=20)  # a job outlives its daemon
        started = list(reversed(cluster.daemons.values()))
        for process in started:
            process.terminate()
        for process in started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


def said(*words: str) -> str:
    """What a command prints; empty where it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return done.stdout if done.returncode == 0 else ""


def queue() -> dict[str, str]:
    """Job name -> its state, of those that have not ended."""
    return dict(line.split("|") for line in said("squeue", "--noheader", "--format=%j|%T").split())


def worker_of(run_id: str) -> int:
    """The process that runs the job of this MLflow run; 0 for none."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            if "litsexp.study.executors.slurm_job" in words and any(run_id in word for word in words):
                return int(folder.name)
    return 0


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_until(
    condition: Callable[[], object], logs: Callable[[], str] = lambda: "", patience_s: float = PATIENCE_S
) -> None:
    """Until it holds; else the test fails, with what the logs say."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {patience_s} s; {logs()}"
        time.sleep(0.1)
