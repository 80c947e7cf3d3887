"""Every table, and what its rows have; the built-in rows themselves stand in ``catalog.toml``.

To add a row: write its function, and name it there; or ``litsexp.register`` it from a module of your own.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litsexp.spec.tables import R, Reference, Row, Table

EQUALISED = "equalised"  # a view of a slice that is not a window: its HU, histogram-equalised


@dataclass(frozen=True)
class Metric(Row):
    """A score of one case. Every metric is a column of the table of cases, and a measure that claims can name."""

    value: Reference  # (evaluation.cases.CaseMasks) -> float, NaN where undefined
    undefined: str = "nothing to divide by"  # why it is NaN where it is
    higher_is_better: bool = True
    unit: str = ""
    shown: int = 0  # its place among the report's main columns, from 1; 0: it is not there
    curve: bool = False  # whether every epoch logs its mean over validation cases as ``valid/NAME``


@dataclass(frozen=True)
class Measure(Row):
    """What a claim can be about, beyond a metric's own column: a number a case, from the table of cases."""

    values: Reference  # (DataFrame, a row a case and run) -> Series of the same index, NaN where undefined
    undefined: str = "nothing to divide by"
    higher_is_better: bool = True
    unit: str = ""


@dataclass(frozen=True)
class Contrast(Row):
    """What a claim can be about that is no score of a test case's stored slices: ``gap:METRIC``, as ``gap:dice_tumor``.

    ``called`` and ``undefined`` are its words in sentences: ``{metric}`` and ``{undefined}`` are replaced by those of
    the metric after the colon, ``{share}`` by the claim's.
    """

    kind: Reference  # () -> evidence.kinds.Kind: how the runs of two arms are compared
    needs: str  # the table it is made of: ``train``, training patients' cases; ``epochs``, validation's; ``native``
    called: str
    undefined: str = "{undefined}"
    higher_is_better: bool = False
    as_metric: bool = False  # whether what is better is the metric's own, instead
    unit: str = ""


@dataclass(frozen=True)
class Encoder(Row):
    """A convolutional body, and weights that somebody trained it to."""

    body: Reference  # (name) -> nn.Sequential with random weights, tapped wherever the resolution halves
    weights: Reference | None = None  # (name) -> state dict of the body; LitsexpError where it cannot be had
    names: Reference | None = None  # (name) -> the names of the whole network's tensors, each with the body's or None


@dataclass(frozen=True)
class Part(Row):
    """What one function makes; beside each table stands what its functions take and give."""

    make: Reference


@dataclass(frozen=True)
class Architecture(Part):
    """A network, and which of a run's settings it has; those that it has not are refused."""

    encoder: bool = True  # it is built around ``run.encoder``; without, ``make`` is given None for it
    shaped: bool = False  # by ``encoder_depth`` and ``decoder_width``


@dataclass(frozen=True)
class Engine(Part):
    """Where cells run."""

    elsewhere: bool = False  # on other machines: ``make`` is given options of the user's and the study's Places, too
    workers: int = 0  # runs at a time where nobody says how many; 0: as many as this machine has cores or GPUs


@dataclass(frozen=True)
class Recipe(Part):
    """A way to train that has settings of its own: a study that sets one and has no arm to use it is refused."""

    settings: Sequence[str] = ()  # of RunConfig, that this row uses and others of the table may not


@dataclass(frozen=True)
class Initialisation(Part):
    """Where an encoder's first weights come from."""

    learns: bool = False  # from the training slices of the run's own fold: ``make`` is given its Corpus, too


@dataclass(frozen=True)
class Encoding(Part):
    """What is made of the stored HU before anything else: the input as a file or a scanner would give it."""

    windowed: bool = False  # what is made is channels in [0, 1] already; else HU, which the window comes after
    kept: bool = False  # costly: made once a store and kept beside it, as uint8 round(255 * channel) of windowed slices


@dataclass(frozen=True)
class Window(Row):
    """The channels that a network sees: one view thrice, or three views."""

    views: Sequence[Sequence[float] | str]  # (width, level) in HU, or EQUALISED


@dataclass(frozen=True)
class Augmentation(Row):
    """Random changes of training slices: ``move`` acts on image and mask alike, ``jitter`` on channels in [0, 1]."""

    move: Reference | None = None  # (image (B, C, H, W), labels (B, H, W), CPU generator) -> both
    jitter: Reference | None = None  # (channels (B, C, H, W), CPU generator) -> channels


_ROWS = tomllib.loads((Path(__file__).parent / "catalog.toml").read_text(encoding="utf-8"))


def _table(concept: str, row: type[R]) -> Table[R]:
    return Table(concept, row, {name: row(**fields) for name, fields in _ROWS[concept].items()})


METRICS, MEASURES = _table("metric", Metric), _table("measure", Measure)
CONTRASTS = _table("contrast", Contrast)
ENCODERS = _table("encoder", Encoder)
ARCHITECTURES = _table("architecture", Architecture)  # (encoder, labels, size in pixels, RunConfig) -> logits' module
INITIALISATIONS = _table("init", Initialisation)  # (RunConfig, seed[, Corpus]) -> the encoder's state dict, or None
WEIGHTS_FILE = "file:PATH"  # the row that stands for every file
ENCODINGS = _table("encoding", Encoding)  # (int16 HU (B, H, W), window[, argument]) -> (B, C, H, W)
WINDOWS = _table("window", Window)
AUGMENTATIONS = _table("augment", Augmentation)
LOSSES = _table("loss", Recipe)  # (RunConfig) -> a function of logits (B, C, H, W) and labels (B, H, W) -> scalar
SCHEDULES = _table("schedule", Recipe)  # (RunConfig, lr) -> Sequence[training.schedules.Phase]
EXECUTORS = _table("executor", Engine)  # (workers, threads a run[, options, Places]) -> study.jobs.Executor

_SCORES, _NETWORKS = (METRICS, MEASURES, CONTRASTS), (ENCODERS, ARCHITECTURES, INITIALISATIONS)
_TABLES = (*_SCORES, *_NETWORKS, ENCODINGS, WINDOWS, AUGMENTATIONS, LOSSES, SCHEDULES, EXECUTORS)
TABLES: Mapping[str, Table[Any]] = {table.concept: table for table in _TABLES}


def registered_modules() -> tuple[str, ...]:
    """The modules that have added rows: a worker process has to load them, too."""
    return tuple(sorted({module for table in TABLES.values() for module in table.added.values()}))
