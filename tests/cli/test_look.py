"""``litsexp look`` from the command line: a picture, nothing overwritten, nothing trained."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from litsexp.data.store import Store

from .conftest import study_file


@pytest.fixture
def cohort(elsewhere: None, phantom_store: Store) -> list[object]:
    root = phantom_store.directory.parents[1]
    return ["--data", root / "ct", "--stores", root]


def test_it_draws_every_arm_and_never_overwrites(
    litsexp: Callable[..., tuple[int, str, str]], refused: Callable[..., str], cohort: list[object]
) -> None:
    file = study_file()
    code, out, _ = litsexp("look", file, *cohort)
    assert (code, out) == (0, "what the networks see: tiny-look.png\n")
    both = Image.open("tiny-look.png")
    code, out, _ = litsexp("look", file, *cohort, "--arm", "window=wide", "--cases", 1)
    assert (code, out) == (0, "what the networks see: tiny-look-2.png\n")
    one = Image.open("tiny-look-2.png")
    assert (one.format, one.mode) == ("PNG", "RGB") and one.height < both.height
    before = Path("tiny-look.png").read_bytes()
    assert "tiny-look.png: is there already" in refused("look", file, *cohort, "--out", "tiny-look.png")
    assert Path("tiny-look.png").read_bytes() == before
    assert litsexp("look", file, *cohort, "--out", "again.png")[0] == 0
    assert Path("again.png").read_bytes() == before  # the same pixels again
    assert sorted(path.name for path in Path().iterdir()) == [
        "again.png",
        "tiny-look-2.png",
        "tiny-look.png",
        "tiny.yaml",
    ]


def test_what_is_wrong_is_said_before_a_store_is_built(refused: Callable[..., str], elsewhere: None) -> None:
    file = study_file()
    said = refused("look", file, "--arm", "window=wid", "--stores", "data")
    assert said.endswith("expected one of 'baseline', 'window=wide'; did you mean 'window=wide'?")
    assert "there is no folder" in refused("look", file, "--out", "nowhere/a.png")
    assert "found 'jpeg:0'; expected one of hu, jpeg:Q" in refused("look", file, "--set", "run.encoding=jpeg:0")
    assert not Path("data").exists()
