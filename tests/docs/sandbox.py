"""A reader's machine in small: a folder like the checkout, a home with CT, and the same studies for a minute.

A study that is named on a page keeps its question, design, factors, arms and claims; its images, cohort, folds, seeds
and steps are made as few as they can be. What a page says that its reader has (a colleague's table, two systems' masks)
is there, too.
"""

import contextlib
import json
import os
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

from litsexp.data.phantom.cohort import write_cohort
from litsexp.data.phantom.patient import PhantomConfig
from litsexp.spec.catalog import Encoder
from litsexp.spec.reading import load_claims, load_study
from litsexp.spec.tables import load_plugins

from .pages import ROOT, SHELL, Block

PATIENCE_S = 120
COHORTS = {"LiTS": (6, 2, "A"), "other-hospital": (3, 9, "B"), "new-patients": (2, 5, "A")}  # patients, seed, site
RUN = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "lr": 0.001}
FEWER = {"frozen_epochs": 0, "patience": 0, "ssl_steps": 1, "decoder_width": 16}
SMALL = {"resnet50": "tf_efficientnet_lite0", "resnet18": "tf_efficientnet_lite1"}  # whose weights are installed
BASE = {"question": "?", "split": {"folds": 3, "valid": 0.2}}  # around a part of a study file


def body(name: str) -> Any:
    """An encoder of five halvings that trains in no time."""
    from torch import nn

    widths = [3, 8, 8, 8, 8, 8]
    stages = (nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b in pairwise(widths))
    return nn.Sequential(*stages)


SMALL_ENCODER = Encoder(
    "stands in for one whose weights are installed", body, weights=lambda name: body(name).state_dict()
)


def small(study: dict[str, Any]) -> dict[str, Any]:
    """The content of a study file, small: the same kind of study."""
    made = {**study, "data": {**study.get("data", {}), "size": 32}, "seeds": study.get("seeds", [0])[:1]}
    for section, patients in (("data", 6), ("external", 2)):
        if made.get(section, {}).get("cohort", "phantom") == "phantom" and section in made:
            made[section] = {**made[section], "patients": patients}
    split = dict(study.get("split", {"folds": 3}))
    split |= {"folds": 2, "valid": 0.25} if "folds" in split else {"train": 0.5, "valid": 0.25, "test": 0.25}
    made["split"] = split
    made["run"] = small_run({**study.get("run", {}), **RUN})
    if "arms" in study:
        made["arms"] = {name: small_arm(number, arm) for number, (name, arm) in enumerate(study["arms"].items())}
    if "search" in study:
        made["search"] = {**study["search"], "trials": 2}
    if "encoder" in study.get("factors", {}):
        made["factors"] = {**study["factors"], "encoder": [SMALL.get(e, e) for e in study["factors"]["encoder"]]}
        made["factors"]["encoder"] = list(dict.fromkeys(made["factors"]["encoder"]))
    return made


