"""The benches from the command line."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from litsexp.cli import bench
from litsexp.evidence import simulation
from litsexp.evidence.simulation import COLLAPSED, Row, Setting
from litsexp.study import driving

pytestmark = pytest.mark.usefixtures("elsewhere")
GOOD = Row(Setting(36, 3, 3, 0.05), 2000, 0.96, 0.03, 0.03, 0.02, 0.87, 0.68, 0.06, 0.09, 0.1)


def row(setting: Setting, **changes: float) -> Row:
    return dataclasses.replace(GOOD, setting=setting, **changes)


def test_the_short_table_tells_what_is_below_the_gate(litsexp: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = litsexp("bench", "stats", "--short", "--studies", 100, "--json", "short.json")
    assert code == 0
    assert "100 simulated studies a row; Monte Carlo standard error" in out
    assert max(len(line) for line in out.splitlines() if "×" in line[:10]) <= 80
    rows = json.loads(Path("short.json").read_text())
    assert len(rows) == len(simulation.selection())
    assert [(r["folds"], r["seeds"]) for r in rows if r["mark"] == bench.BELOW] == [(3, 1)]
    assert any(r["run_sd"] == 0.16 for r in rows)
    assert "…" not in out


def test_markdown_is_the_same_table(litsexp: Callable[..., tuple[int, str, str]]) -> None:
    words = ["bench", "stats", "--short", "--studies", 100, "--only", "crossed"]
    _, out, _ = litsexp(*words, "--markdown")
    _, again, _ = litsexp(*words, "--markdown")
    assert out == again
    table = [line.split(" | ") for line in out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(simulation.selection([True]))
    assert {len(line) for line in table} == {13}
    assert all("crossed" in line[0] for line in table[2:])


def test_a_file_that_is_there_is_refused_before_anything_is_simulated(refused: Callable[..., str]) -> None:
    Path("there.json").touch()
    assert "there.json: is there already" in refused("bench", "stats", "--json", "there.json")


def test_marks_and_their_reasons() -> None:
    few = row(Setting(36, 3, 1, 0.05), coverage=0.5)
    lucky = row(Setting(36, 3, 3, 0.05), false_family=0.06)
    collapsed = row(Setting(36, 3, 3, 0.05, COLLAPSED), coverage=0.90)
    noisy = row(Setting(36, 3, 3, 0.16), coverage=0.91)
    skewed = [row(Setting(12, 3, 3, 0.0), coverage=0.92), row(Setting(12, 5, 3, 0.0), false_family=0.09)]
    unsure = row(Setting(118, 5, 1, 0.10), false_family=0.08)
    rows = [GOOD, few, lucky, collapsed, noisy, *skewed, unsure]
    assert [bench.mark(r) for r in rows] == ["", "gate", "chance?", *["misses"] * 5]
    said = "\n".join(bench.notes(rows))
    assert "gate: fewer than 5 pairs of runs get no verdict" in said
    assert "misses, 1 rows (coverage down to 0.900" in said
    assert "misses, 2 rows (coverage down to 0.920, false in a family up to 0.090" in said
    assert "rare collapses of one side" in said
    assert "more than the 0.10 up to which" in said
    assert "their differences are skewed" in said
    assert "between few pairs of runs" in said
    assert "misses" not in "\n".join(bench.notes([GOOD, lucky]))


def test_the_driver_is_measured_and_nothing_is_left(
    litsexp: Callable[..., tuple[int, str, str]], refused: Callable[..., str], files: Callable[[Path], list[str]]
) -> None:
    before = files(Path())
    code, out, error = litsexp("bench", "driver", "--cells", "10,20", "--json", "driver.json")
    assert code == 0, error
    rows = [line.split() for line in out.splitlines()[-2:]]
    assert [row[0] for row in rows] == ["10", "20"]
    assert all(len(row) == len(bench.DRIVER) and all(float(number) > 0 for number in row) for row in rows)
    told = json.loads(Path("driver.json").read_text())
    assert [row["cells"] for row in told] == [10, 20] and all(0 < row["report_mb"] < 1 for row in told)
    assert "not registered" not in error
    Path("driver.json").unlink()
    assert files(Path()) == before
    Path("there.json").touch()
    assert "is there already" in refused("bench", "driver", "--cells", "10", "--json", "there.json")
    for wrong in ("many", "10,1k", "10,", "²", "0"):
        assert f"--cells: found {wrong!r}; expected numbers" in refused("bench", "driver", "--cells", wrong)


def test_memory_is_in_megabytes_on_macos_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux tells kilobytes, macOS bytes."""
    told = SimpleNamespace(ru_maxrss=2**21)
    monkeypatch.setattr(driving.resource, "getrusage", lambda _: told)
    for system, found in (("linux", 2048), ("darwin", 2)):
        monkeypatch.setattr(driving.sys, "platform", system)
        assert driving.peak_memory_mb() == found
