"""Cells as jobs of a Slurm cluster: one job a cell, sent by sbatch from any machine that shares a file system with it.

A job has a folder ``mlruns/slurm/RUN_ID`` (see slurm_folder.py, slurm_job.py). Its end is its outcome file; a job that
has left the queue without one is dead, and Slurm says why. Jobs outlive a killed driver: they train on and log to their
runs; the next driver cancels those that have not ended. With the option ``array``, the jobs that are ready at the same
time are the tasks of one array, for queues that are asked to have few jobs; for all the rest a task is a job.
"""

import json
import logging
import os
import re
import time
import uuid
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from litsexp.spec.errors import LitsexpError, one_line
from litsexp.study.executors import slurm_commands as commands
from litsexp.study.executors.elsewhere import check_importable, check_tracking, order_of
from litsexp.study.executors.slurm_commands import Name
from litsexp.study.executors.slurm_folder import job_name, log_of, name_of, remove, write, write_script
from litsexp.study.executors.slurm_job import EPOCHS, LOG, OUTCOME, STOP
from litsexp.study.jobs import Executor, Job, OnEpoch, Outcome, outcome_from_json
from litsexp.study.places import Places

POLL_S = 2.0
GONE_S = 5.0  # out of the queue without an outcome: dead
LATE_S = 60.0  # the same where Slurm says that it ended well: its outcome may be late on a network file system
ARRAY = "array"  # the option that is litsexp's own
ARRAY_TASKS = 1000  # at most; a Slurm that is not told otherwise (MaxArraySize) takes 1001
LOG_CHARACTERS = 4000  # of a dead job's log, that its run keeps
OWN = {  # options of sbatch that are set here, and those that would make a job another kind of thing
    *("job-name", "output", "error", "input", "open-mode", "chdir", "requeue", "no-requeue", "parsable", "array"),
    *("cpus-per-task", "ntasks", "nodes", "wrap", "wait", "test-only", "clusters", "cluster", "signal"),
    *("help", "usage", "version", "quiet", "verbose", "hold", "begin", "dependency", "uid", "gid"),
}
ADVICE = {
    "TIMEOUT": "give it longer with --executor-option time=HH:MM:SS",
    "OUT_OF_MEMORY": "give it more with --executor-option mem=16G, or try a smaller run.batch_size",
    "ExitCode=0:9)": "killed; out of memory? try --executor-option mem=16G, or a smaller run.batch_size",
    " not found)": "cancelled before it began?",  # of a task of an array Slurm keeps nothing then
    "ExitCode=0:53)": "expected an --mlruns folder that every node sees",
}

logger = logging.getLogger(__name__)


def slurm(workers: int, threads: int, options: Sequence[str], places: Places) -> Executor:
    """The executor ``slurm``: so many jobs in the queue at a time, each with these options of sbatch.

    Args:
        workers: jobs that wait or run.
        threads: of a job: its ``--cpus-per-task``.
        options: ``partition=gpu``, ``gres=gpu:1``, ``exclusive``: sbatch's long options without their dashes;
            ``array`` alone: jobs that are ready at the same time are sent as one array.
        places: where jobs' folders go, and whose tracking URI every node has to reach.

    Raises:
        LitsexpError: no Slurm here; an option that is not the user's; a tracking URI that nodes cannot share.
    """
    flags, at_once = [_flag(option) for option in options if option != ARRAY], ARRAY_TASKS if ARRAY in options else 1
    commands.check_installed()
    check_tracking(places.tracking_uri, "slurm", partial(_hosts, options))

    def run(jobs: Iterable[Job], on_epoch: OnEpoch) -> Generator[tuple[Job, Outcome]]:
        crew, queue = Crew(places.root / "slurm", threads, flags), iter(jobs)
        try:
            while True:
                while ready := list(islice(queue, min(workers - len(crew.sent), at_once))):
                    crew.send(ready)
                if not crew.sent:
                    return
                yield from crew.hear(on_epoch)
        finally:
            crew.end()

    return run


