"""Slurm's own commands, called by argument list: send a job, look at the queue, end jobs, ask why one died.

A command that fails says nothing about the jobs: Slurm goes on without its controller for a while.
"""

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from litsexp.interrupts import unbroken
from litsexp.spec.errors import LitsexpError

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo")
ANSWER_S = 60.0  # a command that takes longer counts as one without an answer
AWAY_S, RETRY_S = 300.0, 5.0  # how long a controller may be away when a job is sent, and between tries
END_S = 60.0  # for a job that is cancelled to be gone; Slurm itself waits 30 s (KillWait) before it kills
AWAY = re.compile(
    "unable to contact|timed out|connection (refused|failure|reset)|zero bytes|temporarily unable|not responding", re.I
)

logger = logging.getLogger(__name__)


class NoAnswer(Exception):
    """Slurm did not answer, in its own words; nothing is known then."""


@dataclass(frozen=True)
class Name:
    """How a job is found whose number nobody has heard: the name that it was sent under, and of an array the index."""

    name: str
    index: int | None = None  # of a task, counted from 0

    def __str__(self) -> str:
        return self.name if self.index is None else f"{self.name} {self.index}"

    @staticmethod
    def read(text: str) -> "Name":
        """What ``str`` gave; ValueError for anything else."""
        name, *index = text.split()
        return Name(name, *map(int, index))


@dataclass(frozen=True)
class Listed:
    """A job in the queue, or a task of an array."""

    number: str  # 812; of a task 812_3
    name: str
    state: str  # PENDING, RUNNING, COMPLETING …
    reason: str  # why it waits: Resources, Priority, PartitionTimeLimit …; None where it does not

    def is_called(self) -> Name:
        """A task is told from the others of its array, which may be somebody else's."""
        index = self.number.partition("_")[2]
        return Name(self.name, int(index) if index.isdigit() else None)


def check_installed() -> None:
    """LitsexpError where a command of Slurm is not on this machine."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        raise LitsexpError(
            f"executor slurm: {', '.join(missing)} not found on the PATH; expected Slurm's commands; "
            "run this on a login node, or with --executor processes"
        )


def send(name: str, options: Sequence[str], script: Path) -> str:
    """Put a script into the queue under this name; the job's number, or the array's.

    A controller that is away is waited for: the job may have arrived all the same, so the queue is looked at first.

    Raises:
        LitsexpError: Slurm refuses it, in its own words.
    """
    deadline_s = time.monotonic() + AWAY_S
    while True:
        try:
            with unbroken():  # or nobody knows whether there is a job
                said = _run(["sbatch", "--parsable", f"--job-name={name}", *options, str(script)])
            return said.strip().split(";")[0]
        except NoAnswer as error:
            if not AWAY.search(str(error)):
                todo = "; try fewer --workers, or without array" if "job array" in str(error) else ""
                raise LitsexpError(f"executor slurm: sbatch refuses a job: {error}{todo}") from None
            logger.warning("Slurm does not answer (%s); waiting", error)
        if arrived := [job for job in _listed_in_time(deadline_s) if job.name == name]:
            return arrived[0].number.partition("_")[0]


def _listed_in_time(deadline_s: float) -> list[Listed]:
    """``listed`` as soon as Slurm answers; LitsexpError where it does not until then."""
    while True:
        time.sleep(RETRY_S)
        try:
            return listed()
        except NoAnswer as error:
            if time.monotonic() > deadline_s:
                raise LitsexpError(f"executor slurm: no answer for {AWAY_S:g} s: {error}; is slurmctld up?") from None


def listed() -> list[Listed]:
    """This user's jobs that wait, run or are about to end, the tasks of an array one by one; NoAnswer."""
    words = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i|%j|%T|%r"]
    rows = [line.strip().split("|") for line in _run(words).splitlines()]
    return [Listed(*row) for row in rows if len(row) == 4]


def end(numbers: Collection[str] = (), names: Iterable[Name] = ()) -> None:
    """Cancel these jobs, and wait until none is left in the queue; NoAnswer where Slurm does not say so in time."""
    names, error = set(names), NoAnswer(f"its jobs still end after {END_S:g} s")
    deadline_s = time.monotonic() + END_S
    while time.monotonic() < deadline_s:
        try:
            left = [job for job in listed() if job.number in numbers or job.is_called() in names]
            if not left:
                return
            to_cancel = [job.number for job in left if job.state != "COMPLETING"]
            if to_cancel:
                with unbroken():
                    _run(["scancel", "--quiet", *to_cancel])
        except NoAnswer as away:
            error = away
        time.sleep(0.5)
    raise error


def last_words(number: str) -> str:
    """How a job ended, as Slurm says it: ``TIMEOUT (Reason=TimeLimit, ExitCode=0:15) on node a07``."""
    try:
        found = dict(re.findall(r"(\w+)=(\S+)", _run(["scontrol", "--oneliner", "show", "job", number])))
    except NoAnswer as error:
        return f"no longer known ({error})"
    where = f" on node {found['NodeList']}" if found.get("NodeList", "(null)") != "(null)" else ""
    return f"{found.get('JobState')} (Reason={found.get('Reason')}, ExitCode={found.get('ExitCode')}){where}"


def hosts(partition: str | None) -> set[str]:
    """The host names of the nodes that jobs may go to; NoAnswer."""
    among = [f"--partition={partition}"] if partition else []
    return set(_run(["sinfo", "--noheader", "--Node", "--format=%n", *among]).split())


def _run(words: Sequence[str]) -> str:
    """What a command prints; NoAnswer with its words where it fails.

    In a session of its own, so that Ctrl-C in the terminal is the driver's alone.
    """
    try:
        done = subprocess.run(  # noqa: S603  # no shell; options are checked before
            [*words],
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            env=_environment(os.environ),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{words[0]}: timed out after {ANSWER_S:g} s") from None
    except OSError as error:
        raise NoAnswer(f"{words[0]}: {error.strerror}") from None
    if done.returncode:
        said = done.stderr.split() or done.stdout.split()  # scontrol says there that it knows no such task
        raise NoAnswer(" ".join(said) or f"{words[0]} ended with exit code {done.returncode}")
    return done.stdout


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Without what describes the driver's own job where it is one: its jobs would take that for theirs."""
    return {name: value for name, value in ours.items() if not name.startswith("SLURM_") or name == "SLURM_CONF"}
