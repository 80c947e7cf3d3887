"""Every command, study file and piece of Python on a page is run as its reader would, page by page, in order."""

import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from .pages import PAGES, Block, blocks, commands_in_sentences, name_of
from .sandbox import SMALL_ENCODER, Sandbox, build

INSTALLS = "installs from a package index; CI has done it before this test runs"
SERVER = "asks for an MLflow server of the reader's; its options are looked up all the same"
SERVICES = "starts servers: tests/cli/test_services.py does, and stops them"
CLUSTER = "needs a cluster: tests/study/test_slurm.py runs a study through a real Slurm of two nodes"
RAY = "tests/study/test_ray.py does the same"
EXCUSED = {  # commands that no test runs, each with its reason
    "make study": "installs, and runs the mini-study for minutes: run_study.py is run here",
    "make test": INSTALLS + ", as this",
    "python3 -m venv .venv": INSTALLS,
    ".venv/bin/python -m pip install --constraint constraints.txt --editable '.[dev]'": INSTALLS,
    ".venv/bin/python -m pytest": "runs this test",
    "litsexp study experiments/mini.yaml --tracking-uri http://127.0.0.1:5001 --storage sqlite:////tmp/o.db": SERVER,
    **dict.fromkeys(
        (
            "python3.11 -m venv /shared/env",
            ". /shared/env/bin/activate",
            "pip install -c constraints.txt .",
            "cd /shared/me",
            "mlflow server --host HEAD --allowed-hosts HEAD:5000 --workers 1 "
            "--backend-store-uri sqlite:////shared/me/server.db --artifacts-destination /shared/me/artifacts",
            "litsexp check /shared/LiTS",
            "litsexp study experiments/paper.yaml --data /shared/LiTS --tracking-uri http://HEAD:5000 --executor slurm "
            "--executor-option partition=gpu --executor-option gres=gpu:1 --executor-option time=04:00:00 --retries 1",
            "litsexp status experiments/paper.yaml --data /shared/LiTS --tracking-uri http://HEAD:5000",
            "squeue --me",
            "tail -f mlruns/slurm/RUN_ID/log",
        ),
        CLUSTER,
    ),
    **dict.fromkeys(
        (
            "ray get-auth-token --generate",
            "export RAY_AUTH_MODE=token",
            "export RAY_USAGE_STATS_ENABLED=0",
            "ray start --head --node-ip-address=10.0.0.1 --port=6379 --include-dashboard=false",
            "ray start --address=10.0.0.1:6379 --node-ip-address=10.0.0.2",
            "litsexp study experiments/paper.yaml --data /shared/LiTS --tracking-uri http://HEAD:5000 --executor ray "
            "--address 10.0.0.1:6379 --executor-option num_gpus=0.5 --retries 1",
        ),
        RAY,
    ),
    **dict.fromkeys(
        (
            "pip install 'litsexp[services]'",
            "litsexp services up /var/tmp/services",
            ". /var/tmp/services/env",
            "litsexp services down /var/tmp/services",
        ),
        SERVICES,
    ),
}
QUICKER = {  # a command -> what is added to it, so that it takes seconds
    "litsexp bench stats --short --markdown": "--studies 100",
}
RUNNABLE = ("sh", "yaml", "python")
SHOWN = ("",)  # blocks that only show something
TO_RUN = [page for page in PAGES if any(block.kind in RUNNABLE for block in blocks(page))]
TO_READ = [page for page in PAGES if list(commands_in_sentences(page))]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder and home before the first command."""
    root = tmp_path_factory.mktemp("reader")
    build(root / "checkout", root / "home")
    return root


def no_network(*_: object, **__: object) -> None:
    raise AssertionError("a page's command asked the network for weights")


@pytest.fixture
def sandbox(
    machine: Path,
    tmp_path: Path,
    new_places: Callable[[Path], Any],
    monkeypatch: pytest.MonkeyPatch,
    litsexp: Callable[..., tuple[int, str, str]],
) -> Iterator[Sandbox]:
    """The same for one page; rows and modules that the page registers go with it."""
    from litsexp.spec.catalog import TABLES
    from litsexp.study import executors

    root = Path(shutil.copytree(machine, tmp_path / "reader"))
    new_places(root / "checkout")
    monkeypatch.chdir(root / "checkout")
    monkeypatch.setenv("HOME", str(root / "home"))
    monkeypatch.setattr(executors, "usable_cpus", lambda: 1)  # no process a study, unless the page asks for it
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    for concept in TABLES.values():
        monkeypatch.setattr(concept, "data", dict(concept.data))
        monkeypatch.setattr(concept, "added", dict(concept.added))
    for name in ("tf_efficientnet_lite0", "tf_efficientnet_lite1"):
        TABLES["encoder"].data[name] = SMALL_ENCODER
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # a page may set it, for the whole process
    before = set(sys.modules)

    def run_main(words: list[str]) -> int:
        code, out, error = litsexp(*words)
        print(out, error, sep="\n")
        return code

    yield Sandbox(root / "checkout", root / "home", run_main)
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri("")
    for name in {path.stem for path in (root / "checkout").glob("*.py")} & (set(sys.modules) - before):
        del sys.modules[name]


def run(sandbox: Sandbox, block: Block) -> None:
    """All that a block asks for."""
    if block.file_name:
        sandbox.save(block)
    elif block.kind == "yaml":
        sandbox.read(block)
    elif block.kind == "python":
        sandbox.execute(block)
    for command in block.commands:
        if command not in EXCUSED:
            assert sandbox.type(f"{command} {QUICKER.get(command, '')}") == 0, f"line {block.line}: {command}"


@pytest.mark.parametrize("page", TO_RUN, ids=name_of)
def test_what_the_page_shows_runs_as_it_stands_there(page: Path, sandbox: Sandbox) -> None:
    for block in blocks(page):
        assert block.kind in (*RUNNABLE, *SHOWN), f"line {block.line}: nobody tests a block of {block.kind!r}"
        run(sandbox, block)


def resolved(words: list[str]) -> None:
    """The command line takes these words: there is such a command, with such options. Nothing is run.

    What the sentence leaves out (a folder, a run) may be missing.
    """
    from litsexp.cli.app import app

    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands"):
        assert words in (["--version"], ["--help"]), words
        return
    try:
        command.make_context(command.name, list(words))
    except typer.Exit:
        assert words == ["--help"]
    except Exception as error:
        if type(error).__name__ != "MissingParameter":  # typer's own class, which has no public name
            raise


@pytest.mark.parametrize("page", TO_READ, ids=name_of)
def test_a_command_in_a_sentence_is_one_that_there_is(page: Path) -> None:
    found = list(commands_in_sentences(page))
    assert found
    for said in found:
        words = shlex.split(said.replace("…", "").replace("python run_study.py", "litsexp study", 1))[1:]
        if words[0] != "COMMAND":
            resolved([word for word in words if word != "[OPTIONS]"])


def test_every_excuse_is_needed() -> None:
    typed = {command for page in PAGES for block in blocks(page) for command in block.commands}
    assert set(EXCUSED) <= typed
    assert set(QUICKER) <= typed
    for command in EXCUSED:
        if command.startswith("litsexp "):
            resolved(shlex.split(command)[1:])


def test_a_command_that_is_neither_run_nor_excused_fails(sandbox: Sandbox) -> None:
    with pytest.raises(AssertionError, match="neither run nor excused"):
        run(sandbox, Block("sh", "litsxp study x.yaml\n", 1))
    with pytest.raises(AssertionError, match="needs a shell"):
        run(sandbox, Block("sh", "litsexp list | head\n", 1))
    with pytest.raises(AssertionError, match="litsexp check nowhere"):
        run(sandbox, Block("sh", "litsexp check nowhere\n", 1))
    with pytest.raises(AssertionError, match="no command"):
        resolved(["studdy", "x.yaml"])