def left_over(root: Path) -> list[str]:
    """MLflow run ids of the jobs that have a folder here: of drivers that run, and of killed ones."""
    folders = (root / "slurm").iterdir() if (root / "slurm").is_dir() else ()
    return [folder.name for folder in folders if not folder.name.startswith(".")]


def end_left(run_ids: Iterable[str], root: Path) -> None:
    """Cancel the jobs of these runs that a killed driver left in the queue, and wait until they are gone.

    LitsexpError where Slurm does not say so: they may still run, and nothing runs twice.
    """
    folders = [root / "slurm" / run_id for run_id in run_ids]
    if not folders:
        return
    try:
        commands.end(names=map(name_of, folders))
    except commands.NoAnswer as error:
        raise LitsexpError(
            f"{root / 'slurm'}: found {len(folders)} jobs of a killed driver, and Slurm does not say that they have "
            f"ended: {error}; run this where squeue answers, or end them there and remove their folders here"
        ) from None
    for folder in folders:
        remove(folder)


@dataclass
class Sent:
    """A job in the queue, as far as it has been heard."""

    job: Job
    folder: Path
    name: Name
    number: str = ""  # Slurm's, 812 or 812_3; empty until sbatch has answered
    gone_s: float | None = None  # since when it is in the queue no more
    heard: int = 0  # bytes of its epochs

    def epochs(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Those that have ended since it was asked last; a line that is not whole yet waits."""
        with suppress(OSError), (self.folder / EPOCHS).open("rb") as file:
            file.seek(self.heard)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.heard += len(line)
                number, metrics = json.loads(line)
                yield number, metrics

    def outcome(self) -> Outcome | None:
        """None while it has none, or the file system does not answer."""
        try:
            os.scandir(self.folder).close()  # a network file system looks again
            return outcome_from_json((self.folder / OUTCOME).read_text())
        except OSError:
            return None
        except ValueError as error:  # it is written whole or not at all
            return self.died(f"left an {OUTCOME} that cannot be read ({one_line(error)})")

    def died(self, why: str) -> Outcome:
        """In Slurm's words, and the log's last ones."""
        log = ""
        with suppress(OSError):
            log = (self.folder / LOG).read_text(errors="replace")[-LOG_CHARACTERS:]
        advice = "".join(f"; {todo}" for word, todo in ADVICE.items() if word in why)
        lines = [" ".join(line.split()) for line in log.splitlines() if line.strip()]
        said = f'; it said last "{lines[-1][:200]}"' if lines else ""
        return Outcome("failed", reason=f"Slurm job {self.number} {why}{advice}{said}", detail=log, died=True)


@dataclass
class Crew:
    """The jobs that are in the queue."""

    root: Path  # of their folders
    threads: int
    flags: Sequence[str]
    sent: list[Sent] = field(default_factory=list)
    told: set[str] = field(default_factory=set)  # what was said of a queue that does not move

    def send(self, jobs: Sequence[Job]) -> None:
        """Write their folders and put them into the queue: one as a job, several as the tasks of an array."""
        for job in jobs:
            check_importable(job)
            if (self.root / job.run_id).exists():  # of a finished run, that a killed driver was having scored
                end_left([job.run_id], self.root.parent)
        new = [Sent(job, self.root / job.run_id, name) for job, name in zip(jobs, _names(jobs), strict=True)]
        self.sent += new  # before sbatch: what Ctrl-C cuts off is found by its name
        for sent in new:
            write(sent.folder, order_of(sent.job, self.threads), sent.name)
        first, script = new[0], write_script([sent.folder for sent in new])
        ours = ["--no-requeue", "--ntasks=1", f"--cpus-per-task={self.threads}"]
        ours += [f"--output={log_of(first.folder, first.name)}", f"--chdir={Path.cwd()}"]
        ours += [f"--array=0-{len(new) - 1}"] if len(new) > 1 else []
        number = commands.send(first.name.name, [*self.flags, *ours], script)
        for sent in new:
            sent.number = number if sent.name.index is None else f"{number}_{sent.name.index}"

    def hear(self, on_epoch: OnEpoch) -> Iterator[tuple[Job, Outcome]]:
        """Wait a moment; answer the epochs that ended in it, and give back the jobs that did."""
        time.sleep(POLL_S)
        in_queue = self._in_queue()
        for sent in list(self.sent):
            outcome = sent.outcome()  # asked before the epochs, so that none is left behind it
            for number, metrics in sent.epochs():
                if not on_epoch(sent.job, number, metrics):
                    with suppress(OSError):
                        (sent.folder / STOP).touch()
            if outcome is None and in_queue is not None:
                outcome = self._dead(sent, in_queue)
            if outcome is not None:
                self.sent.remove(sent)
                remove(sent.folder)
                yield sent.job, outcome

    def end(self) -> None:
        """Cancel what is in the queue, and wait until it is gone: a job may not log to a run that has been closed."""
        if not self.sent:
            return
        logger.info("ending %d Slurm jobs", len(self.sent))
        try:
            commands.end({sent.number for sent in self.sent}, {sent.name for sent in self.sent})
        except commands.NoAnswer as error:
            logger.warning("Slurm does not say that the jobs have ended (%s); the next driver will see to it", error)
            return
        for sent in self.sent:
            remove(sent.folder)
        self.sent = []

    def _in_queue(self) -> set[str] | None:
        """Numbers of the jobs that wait or run; None where Slurm does not answer."""
        try:
            listed = commands.listed()
        except commands.NoAnswer as error:
            self._tell(f"Slurm does not answer ({error}); its jobs go on, and this study waits")
            return None
        ours = {sent.number for sent in self.sent}
        for job in listed:
            if job.number in ours and job.state == "PENDING" and job.reason not in ("None", "Resources", "Priority"):
                self._tell(f"Slurm job {job.number} waits: {job.reason}")
        return {job.number for job in listed}

    def _tell(self, text: str) -> None:
        if (kind := re.sub(r"\d+", "", text)) not in self.told:  # once, not for every job
            self.told.add(kind)
            logger.warning(text)

    def _dead(self, sent: Sent, in_queue: set[str]) -> Outcome | None:
        if sent.number in in_queue:
            sent.gone_s = None
            return None
        now_s = time.monotonic()
        sent.gone_s = now_s if sent.gone_s is None else sent.gone_s
        if now_s - sent.gone_s < GONE_S:
            return None
        why = commands.last_words(sent.number)
        if why.startswith("COMPLETED") and now_s - sent.gone_s < LATE_S:
            return None
        return sent.died(f"ended as {why}")


def _names(jobs: Sequence[Job]) -> list[Name]:
    """What these are called when they are sent together."""
    if len(jobs) == 1:
        return [Name(job_name(jobs[0].run_id))]
    array = f"litsexp-array-{uuid.uuid4().hex}"
    return [Name(array, index) for index in range(len(jobs))]


def _flag(option: str) -> str:
    """``partition=gpu`` as sbatch's ``--partition=gpu``; LitsexpError for what is not the user's to set."""
    key = option.partition("=")[0]
    found = f"--executor-option {option}: found {key!r}"
    if not re.fullmatch(r"[a-z][a-z0-9-]+", key):
        raise LitsexpError(f"{found}; expected KEY=VALUE with a long option of sbatch, such as partition=gpu")
    if any(name.startswith(key) for name in OWN):  # sbatch takes an option's beginning for the whole
        todo = {"cpus-per-task": "--threads sets it; leave it out", ARRAY: "expected array, without a value"}
        said = next((text for name, text in todo.items() if name.startswith(key)), "leave it out")
        raise LitsexpError(f"{found}, which litsexp sets itself; {said}")
    return f"--{option}"


def _hosts(options: Sequence[str]) -> set[str]:
    """Of the nodes that jobs may go to."""
    asked = [option.partition("=")[2] for option in options if option.startswith("partition=")]
    try:
        return commands.hosts(asked[-1] if asked else None)
    except commands.NoAnswer as error:
        raise LitsexpError(f"executor slurm: sinfo does not answer: {error}; is slurmctld up?") from None
