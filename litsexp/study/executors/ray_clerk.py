"""The process that is connected to a Ray cluster, for the driver: Ray writes on its terminal, takes over its signals
and ends it when the cluster is lost, so that the driver itself never loads Ray.

It is told jobs and answers by a pipe, and tells epochs and ends. When the driver is gone it goes; Ray ends what ran.
"""

import os
import re
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from litsexp.data.parallel import die_with_parent
from litsexp.interrupts import hear_interrupts
from litsexp.spec.errors import one_line
from litsexp.study.executors.ray_job import mailbox, task

LOOK_S = 30.0  # between looks at whether any node has what tasks wait for
WORDS = 300  # characters of an error of Ray's
SETTINGS = {  # of Ray's own, read when it is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_server_port_wait_time_s": "5",  # tries of a cluster that refuses, a second each
}
NO_ENTRY = (
    "the cluster asks for a token, and none is given here or another one; expected RAY_AUTH_MODE=token and "
    "RAY_AUTH_TOKEN_PATH (or ~/.ray/auth_token) as its nodes were started with"
)


@dataclass(frozen=True)
class Node:
    """One that is alive, and what it has in all: CPU, GPU, memory in bytes, and whatever it was started with."""

    address: str
    host: str
    resources: Mapping[str, float]

    def has(self, needs: Mapping[str, float]) -> bool:
        """Whether a task that needs this fits, on the empty node."""
        return all(self.resources.get(name, 0) >= amount for name, amount in needs.items())


