"""What ran: package versions, Python, platform, and litsexp's commit, as tags."""

import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "fastai", "timm", "optuna", "mlflow", "numpy", "nibabel", "litsexp")


def versions() -> dict[str, str]:
    """Tags that say what ran: package versions, Python, platform, and the git commit of litsexp's checkout."""
    tags = {f"version.{name}": version(name) for name in PACKAGES}
    commit = git_commit()
    return {**tags, "version.python": platform.python_version(), "platform": platform.platform(), "git_commit": commit}


@cache
def git_commit() -> str:
    """Commit of the checkout that litsexp runs from, ``+changes`` appended where it is not clean; else ``unknown``.

    Asked once a process: what runs is what was imported, whatever becomes of the checkout meanwhile.
    """
    git, package = shutil.which("git"), Path(__file__).parents[1]
    if git is None:
        return "unknown"

    def ask(*words: str) -> str:
        command = [git, "-C", str(package), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # no shell; our own words
        return done.stdout.strip() if done.returncode == 0 else ""

    if not ask("ls-files", "__init__.py"):  # installed somewhere inside another project's checkout
        return "unknown"
    return (ask("rev-parse", "HEAD") or "unknown") + ("+changes" if ask("status", "--porcelain", ".") else "")
