"""Cells as tasks of a Ray cluster: one task a cell, which Ray starts wherever there is room.

The cluster is talked to by a process of its own (see ray_clerk.py). What runs on a node is in ray_job.py; it ends with
its driver. A task whose worker or node dies is dead, in Ray's words; Ray itself tries nothing again.
"""

import json
import logging
import multiprocessing
import os
import re
import socket
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from litsexp.interrupts import held_while_starting, unbroken
from litsexp.spec.errors import LitsexpError, one_line
from litsexp.study.executors import ray_clerk
from litsexp.study.executors.elsewhere import check_importable, check_tracking, checkout, order_of
from litsexp.study.executors.ray_clerk import Node
from litsexp.study.executors.ray_job import HANDED_ON
from litsexp.study.jobs import Executor, Job, OnEpoch, Outcome, outcome_from_json
from litsexp.study.places import Places

START_S = 60.0  # for the process that talks to Ray to be there
CONNECT_S = 20.0  # for the cluster to let it in
END_S = 60.0  # for cancelled tasks to be gone
TICK_S = 0.5  # between looks for Ctrl-C
BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
EXPECTED = "num_gpus=1 (or 0.5: two runs share one), memory=8GiB, resources.NAME=1, accelerator_type=NAME or address="
HOW = "start one with `ray start --head --node-ip-address=HOST --port=6379`, and give --address HOST:6379"
ADVICE = {
    "WorkerCrashedError": "out of memory? try --executor-option memory=16GiB, or a smaller run.batch_size",
    "OutOfMemoryError": "set more aside with --executor-option memory=16GiB, or try a smaller run.batch_size",
    "NodeDiedError": "--retries 1 runs it again on another node",
}

logger = logging.getLogger(__name__)


def ray_cluster(workers: int, threads: int, options: Sequence[str], places: Places) -> Executor:
    """The executor ``ray``: so many tasks in the cluster at a time.

    Args:
        workers: tasks that wait or run.
        threads: of a task: its CPUs.
        options: what a task needs, ``num_gpus=0.5``, and the cluster's ``address``; by default RAY_ADDRESS, or
            ``auto``, which is that of this machine.
        places: whose tracking URI every node has to reach.

    Raises:
        LitsexpError: ray is not installed; an option that is none; no cluster, or one that does not let us in; no node
            that has what a task needs; a tracking URI that nodes cannot share.
    """
    needs, address = needs_of(options, threads), address_of(options)
    if find_spec("ray") is None:
        raise LitsexpError('executor ray: ray is not installed; install it with pip install "litsexp[ray]"')
    line = Line(address, needs)
    try:
        fitting = _fitting(line.nodes, needs, address)
        check_tracking(places.tracking_uri, "ray", lambda: {node.host for node in fitting})
    except LitsexpError:
        line.close()
        raise
    lines = [line]  # for the next round of jobs, too: its workers have imported what they need

    def run(jobs: Iterable[Job], on_epoch: OnEpoch) -> Generator[tuple[Job, Outcome]]:
        crew, queue = Crew(threads, lines.pop() if lines else Line(address, needs)), iter(jobs)
        try:
            while True:
                while len(crew.sent) < workers and (job := next(queue, None)) is not None:
                    crew.send(job)
                if not crew.sent:
                    lines.append(crew.line)
                    return
                yield from crew.hear(on_epoch)
        finally:
            if crew.line not in lines:
                crew.end()

    return run


def needs_of(options: Iterable[str], threads: int) -> dict[str, float]:
    """What a task takes of a node, by Ray's names of it: CPU, GPU, memory in bytes, others; LitsexpError."""
    needs: dict[str, float] = {"CPU": threads}
    for option in options:
        key, _, value = option.partition("=")
        if key == "address":
            continue
        if key == "num_cpus":
            raise LitsexpError(f"--executor-option {option}: found {key!r}, which litsexp sets; use --threads")
        if key == "accelerator_type" and re.fullmatch(r"[\w.-]+", value):
            needs[f"accelerator_type:{value}"] = 0.001  # as Ray marks its nodes
            continue
        own = re.fullmatch(r"resources\.(?!CPU$|GPU$|memory$|node:|object_store_memory$)([\w:.-]+)", key)
        name = {"num_gpus": "GPU", "memory": "memory"}.get(key, own[1] if own else "")
        if not name:
            raise LitsexpError(f"--executor-option {option}: found {key!r}; expected {EXPECTED}HOST:PORT")
        needs[name] = _amount(option, value, of_bytes=key == "memory")
    return needs