def serve(pipe: Connection, log: str, address: str, needs: Mapping[str, float]) -> None:
    """The process's life; ``needs`` are a task's, ``log`` takes all that Ray prints.

    Comes in: ``run``, run id, JSON, environment; ``answer``, run id, epoch, go on?; ``cancel``. Goes out: ``begun``;
    ``refused``, words; ``ready``, nodes; ``epoch``, run id, epoch, JSON; ``ended``, run id, JSON; ``died`` or
    ``broke``, run id, words; ``short``, of what no node has; ``gone``, after cancel.
    """
    hear_interrupts(signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    die_with_parent()
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    Path(log).unlink()  # who has it open has it
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update({name: value for name, value in SETTINGS.items() if name not in os.environ})
    pipe.send(("begun",))
    try:
        nodes = connect(address)
    except BaseException as error:
        pipe.send(("refused", refusal(error)))
        os._exit(1)
    pipe.send(("ready", nodes))
    try:
        Clerk(pipe, needs).work()
    except BaseException:
        traceback.print_exc()  # the driver shows the log's last line
        os._exit(1)
    os._exit(0)  # Ray's own way out may take as long as it likes


def connect(address: str) -> list[Node]:
    """Its nodes; whatever Ray raises where it does not let us in."""
    import ray

    ray.init(address=address, log_to_driver=False, configure_logging=False)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray has set its own
    return nodes_alive()


def nodes_alive() -> list[Node]:
    """The cluster's nodes, by address."""
    import ray

    found = [one for one in ray.nodes() if one["Alive"]]
    nodes = [Node(one["NodeManagerAddress"], one["NodeManagerHostname"], one["Resources"]) for one in found]
    return sorted(nodes, key=lambda node: node.address)


def refusal(error: BaseException) -> str:
    """Why there is no connection, in one line."""
    chain = [*_chain(error)]
    said = " ".join(str(one) for one in chain)
    if re.search(r"AuthenticationError|InvalidAuthToken|authentication token", said + str(type(error)), re.IGNORECASE):
        return NO_ENTRY
    if "Version mismatch" in said:
        found = re.findall(r"(Ray|Python): (\S+)", said)
        theirs, ours = (" and ".join(" ".join(one) for one in pair) for pair in (found[:2], found[2:4]))
        return f"found {theirs} on the cluster; expected {ours}, as here; install the same in both"
    return one_line(error)[:WORDS]


def ending(error: BaseException) -> tuple[str, str]:
    """How a task ended that gave no outcome: ``died`` or ``broke``, and Ray's own first words."""
    import ray

    if isinstance(error, ray.exceptions.RayTaskError):  # an exception there; the run's own are outcomes
        return "broke", one_line(error.cause if isinstance(error.cause, BaseException) else error)[:WORDS]
    sentences = re.split(r"(?<=[.!]) ", " ".join(str(error).split()))
    return "died", f"{type(error).__name__}: {' '.join(sentences[:2])}"[:WORDS].rstrip(": ")


def options_of(needs: Mapping[str, float]) -> dict[str, Any]:
    """A task's, for ``ray.remote``: it never runs twice, and frees a GPU's memory with its process.

    Without a GPU, a node's process runs one task after the other: it has imported torch then.
    """
    ray_names = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    own = {ray_names[name]: amount for name, amount in needs.items() if name in ray_names}
    others = {name: amount for name, amount in needs.items() if name not in ray_names}
    fresh = {"max_calls": 1} if needs.get("GPU") else {}
    return {**own, **fresh, "resources": others, "max_retries": 0, "scheduling_strategy": "SPREAD"}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class Clerk:
    """Tasks in the cluster, and the mailbox that they ask in."""

    def __init__(self, pipe: Connection, needs: Mapping[str, float]):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.pipe, self.needs = pipe, needs
        self.tasks: dict[str, Any] = {}  # run id -> Ray's reference
        self.answers: dict[tuple[str, int], bool | None] = {}  # None: to come
        self.events: SimpleQueue[Sequence[Any]] = SimpleQueue()
        self.ending = False
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        steady = {"max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        self.box = ray.remote(num_cpus=0, **steady)(mailbox()).remote()
        self.task = ray.remote(**options_of(needs))(task())
        threading.Thread(target=self._listen, daemon=True).start()

    def work(self) -> None:
        """Until everything is gone after ``cancel``; the driver ends it otherwise."""
        self._when_done(self.box.hear.remote(), "heard")
        while not (self.ending and not self.tasks):
            try:
                kind, *content = self.events.get(timeout=LOOK_S)
            except Empty:
                self._look()
                continue
            getattr(self, f"_{kind}")(*content)
        self.pipe.send(("gone",))

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self.events.put(self.pipe.recv())
        os._exit(1)  # the driver is gone: Ray notices at once that we are

    def _when_done(self, reference: Any, *event: str) -> None:
        def done(future: Future[Any]) -> None:
            self.events.put((*event, future))

        reference.future().add_done_callback(done)

    def _run(self, run_id: str, asked: str, environment: dict[str, str]) -> None:
        self.answers = {key: answer for key, answer in self.answers.items() if key[0] != run_id}
        self.tasks[run_id] = self.task.options(name=f"litsexp-{run_id}").remote(self.box, run_id, asked, environment)
        self._when_done(self.tasks[run_id], "done", run_id)

    def _heard(self, future: Future[Any]) -> None:
        for run_id, epoch, metrics in future.result():
            known = (run_id, epoch) in self.answers
            if run_id not in self.tasks:  # of a node that came back from the dead: its run is closed
                self.box.answer.remote(run_id, epoch, None)
            elif not known:
                self.answers[run_id, epoch] = None
                self.pipe.send(("epoch", run_id, epoch, metrics))
            elif (answer := self.answers[run_id, epoch]) is not None:  # the mailbox had died meanwhile
                self.box.answer.remote(run_id, epoch, answer)
        self._when_done(self.box.hear.remote(), "heard")

    def _answer(self, run_id: str, epoch: int, go_on: bool) -> None:
        self.answers[run_id, epoch] = go_on
        self.box.answer.remote(run_id, epoch, go_on)

    def _done(self, run_id: str, future: Future[Any]) -> None:
        del self.tasks[run_id]
        error = future.exception()
        if error is None:
            self.pipe.send(("ended", run_id, future.result()))
        else:
            kind, words = ending(error)
            self.pipe.send((kind, run_id, words))

    def _cancel(self) -> None:
        import ray

        self.ending = True
        for reference in self.tasks.values():
            ray.cancel(reference, force=True)

    def _look(self) -> None:
        if self.tasks and not any(node.has(self.needs) for node in nodes_alive()):
            self.pipe.send(("short",))
