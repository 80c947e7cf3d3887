"""Random kills: drivers, workers, node daemons, the MLflow server and PostgreSQL, in studies through every executor.

    python -m tests.benchmarks.bench_kills --kills 100 --seed 0

A tiny study runs on a real PostgreSQL and a real ``mlflow server``. At a random moment something is killed (SIGKILL),
the same command goes on, and so until the study has ended; then the next one begins. Each study is then compared with
one that nobody disturbed: a cell lost, doubled or different, or anything left RUNNING, is a failure. Needs root for
Slurm; parts that a machine lacks are left out, and said.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from litsexp import services
from litsexp.data.phantom.cohort import write_cohort
from litsexp.data.phantom.patient import PhantomConfig
from litsexp.data.store import prepare
from litsexp.services import postgres
from litsexp.services.daemons import Daemon, group
from litsexp.spec.cohort import DataConfig
from litsexp.study.addresses import database_url
from litsexp.study.tracking import Tracking
from tests import ray_cluster as ray
from tests import slurm_cluster as slurm
from tests.study.cluster_lab import MAIN, TOY

STUDY = """\
question: Does a wide window help?
data: {{cohort: {cohort}, size: 64}}
split: {{folds: 2, valid: 0.25}}
seeds: [0, 1]
run: {{encoder: two_halvings, init: scratch, window: wide, epochs: 2, steps_per_epoch: 20, batch_size: 4}}
factors: {{window: [liver]}}
"""
CELLS = 8
ARRAY = "array"  # of Slurm's
LONGEST_S = 14.0  # until the next kill
AWAY_S = 4.0  # that a server or daemon stays away, at most
STUCK_S = 420.0  # without a driver's end and without a kill to give: it hangs


@dataclass
class Study:
    """One name, one executor, killed as often as it takes."""

    name: str
    words: list[str]
    kills: Counter[str] = field(default_factory=Counter)
    drivers: int = 0


@dataclass
class Lab:
    """A folder with the study file, the servers, the clusters, and the driver that runs."""

    folder: Path
    servers: services.Services
    cases: dict[str, bytes] = field(default_factory=dict)  # of the undisturbed study: run key -> cases.parquet
    cluster: slurm.Cluster | None = None
    nodes: ray.Ray | None = None
    driver: subprocess.Popen[bytes] | None = None

    def drive(self, study: Study, *places: str) -> None:
        """Start the same command again."""
        study.drivers += 1
        file = self.folder / f"{study.name}.yaml"
        shutil.copy(self.folder / "toy.yaml", file)
        words = ["study", file.name, "--plugin", "toy", "--stores", "stores", *study.words, *places]
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
        with (self.folder / f"{study.name}.log").open("ab") as log:
            self.driver = subprocess.Popen(
                [sys.executable, "-c", MAIN, *words],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def served(self) -> list[str]:
        return ["--tracking-uri", self.servers.tracking_uri, "--storage", self.servers.storage_url]

    def victims(self, executor: str) -> dict[str, Callable[[], None]]:
        """What can be killed now; each call kills it, and brings back what has to be there for the study to end."""
        assert self.driver is not None
        found: dict[str, Callable[[], None]] = {"driver": self.driver.kill}
        for name, daemon in zip(("PostgreSQL", "MLflow"), services.daemons(self.servers.folder), strict=True):
            found[name] = lambda daemon=daemon: self._server(daemon)
        workers = self.workers(executor)
        if workers:
            found["worker"] = lambda: _kill(random.choice(workers))
        if executor in ("slurm", ARRAY) and self.cluster is not None:
            found["node daemon"] = lambda: self._slurmd(random.choice(("n1", "n2", "slurmctld")))
        if executor == "ray" and self.nodes is not None:
            found["node daemon"] = self._node
        return found

    def workers(self, executor: str) -> list[int]:
        """Processes that train."""
        assert self.driver is not None
        if executor == "processes":
            commands = group(self.driver.pid)
            return [pid for pid, words in commands.items() if "spawn_main" in words]
        if executor in ("slurm", ARRAY):
            names = [folder.name for folder in (self.folder / "mlruns" / "slurm").glob("[!.]*")]
            return [pid for name in names if (pid := slurm.worker_of(name))]
        if executor == "ray" and self.nodes is not None:
            return [pid for node in self.nodes.nodes.values() for pid in ray.workers_of(node.pid)]
        return []

    def _server(self, daemon: Daemon) -> None:
        number = daemon.pid()
        if number is not None:
            for pid in group(number):
                _kill(pid)
        time.sleep(random.uniform(0, AWAY_S))
        services.up(self.servers.folder, fsync=False)

    def _slurmd(self, name: str) -> None:
        assert self.cluster is not None
        self.cluster.daemons[name].kill()
        self.cluster.daemons[name].wait()
        time.sleep(random.uniform(0, AWAY_S))
        self.cluster.start(name)

    def _node(self) -> None:
        assert self.nodes is not None
        self.nodes.kill(ray.OTHER)
        time.sleep(random.uniform(0, AWAY_S))
        self.nodes.start(ray.OTHER)


def disturb(lab: Lab, study: Study, executor: str, kills: int, told: Callable[[str], None]) -> int:
    """Run a study to its end through up to so many kills; how many there were."""
    given = 0
    while True:
        if lab.driver is None or lab.driver.poll() is not None:
            if lab.driver is not None and lab.driver.returncode == 0:
                lab.driver = None
                return given
            lab.drive(study, *lab.served())
        assert lab.driver is not None
        with suppress(subprocess.TimeoutExpired):
            lab.driver.wait(random.uniform(0.5, LONGEST_S) if given < kills else STUCK_S)
            continue
        if given >= kills:
            raise SystemExit(f"{study.name}: no end within {STUCK_S:g} s; see {lab.folder}")
        victims = lab.victims(executor)
        name = random.choice(sorted(victims))
        victims[name]()
        given += 1
        study.kills[name] += 1
        told(f"{study.name}: {name}")


def faults(lab: Lab, study: Study) -> list[str]:
    """What a study that was disturbed did not end as; empty where all is well."""
    tracking = Tracking(lab.servers.tracking_uri, study.name, lab.folder / "unused")
    runs = tracking.runs()
    finished = [run for run in runs if run.info.status == "FINISHED" and "run_key" in run.data.tags]
    times = Counter(run.data.tags["run_key"] for run in finished)
    found = [f"lost: {key}" for key in lab.cases if key not in times]
    found += [f"doubled: {key}" for key, count in times.items() if count > 1]
    for run in finished:
        if tracking.artifact(run.info.run_id, "cases.parquet") != lab.cases[run.data.tags["run_key"]]:
            found.append(f"different: {run.info.run_name}")
    found += [f"RUNNING: {run.info.run_name}" for run in runs if run.info.status in ("RUNNING", "SCHEDULED")]
    storage = optuna.storages.RDBStorage(database_url(lab.servers.storage_url))
    for summary in optuna.get_all_study_summaries(storage):
        if summary.study_name.startswith(f"{study.name}-"):
            trials = optuna.load_study(study_name=summary.study_name, storage=storage).get_trials(deepcopy=False)
            states = Counter(trial.state.name for trial in trials)
            found += [f"trial {state}: {states[state]}" for state in ("RUNNING", "WAITING") if states[state]]
            found += [] if states["COMPLETE"] >= len(lab.cases) else [f"trials complete: {states['COMPLETE']}"]
    return found


def undisturbed(lab: Lab) -> dict[str, bytes]:
    """The study by itself, one cell after the other, on SQLite."""
    lab.drive(Study("reference", ["--executor", "inline"]), "--mlruns", "aside")
    assert lab.driver is not None
    if lab.driver.wait() != 0:
        raise SystemExit((lab.folder / "reference.log").read_text())
    lab.driver = None
    root = lab.folder / "aside"
    tracking = Tracking(f"sqlite:///{root / 'mlflow.db'}", "reference", root / "artifacts")
    return {key: tracking.artifact(run.info.run_id, "cases.parquet") for key, run in tracking.finished().items()}


@contextmanager
def laboratory(executors: list[str]) -> Iterator[Lab]:
    """Everything that is to be killed, started."""
    folder = Path(tempfile.mkdtemp(prefix="litsexp-kills-", dir="/var/tmp"))
    folder.chmod(0o711)
    write_cohort(folder / "ct", PhantomConfig(8, seed=3, size=64, slices=8, lesions="large"), processes=1)
    prepare(folder / "ct", folder / "stores" / "stores", DataConfig(size=64), processes=1)
    (folder / "toy.py").write_text(TOY)
    (folder / "toy.yaml").write_text(STUDY.format(cohort=folder / "ct"))
    with ExitStack() as stack:
        stack.callback(services.down, folder / "services")
        servers = services.up(folder / "services", fsync=False)
        os.environ.update(servers.variables())
        lab = Lab(folder, servers)
        stack.callback(lambda: lab.driver and lab.driver.kill())
        if {"slurm", ARRAY} & {*executors}:
            (folder / "slurm").mkdir()
            lab.cluster = stack.enter_context(slurm.slurm(folder / "slurm"))
        if "ray" in executors:
            lab.nodes = stack.enter_context(ray.ray_cluster())
        yield lab
    shutil.rmtree(folder)


def available(asked: list[str]) -> list[str]:
    """The executors that this machine has the parts of."""
    postgres.programs(Path("nowhere"))  # LitsexpError: without it there is nothing to do
    lacks = {"slurm": slurm.needs_slurm, ARRAY: slurm.needs_slurm, "ray": ray.needs_ray}
    missing = {name: mark for name, mark in lacks.items() if name in asked and mark.args[0]}
    for name, mark in missing.items():
        print(f"left out: {name} ({mark.kwargs['reason']})")
    return [name for name in asked if name not in missing]


def words_of(executor: str, lab: Lab) -> list[str]:
    """How the study is run by it."""
    if executor == "inline":
        return ["--executor", executor]
    words = ["--executor", executor, "--workers", "2"]
    if executor == ARRAY:
        words = ["--executor", "slurm", "--executor-option", "array", "--workers", "4"]
    if executor == "ray" and lab.nodes is not None:
        words += ["--address", lab.nodes.address]
    return [*words, "--retries", "1"]


def main() -> None:
    """Kill, and say what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--executors", default=f"inline,processes,slurm,{ARRAY},ray")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the numbers, too")
    asked = parser.parse_args()
    random.seed(asked.seed)
    executors = available(asked.executors.split(","))
    total: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    bad, begun_s = [], time.monotonic()
    with laboratory(executors) as lab:
        lab.cases = undisturbed(lab)
        assert len(lab.cases) == CELLS, len(lab.cases)
        while sum(total.values()) < asked.kills:
            executor = executors[len(rows) % len(executors)]
            study = Study(f"{executor}{len(rows)}", words_of(executor, lab))
            left = asked.kills - sum(total.values())
            disturb(lab, study, executor, min(left, 8), lambda text: print(f"  {text}", flush=True))
            found = faults(lab, study)
            bad += [f"{study.name}: {fault}" for fault in found]
            total += Counter({f"{executor}, {victim}": count for victim, count in study.kills.items()})
            rows.append({"study": study.name, "kills": dict(study.kills), "drivers": study.drivers, "faults": found})
            print(f"{study.name}: {sum(study.kills.values())} kills, {study.drivers} drivers; {found or 'as inline'}")
    minutes = (time.monotonic() - begun_s) / 60
    print(f"{sum(total.values())} kills in {len(rows)} studies of {CELLS} cells, {minutes:.0f} min; {len(bad)} faults")
    for name, count in sorted(total.items()):
        print(f"  {name:<24}{count:>4}")
    for fault in bad:
        print(f"FAULT {fault}")
    if asked.json:
        asked.json.write_text(json.dumps({"seed": asked.seed, "minutes": minutes, "studies": rows}, indent=1) + "\n")
    sys.exit(bool(bad))


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
