"""A folder to work in, as a user has one on a cluster, and a tiny study to run there by the command line."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from mlflow.entities import Run

from litsexp.study.places import Places
from litsexp.study.tracking import Tracking

MAIN = "from litsexp.cli.app import main; main()"
TOY = """\
import litsexp
from torch import nn

def body(name):
    def halve(channels):
        return nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU())
    return nn.Sequential(halve(3), halve(8))

litsexp.register("encoder", "two_halvings", words="a toy", body=body)
"""
STUDY = """\
question: Does a wide window help?
data: {{cohort: {cohort}}}
split: {{train: 0.5, valid: 0.25, test: 0.25}}
run: {{encoder: two_halvings, init: scratch, window: wide, epochs: 2, steps_per_epoch: 2, batch_size: 4}}
factors: {{window: [liver]}}
"""


@dataclass
class Lab:
    """Where drivers are started, and what they leave."""

    folder: Path
    places: Places
    options: list[str]
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)

    def drive(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start the command line."""
        command = [sys.executable, "-c", MAIN, "study", "toy.yaml", "--plugin", "toy", *self.options, *words]
        environ = {**os.environ, **environment}
        log = (self.folder / f"driver{len(self.drivers)}.log").open("w")
        driver = subprocess.Popen(command, cwd=self.folder, env=environ, stdout=log, stderr=log, text=True)
        log.close()
        self.drivers.append(driver)
        return driver

    def printed(self) -> str:
        """By all drivers, one after the other."""
        return "\n".join((self.folder / f"driver{n}.log").read_text() for n in range(len(self.drivers)))

    def runs(self) -> list[Run]:
        """Of cells, oldest first."""
        tracking = Tracking(self.places.tracking_uri, "toy", self.places.root / "artifacts")
        return [run for run in tracking.runs() if "run_key" in run.data.tags]

    def cases(self) -> dict[str, bytes]:
        """Run key of each finished cell -> its ``cases.parquet``."""
        client = Tracking(self.places.tracking_uri, "toy", self.places.root / "artifacts").client
        done = [run for run in self.runs() if run.info.status == "FINISHED"]
        assert len({run.data.tags["run_key"] for run in done}) == len(done)  # nothing ran twice
        return {
            run.data.tags["run_key"]: Path(client.download_artifacts(run.info.run_id, "cases.parquet")).read_bytes()
            for run in done
        }