def address_of(options: Iterable[str]) -> str:
    """The cluster's, HOST:PORT or ``auto``; LitsexpError for another form."""
    asked = [option.partition("=")[2] for option in options if option.partition("=")[0] == "address"]
    address = asked[-1] if asked else os.environ.get("RAY_ADDRESS") or "auto"
    if address != "auto" and not re.fullmatch(r"[\w.-]+:\d{1,5}", address):
        raise LitsexpError(
            f"--address: found {address!r}; expected HOST:PORT of the cluster's head, from a machine of the cluster"
        )
    return address


def _amount(option: str, value: str, of_bytes: bool) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?" if of_bytes else r"(\d+(?:\.\d+)?)()", value)
    amount = float(found[1]) * BYTES[found[2]] if found else 0.0
    if amount <= 0 or (amount > 1 and amount % 1 and not of_bytes):
        expected = "bytes, such as 8GiB" if of_bytes else "a whole number, or a part of one such as 0.5"
        raise LitsexpError(f"--executor-option {option}: found {value!r}; expected {expected}")
    return float(int(amount)) if of_bytes else amount


def _fitting(nodes: Sequence[Node], needs: Mapping[str, float], address: str) -> list[Node]:
    """The nodes that tasks may go to; LitsexpError where there is none: they would wait for ever."""
    fitting = [node for node in nodes if node.has(needs)]
    if not fitting:
        found = "; ".join(f"{node.address}: {_words(node.resources)}" for node in nodes)
        raise LitsexpError(
            f"executor ray: no node of {address} has {_words(needs)} for a run; found {found or 'no node'}; "
            "ask for less, or add a node that was started with it"
        )
    if "GPU" not in needs and any("GPU" in node.resources for node in fitting):
        logger.warning("the Ray cluster has GPUs, and none is asked for; --executor-option num_gpus=1 asks for one")
    return fitting


def _words(resources: Mapping[str, float]) -> str:
    shown = {
        name: f"{amount / 2**30:.3g} GiB" if name == "memory" else f"{amount:g}"
        for name, amount in sorted(resources.items())
        if name != "object_store_memory" and not name.startswith("node:")
    }
    return ", ".join(f"{name} {amount}" for name, amount in shown.items())


class Line:
    """The line to the process that talks to Ray; LitsexpError where the cluster does not let it in."""

    def __init__(self, address: str, needs: Mapping[str, float]):
        self.address, self.needs = address, needs
        _check_listens(address)
        self.pipe, theirs = (context := multiprocessing.get_context("spawn")).Pipe()
        handle, name = tempfile.mkstemp(prefix="litsexp-ray-", suffix=".log")
        self.log = os.fdopen(handle, "rb")
        asked = (theirs, name, address, dict(needs))
        self.process = context.Process(target=ray_clerk.serve, args=asked, daemon=True)
        self._end = Finalize(self, _end, (self.pipe, self.process), exitpriority=0)  # at the driver's exit, too
        try:
            with held_while_starting():
                self.process.start()
            theirs.close()
            self.nodes = self._connected()
        except BaseException:
            self.close()
            raise

    def close(self) -> str:
        """End the process; what it said last."""
        self._end()
        said = "" if self.log.closed else self.log.read().decode(errors="replace")
        lines = [re.sub(r"^\[[^]]*\] (\S+:\d+: )?", "", line.strip()) for line in said.splitlines() if line.strip()]
        self.log.close()
        return lines[-1][:200] if lines else f"its process ended with exit code {self.process.exitcode}"

    def _connected(self) -> Sequence[Node]:
        where = f"executor ray: --address {self.address}"
        for limit_s in (START_S, CONNECT_S):
            if not self._hears(limit_s):
                raise LitsexpError(f"{where}: no answer within {limit_s:g} s; is it the head of a Ray cluster? {HOW}")
            try:
                kind, *content = self.pipe.recv()
            except (EOFError, OSError):
                raise LitsexpError(f"{where}: no connection ({self.close()}); {HOW}") from None
        if kind == "refused":
            todo = "" if "expected" in content[0] else f"; is there a node of it on this machine? {HOW}"
            raise LitsexpError(f"{where}: {content[0]}{todo}")
        nodes: Sequence[Node] = content[0]
        return nodes

    def _hears(self, limit_s: float) -> bool:
        deadline_s = time.monotonic() + limit_s
        while not self.pipe.poll(TICK_S):
            if time.monotonic() > deadline_s:
                return False
        return True


