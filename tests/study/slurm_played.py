"""Slurm, played by commands that say what the test wants; and jobs for it."""

import shlex
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from litsexp.data.splits import Split
from litsexp.spec.design import cells
from litsexp.spec.study import StudyConfig
from litsexp.study.executors import executor_of
from litsexp.study.executors.slurm_commands import COMMANDS
from litsexp.study.jobs import Job, Outcome, outcome_to_json
from litsexp.study.places import Places

RUN = "0123456789abcdef"


class Slurm:
    """Commands of Slurm on the PATH, each a line of shell; what they were asked is written down."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.folder.mkdir()
        self.asked = self.folder / "asked"
        self.asked.touch()
        for name, body in dict.fromkeys(COMMANDS, ":").items():
            self.says(name, body)
        self.says("sbatch", "echo 7")
        self.says("sinfo", "echo localhost")

    def says(self, name: str, body: str) -> None:
        command = self.folder / name
        command.write_text(f'#!/bin/sh\necho "{name} $*" >> {shlex.quote(str(self.asked))}\n{body}\n')
        command.chmod(0o755)

    def lists(self, *rows: str) -> None:
        """``squeue`` shows these: number|name|state|reason."""
        self.says("squeue", "\n".join(f"echo '{row}'" for row in rows) or ":")

    def calls(self, name: str) -> list[str]:
        return [line for line in self.asked.read_text().splitlines() if line.split()[0] == name]


def job_of(folder: Path, **changes: Any) -> Job:
    cell = cells(StudyConfig(question="?"))[0]
    asked = Job(cell, "key", RUN, f"sqlite:///{folder}/none.db", Split((0,), (1,), (2,)), folder, (), folder)
    return replace(asked, **changes)


def outcomes(
    places: Places, jobs: Iterable[Job], on_epoch: Callable[..., bool] = lambda *_: True, options: Any = ()
) -> list[Outcome]:
    return [outcome for _, outcome in executor_of("slurm", 2, 3, options, places)(jobs, on_epoch)]


def ends(places: Places, outcome: Outcome, run_id: str = RUN) -> str:
    """Shell: the job ends, and so."""
    file = places.root / "slurm" / run_id / "outcome.json"
    return f"{{ echo {shlex.quote(outcome_to_json(outcome))} > {file}.part; mv {file}.part {file}; }}"
