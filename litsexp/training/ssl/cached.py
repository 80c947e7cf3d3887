"""One pretraining per fold and seed, found again by its content and shared by all arms that ask for the same.

``KEY.safetensors`` holds the encoder's weights and, in its header, how they came to be; ``KEY.part`` a checkpoint of
one that is not done; ``KEY.lock`` makes a second worker wait for the first.
"""

import json
import logging
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from litsexp.files import whole_file
from litsexp.spec.errors import LitsexpError, one_line
from litsexp.spec.keys import digest
from litsexp.spec.pretraining import pretraining
from litsexp.spec.run import RunConfig
from litsexp.training.init import Corpus, weights_sha256
from litsexp.training.ssl.course import DamagedCheckpoint, pretrain
from litsexp.training.ssl.distortions import Distortion

FORMAT = 1  # raise it when the same settings would no longer learn the same weights
CURVE_POINTS = 20  # of the loss, kept in the header

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class About:
    """How the weights came to be: the header of their file."""

    init: str
    steps: int
    seconds: float  # in steps, whichever run did them
    loss: float  # mean of the last steps
    curve: list[float]  # means of as many equal parts of the course, or each step's where they are few
    slices: int
    cases: list[int]
    data_fingerprint: str
    seed: int
    device: str
    precision: str
    threads: int
    torch: str
    sha256: str  # of the weights, names and types included


def key_of(run: RunConfig, seed: int, corpus: Corpus) -> str:
    """Identity by content: 16 hex digits over data, training slices, seed, and the settings that decide the result."""
    rows, data = digest(corpus.rows.tolist()), corpus.slices.store.fingerprint
    return digest({"format": FORMAT, "data": data, "rows": rows, "seed": seed, "run": pretraining(run)})


def pretrained(run: RunConfig, seed: int, corpus: Corpus, distort: Distortion) -> dict[str, Tensor]:
    """The encoder's weights: found in the cache, or learned and put there; ``corpus.facts`` says which.

    Raises:
        LitsexpError: a cache that cannot be written.
        FloatingPointError: a loss that is not finite.
    """
    key = key_of(run, seed, corpus)
    path = corpus.cache / f"{key}.safetensors"
    try:
        corpus.cache.mkdir(parents=True, exist_ok=True)
        with _alone(path.with_suffix(".lock"), run.init):
            found = _read(path)
            state, about = found or _learn(run, seed, corpus, distort, path)
    except OSError as error:
        raise LitsexpError(
            f"{corpus.cache}: cannot keep what {run.init} learned ({error.strerror or error}); "
            "expected a folder to write to with enough room; free space, or name another one with --stores"
        ) from None
    if "ssl_key" not in corpus.facts:  # the learning-rate finder asked before: what it learned, this run has learned
        numbers = {"ssl_steps": about.steps, "ssl_seconds": round(about.seconds, 3), "ssl_loss": about.loss}
        facts = {**numbers, "ssl_slices": about.slices, "ssl_key": key, "ssl_reused": str(found is not None).lower()}
        corpus.facts.update({name: str(value) for name, value in facts.items()})
    return state


def _alone(path: Path, init: str) -> AbstractContextManager[object]:
    """The lock of one pretraining, taken until the block ends; says so where somebody else has to end first."""
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        logger.info("%s: another run is learning it; waiting", init)
        return lock.acquire()


def _learn(
    run: RunConfig, seed: int, corpus: Corpus, distort: Distortion, path: Path
) -> tuple[dict[str, Tensor], About]:
    for left in path.parent.glob(f".{path.stem}*"):  # half-written files of a killed process
        left.unlink(missing_ok=True)
    checkpoint = path.with_suffix(".part")
    logger.info("%s: %d steps on %d training slices", run.init, run.ssl_steps, len(corpus.rows))
    try:
        state, course, precision = pretrain(run, seed, corpus, distort, checkpoint)
    except DamagedCheckpoint as damage:
        logger.warning("%s: cannot be read (%s); pretraining starts anew", checkpoint, damage)
        checkpoint.unlink()
        state, course, precision = pretrain(run, seed, corpus, distort, checkpoint)
    parts = np.array_split(np.asarray(course.losses), min(CURVE_POINTS, len(course.losses)))
    device = corpus.slices.device
    about = About(
        init=run.init,
        steps=len(course.losses),
        seconds=course.seconds,
        loss=course.final_loss,
        curve=[float(part.mean()) for part in parts],
        slices=len(corpus.rows),
        cases=list(corpus.split.train),
        data_fingerprint=corpus.slices.store.fingerprint,
        seed=seed,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        precision=precision,
        threads=torch.get_num_threads(),
        torch=str(torch.__version__),
        sha256=weights_sha256(state),
    )
    with whole_file(path, replace=True) as temporary:
        save_file(state, temporary, metadata={"litsexp": json.dumps(asdict(about))})
    checkpoint.unlink(missing_ok=True)
    logger.info("%s: loss %.4f after %d steps, %.0f s", run.init, about.loss, about.steps, about.seconds)
    return state, about


def _read(path: Path) -> tuple[dict[str, Tensor], About] | None:
    """What an earlier run has kept; None where there is nothing, or where it is damaged: then it is learned again."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            about = About(**json.loads((file.metadata() or {})["litsexp"]))
        state = dict(load_file(path))
        if weights_sha256(state) != about.sha256:
            raise ValueError("its weights are not those that were written")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s: damaged (%s); what it held is learned again", path, one_line(error))
        return None
    return state, about
