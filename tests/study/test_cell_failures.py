"""How the failures of one cell are told: each in one line, and none breaks the study."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from litsexp.data.store import Store
from litsexp.spec.errors import LitsexpError
from litsexp.study.cells import describe, run_cell
from litsexp.study.jobs import Job
from litsexp.study.tracking import Tracking
from litsexp.training import loop

from .conftest import go_on


def test_a_cohort_that_cannot_be_scored_leaves_the_run_finished(
    job: Callable[..., Job], tracking: Tracking, external_store: Store, tmp_path: Path
) -> None:
    one = job(external=external_store)
    gone = replace(one.scorings[1], store=tmp_path / "nothing")
    outcome = run_cell(replace(one, scorings=(one.scorings[0], gone)), go_on)
    assert outcome.status == "unscored"
    assert str(tmp_path / "nothing") in outcome.reason
    run = tracking.client.get_run(one.run_id)
    assert run.info.status == "FINISHED"
    assert gone.tag not in run.data.tags


def test_a_loss_that_is_not_finite_fails_in_one_line(job: Callable[..., Job]) -> None:
    outcome = run_cell(job(lr=1e30, precision="fp32"), go_on)
    assert outcome.status == "failed"
    assert "loss is" in outcome.reason
    assert "try a smaller run.lr" in outcome.reason
    assert "\n" not in outcome.reason
    assert "Traceback" in outcome.detail


@pytest.mark.parametrize("content", [None, b"no weights at all"])
def test_a_bad_weights_file_fails_in_one_line(job: Callable[..., Job], tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    outcome = run_cell(job(init=f"file:{path}"), go_on)
    assert outcome.status == "failed"
    assert str(path) in outcome.reason
    assert "expected a safetensors or torch file" in outcome.reason
    assert "\n" not in outcome.reason


def test_running_out_of_memory_fails_in_one_line(job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: Any, **__: Any) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(loop, "fit", explode)
    outcome = run_cell(job(), go_on)
    assert outcome.status == "failed"
    assert outcome.reason.startswith("out of memory (")
    assert "try a smaller run.batch_size" in outcome.reason
    assert "\n" not in outcome.reason


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LitsexpError("run.init = x: cannot be read"), "run.init = x: cannot be read"),
        (torch.OutOfMemoryError("CUDA out of\nmemory"), "out of memory (CUDA out of memory); try a smaller"),
        (MemoryError(), "out of memory"),
        (KeyError("two\nlines"), "KeyError: 'two"),
    ],
)
def test_a_failure_is_one_line(error: Exception, said: str) -> None:
    assert describe(error).startswith(said)
    assert "\n" not in describe(error)


def test_a_store_that_is_gone_fails_the_cell(job: Callable[..., Job], tmp_path: Path) -> None:
    outcome = run_cell(replace(job(), store=tmp_path / "nothing"), go_on)
    assert outcome.status == "failed"
    assert str(tmp_path / "nothing") in outcome.reason