def _end(pipe: Connection, process: SpawnProcess) -> None:
    """The process hears no SIGTERM, so nothing may wait for it before this was done."""
    pipe.close()
    if process.pid is not None:
        process.kill()
        process.join()


def _check_listens(address: str) -> None:
    """Ray itself tries an address where nobody listens for minutes."""
    host, _, port = address.rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or one_line(error)
        raise LitsexpError(f"executor ray: --address {address}: no cluster answers ({why}); {HOW}") from None


class Crew:
    """The tasks that are in the cluster."""

    def __init__(self, threads: int, line: Line):
        self.threads, self.line = threads, line
        self.sent: dict[str, Job] = {}  # by run id
        self.short = False

    def send(self, job: Job) -> None:
        """Hand the job to Ray."""
        check_importable(job)
        if self.line.pipe.closed:  # it was lost
            self.line = Line(self.line.address, self.line.needs)
        path = [str(folder) for folder in [checkout()] if folder]
        asked = {"order": order_of(job, self.threads), "folder": str(Path.cwd()), "path": path}
        environment = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
        self.sent[job.run_id] = job
        self._tell("run", job.run_id, json.dumps(asked), environment)

    def hear(self, on_epoch: OnEpoch) -> Iterator[tuple[Job, Outcome]]:
        """Wait a moment; answer the epochs that ended in it, and give back the jobs that did."""
        if not self.line.pipe.poll(TICK_S):
            return
        try:
            with unbroken():
                kind, *content = self.line.pipe.recv()
        except (EOFError, OSError):
            yield from self._lost()
            return
        if kind == "short":
            if not self.short:  # once
                logger.warning("no node of the Ray cluster has what the runs need any more; they wait for one")
            self.short = True
            return
        run_id, *rest = content
        if kind == "epoch":
            number, metrics = rest
            self._tell("answer", run_id, number, on_epoch(self.sent[run_id], number, json.loads(metrics)))
        else:
            yield self.sent.pop(run_id), _outcome(kind, rest[0])

    def end(self) -> None:
        """Cancel what is in the cluster, and wait until it is gone: a run may not be logged to after it was closed."""
        if self.sent:
            logger.info("ending %d Ray tasks", len(self.sent))
            self._tell("cancel")
            deadline_s = time.monotonic() + END_S
            with suppress(EOFError, OSError):  # it is lost: Ray ends what it had
                while not (self.line.pipe.poll(TICK_S) and self.line.pipe.recv()[0] == "gone"):
                    if time.monotonic() > deadline_s:
                        logger.warning("Ray has not said for %g s that its tasks have ended", END_S)
                        break
            self.sent = {}
        self.line.close()

    def _tell(self, *words: Any) -> None:
        with suppress(OSError), unbroken():  # a line that is lost is noticed when it is heard
            self.line.pipe.send(words)

    def _lost(self) -> Iterator[tuple[Job, Outcome]]:
        why = f"the connection to the Ray cluster was lost ({self.line.close()}); is its head up?"
        jobs, self.sent = list(self.sent.values()), {}
        for job in jobs:
            yield job, Outcome("failed", reason=why, died=True)


def _outcome(kind: str, text: str) -> Outcome:
    if kind == "ended":
        try:
            return outcome_from_json(text)
        except ValueError as error:
            kind, text = "broke", f"gave an outcome that cannot be read ({one_line(error)})"
    advice = next((f"; {todo}" for word, todo in ADVICE.items() if text.startswith(word)), "")
    return Outcome("failed", reason=f"Ray task ended as {text}{advice}", died=kind == "died")
