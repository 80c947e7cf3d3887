"""What runs on a node: ``python -m litsexp.study.executors.slurm_job FOLDER`` runs the job in that folder.

The folder is all that the driver and a job share, by a file system that both see: ``job.json`` to read, a line an
epoch in ``epochs.jsonl``, a file ``stop`` where the driver gives the run up, ``outcome.json`` at the end.
"""

import json
import os
import sys
from pathlib import Path

from litsexp.files import whole_file
from litsexp.study.executors.elsewhere import carry_out
from litsexp.study.jobs import Outcome, outcome_to_json

JOB, EPOCHS, STOP, OUTCOME, LOG, SCRIPT = "job.json", "epochs.jsonl", "stop", "outcome.json", "log", "job.sh"
TAKEN = "taken"  # by a worker: another one of the same job, as after a requeue, ends at once


def main(folder: Path) -> None:
    """Run the job, and write its outcome; whatever fails is an outcome, too."""
    try:
        os.close(os.open(folder / TAKEN, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        sys.exit(f"{folder}: found {TAKEN}; another worker has this job")
    except OSError as error:
        sys.exit(f"{folder}: {error.strerror}; expected a folder that every node sees; is --mlruns on a shared disk?")
    outcome = _run(folder)
    with whole_file(folder / OUTCOME) as temporary:
        temporary.write_text(outcome_to_json(outcome))


def _run(folder: Path) -> Outcome:
    def on_epoch(epoch: int, metrics: dict[str, float]) -> bool:
        with (folder / EPOCHS).open("a") as file:
            file.write(json.dumps([epoch, metrics]) + "\n")
        return not (folder / STOP).exists()

    return carry_out((folder / JOB).read_text, {"slurm_job": _number()}, on_epoch)


def _number() -> str:
    """Of this job as squeue shows it: 812; of a task of an array 812_3."""
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ.get("SLURM_JOB_ID", "")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