def small_run(run: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run for one step; an encoder whose weights would be downloaded becomes one that has them."""
    run = {name: FEWER.get(name, value) for name, value in run.items()}
    if run.get("encoder") in SMALL:
        run |= {"encoder": SMALL[run["encoder"]], "architecture": "unet"}
    return run | ({"decoder_width": 16} if run.get("architecture") == "unet" else {})


def small_arm(number: int, arm: dict[str, Any]) -> dict[str, Any]:
    """An arm's settings: one that trains longer still does, by as few steps as tell it from the others."""
    made = {name: FEWER.get(name, value) for name, value in arm.items()}
    if "steps_per_epoch" in arm:
        made["steps_per_epoch"] = 2 + number
    return made


@dataclass
class Sandbox:
    """A reader's folder and home; commands are typed there, one after the other."""

    folder: Path
    home: Path
    run_main: Callable[[list[str]], int]  # litsexp's command line in this process: its exit code

    def save(self, block: Block) -> None:
        """Write a block that has a file name; a study file becomes a small one of its kind, a module is imported."""
        path = self.folder / block.file_name
        path.write_text(block.text)
        if block.kind == "python":
            load_plugins([path.stem])
            return
        self.read(block)
        content = yaml.safe_load(block.text)
        if "question" in content:
            path.write_text(yaml.safe_dump(small(content), sort_keys=False))
            load_study(path)

    def read(self, block: Block) -> None:
        """The real reader takes a study file, a claims file, or a part of a study file put among the rest."""
        content, path = yaml.safe_load(block.text), self.folder / "shown.yaml"
        claims_file = "claims" in content and "question" not in content
        path.write_text(block.text if claims_file or "question" in content else yaml.safe_dump({**BASE, **content}))
        (load_claims if claims_file else load_study)(path)
        path.unlink()

    def execute(self, block: Block) -> None:
        """A piece of Python, as a notebook's cell."""
        exec(compile(block.text, f"line {block.line}", "exec"), {"__name__": "page"})

    def type(self, command: str) -> int:
        """Run a command; its exit code."""
        words = [os.path.expanduser(word) for word in shlex.split(command)]  # noqa: PTH111 (a word, as a shell has it)
        assert not SHELL & set(command), f"needs a shell: {command}"
        if words[:2] == ["litsexp", "ui"]:
            return self.serve(words[1:])
        if words[0] == "litsexp":
            return self.run_main(words[1:])
        if Path(words[0]).name == "python" and words[1] == "run_study.py":
            sys.argv[:] = words[1:]
            with pytest.raises(SystemExit) as end:
                runpy.run_path("run_study.py", run_name="__main__")
            return int(end.value.code or 0)
        raise AssertionError(f"no command that is tested: {command}")

    def serve(self, words: list[str]) -> int:
        """Start the UI on a port that is free, see it answer on 127.0.0.1, end it as Ctrl-C does."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        program = [sys.executable, "-c", "from litsexp.cli.app import main; main()", *words, "--port", str(port)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
            try:
                assert answers(f"http://127.0.0.1:{port}/health", server) == b"OK"
            finally:
                server.send_signal(signal.SIGINT)
                code = server.wait(PATIENCE_S)
        return 0 if code == 130 else code


def answers(url: str, server: "subprocess.Popen[bytes]") -> bytes:
    """What stands at an address, once it does."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        assert server.poll() is None, server.stdout.read() if server.stdout else ""
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return bytes(answer.read())
        time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")


def build(folder: Path, home: Path) -> None:
    """What is in the folder and in the home before the first command."""
    (folder / "experiments").mkdir(parents=True)
    shutil.copy(ROOT / "run_study.py", folder)
    for file in (ROOT / "experiments").glob("*.yaml"):
        made = folder / "experiments" / file.name
        made.write_text(yaml.safe_dump(small(yaml.safe_load(file.read_text())), sort_keys=False))
        load_study(made)
    for name, (patients, seed, site) in COHORTS.items():
        config = PhantomConfig(patients, seed=seed, size=48, slices=10, site=site, lesions="large")
        write_cohort(home / name, config, processes=1)
        (home / name / "phantom.json").unlink()  # to the commands it is CT like any other
    masks(home / "LiTS", folder)
    table(folder / "results.csv")
    for trainer, gain in (("nnUNetTrainer", 0), ("nnUNetTrainerDA5", 5)):
        nnunet(folder / "nnUNet_results" / "Dataset003_Liver" / f"{trainer}__nnUNetPlans__2d", gain)


def masks(truth: Path, folder: Path) -> None:
    """Two systems' masks of these cases: one perfect, one that finds half of every tumor."""
    for name in ("plain", "da5"):
        (folder / name).mkdir()
    for file in truth.glob("segmentation-*.nii.gz"):
        image = nib.load(file)
        labels = np.asarray(image.dataobj).astype(np.uint8)
        half = labels.copy()
        half[::2][labels[::2] == 2] = 1
        for name, made in (("plain", half), ("da5", labels)):
            nib.save(nib.Nifti1Image(made, image.affine), folder / name / file.name)


def table(path: Path) -> None:
    """A colleague's results: two arms, thirty patients in five folds."""
    rng = np.random.default_rng(0)
    rows = [
        {"arm": arm, "case": case, "fold": case % 5, "dice_tumor": 0.5 + gain + rng.normal(0, 0.05)}
        for arm, gain in (("plain", 0.0), ("DA5", 0.1))
        for case in range(30)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)


def nnunet(trainer: Path, gain: int) -> None:
    """One trainer's folder as nnU-Net leaves it: two folds of three cases."""
    for fold in range(2):
        cases = []
        for case in range(3):
            tp, fp, fn = 50 + gain + case + fold, 20, 50 - gain
            scores = {"Dice": 2 * tp / (2 * tp + fp + fn), "IoU": tp / (tp + fp + fn), "TP": tp, "FP": fp, "FN": fn}
            scores |= {"TN": 1000, "n_pred": tp + fp, "n_ref": tp + fn}
            name = f"liver_{3 * fold + case}.nii.gz"
            cases.append({"metrics": {"1": scores, "2": scores}, "prediction_file": name, "reference_file": name})
        file = trainer / f"fold_{fold}" / "validation" / "summary.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"metric_per_case": cases}))
    (trainer / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "tumor": 2}}))
