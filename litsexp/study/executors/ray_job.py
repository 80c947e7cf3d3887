"""What crosses the border to a Ray node, and what runs there.

``task`` and ``mailbox`` make what Ray pickles by value: they stand inside functions and name nothing of litsexp's, so
that a node without litsexp says so in words. All that is handed over is text.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from litsexp.study.executors.elsewhere import carry_out
from litsexp.study.jobs import outcome_to_json

HANDED_ON = "MLFLOW_"  # variables of the driver's environment that a node needs: where to log, with which password


def task() -> Callable[..., str]:
    """A Ray task: (mailbox, MLflow run id, what ``work`` reads, environment) -> an outcome as JSON."""

    def run(box: Any, run_id: str, asked: str, environment: dict[str, str]) -> str:
        import json
        import os
        import socket
        import sys

        def ask(epoch: int, metrics: str) -> bool:
            try:  # not by ray.get: while a task waits in it, Ray gives its CPUs away
                answer = box.ask.remote(run_id, epoch, metrics).future().result()
            except BaseException:
                answer = None
            if answer is None:  # the driver is gone, or has given the run up: it is not ours to end
                os._exit(1)
            return bool(answer)

        os.environ.update(environment)
        sys.path[:0] = [folder for folder in json.loads(asked)["path"] if folder not in sys.path]
        try:
            from litsexp.study.executors.ray_job import work
        except ImportError as error:
            where = f"host {socket.gethostname()}: {sys.executable} cannot import litsexp ({error})"
            return json.dumps({"status": "failed", "reason": f"{where}; install the driver's version there"})
        return work(asked, ask)

    return run


def mailbox() -> type:
    """A Ray actor: workers ask in it whether to go on, and the driver hears and answers."""
    import asyncio

    class Mailbox:
        def __init__(self) -> None:
            self.waiting: dict[Any, Any] = {}  # (run id, epoch) -> the answer to come
            self.unheard: list[Any] = []
            self.news = asyncio.Event()

        async def ask(self, run_id: str, epoch: int, metrics: str) -> Any:
            answer = asyncio.get_running_loop().create_future()
            self.waiting[run_id, epoch] = answer
            self.unheard.append((run_id, epoch, metrics))
            self.news.set()
            return await answer

        async def hear(self) -> Any:
            await self.news.wait()
            self.news.clear()
            heard, self.unheard = self.unheard, []
            return heard

        async def answer(self, run_id: str, epoch: int, go_on: Any) -> None:
            waiting = self.waiting.pop((run_id, epoch), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(go_on)

    return Mailbox


def work(asked: str, ask: Callable[[int, str], bool]) -> str:
    """Run the job, on the node; ``asked`` is JSON of ``order``, the driver's ``folder``, and ``path``.

    The outcome as JSON, whatever fails.
    """
    import ray

    order, folder = (json.loads(asked)[key] for key in ("order", "folder"))
    if Path(folder).is_dir():  # as a job of Slurm: modules and weights' files are named from there
        os.chdir(folder)
    tags = {"ray_task": ray.get_runtime_context().get_task_id() or "", "ray_node": ray.util.get_node_ip_address()}
    return outcome_to_json(carry_out(lambda: str(order), tags, lambda epoch, values: ask(epoch, json.dumps(values))))
