"""Every command, study file and piece of Python on a page is run as its reader would, page by page, in order.

Blocks that install, start servers or want a cluster are typed in test_shell.py.
"""

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
from .test_shell import COMPOSE, IN_A_SHELL

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
    if block.file_name == COMPOSE:
        return  # its server is started in test_shell.py
    if block.file_name:
        sandbox.save(block)
    elif block.kind == "yaml":
        sandbox.read(block)
    elif block.kind == "python":
        sandbox.execute(block)
    if block.commands[:1] and block.commands[0] in IN_A_SHELL:
        return  # there
    for command in block.commands:
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


def test_what_is_treated_apart_is_on_a_page() -> None:
    typed = [block.commands for page in PAGES for block in blocks(page) if block.commands]
    assert set(IN_A_SHELL) <= {commands[0] for commands in typed}
    assert set(QUICKER) <= {command for commands in typed for command in commands}


def test_a_command_that_is_not_run_fails(sandbox: Sandbox) -> None:
    with pytest.raises(AssertionError, match="no command that is tested"):
        run(sandbox, Block("sh", "litsxp study x.yaml\n", 1))
    with pytest.raises(AssertionError, match="needs a shell"):
        run(sandbox, Block("sh", "litsexp list | head\n", 1))
    with pytest.raises(AssertionError, match="litsexp check nowhere"):
        run(sandbox, Block("sh", "litsexp check nowhere\n", 1))
    with pytest.raises(AssertionError, match="no command"):
        resolved(["studdy", "x.yaml"])
