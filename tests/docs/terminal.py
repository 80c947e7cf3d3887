"""A reader's terminal: what stands on a page is typed as it stands, with the names of this machine in it."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from litsexp.spec.reading import load_study

from .pages import ROOT
from .sandbox import small

PATIENCE_S = 300
STAYS = re.compile(r"(cd|\.|export) ")  # the next command needs it, too
VENV = re.compile(r"python[\d.]* -m venv (\S+)")
CHECKOUT = ("litsexp", "tests", "docs", "experiments")
FILES = ("pyproject.toml", "constraints.txt", "Makefile", "run_study.py", "README.md", "LICENSE", "MANIFEST.in")


@dataclass
class Terminal:
    """Commands are typed here one after the other, each with what ``cd``, ``.`` and ``export`` before it did."""

    folder: Path
    names: dict[str, str] = field(default_factory=dict)  # on the page -> here
    environment: dict[str, str] = field(default_factory=dict)
    before: list[str] = field(default_factory=list)

    def type(self, command: str) -> str:
        """What it prints; it has to end well."""
        with self.start(command) as process:
            printed, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, f"{command}\n{printed}"
        if STAYS.match(command):
            self.before.append(self.here(command))
        if made := VENV.match(command):
            share_packages(self.folder / self.here(made[1]))
        return printed

    def start(self, command: str) -> "subprocess.Popen[str]":
        """The same in a terminal of its own."""
        script = "\n".join(["set -e", *self.before, self.here(command)])
        hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MLFLOW_TRACKING_URI"}
        kept = {name: value for name, value in os.environ.items() if name not in hidden}
        return subprocess.Popen(
            ["/bin/sh", "-c", script],
            cwd=self.folder,
            env={**kept, **INSTALLED, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def here(self, command: str) -> str:
        """The command with this machine's names."""
        for name, ours in self.names.items():
            command = command.replace(name, ours)
        return command


INSTALLED = {  # litsexp is installed from its folder, and nothing is asked of an index: its packages are shared
    "PATH": f"{os.environ['PATH']}{os.pathsep}{Path(sys.executable).parent}",
    "PIP_NO_INDEX": "1",
    "PIP_NO_DEPS": "1",
    "PIP_NO_BUILD_ISOLATION": "0",  # "no" is what this variable says: see pip's own documentation
    "PIP_IGNORE_INSTALLED": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def share_packages(home: Path) -> None:
    """Let an environment see the packages that the tests have, setuptools among them."""
    (packages,) = home.glob("lib/python*/site-packages")
    for older in packages.glob("setuptools*"):
        shutil.rmtree(older)
    shared = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "shared.pth").write_text("\n".join(shared))


def checkout(folder: Path) -> Path:
    """A checkout whose studies take seconds: one factor and what is claimed of it, few patients, one step."""
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    for name in CHECKOUT:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mini", "paper"):
        file = folder / "experiments" / f"{name}.yaml"
        study = small(yaml.safe_load(file.read_text()))
        factor = next(iter(study["factors"]))
        study["factors"] = {factor: study["factors"][factor]}
        study["claims"] = [claim for claim in study["claims"] if claim.get("factor") == factor]
        study["split"] = {"train": 0.5, "valid": 0.25, "test": 0.25}
        file.write_text(yaml.safe_dump(study, sort_keys=False))
        load_study(file)
    return folder


def wait_for(path: Path, pattern: str) -> Path:
    """The first file of this pattern below a folder, once it is there."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        if found := sorted(path.glob(pattern)):
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"{path}: waited {PATIENCE_S} s for {pattern}")
