"""Every table with its built-in rows: what a study file may name.

To add a row: write its function, and name it here; or ``litsexp.register`` it from a module of your own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litsexp.spec.tables import Reference, Row, Table

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
class Encoder(Row):
    """A convolutional body, and weights that somebody trained it to."""

    body: Reference  # (name) -> nn.Sequential with random weights, tapped wherever the resolution halves
    weights: Reference | None = None  # (name) -> state dict of the body; LitsexpError where it cannot be had


@dataclass(frozen=True)
class Part(Row):
    """What one function makes; beside each table stands what its functions take and give."""

    make: Reference


@dataclass(frozen=True)
class Encoding(Part):
    """What is made of the stored HU before anything else: the input as a file or a scanner would give it."""

    windowed: bool = False  # what is made is channels in [0, 1] already; else HU, which the window comes after


@dataclass(frozen=True)
class Window(Row):
    """The channels that a network sees: one view thrice, or three views."""

    views: tuple[tuple[float, float] | str, ...]  # (width, level) in HU, or EQUALISED


@dataclass(frozen=True)
class Augmentation(Row):
    """Random changes of training slices: ``move`` acts on image and mask alike, ``jitter`` on channels in [0, 1]."""

    move: Reference | None = None  # (image (B, C, H, W), labels (B, H, W), CPU generator) -> both
    jitter: Reference | None = None  # (channels (B, C, H, W), CPU generator) -> channels


_METRICS = "litsexp.evaluation.metrics:"
_NO_TUMOR, _SILENT = "no tumor to find", "nothing predicted"
METRICS = Table(
    "metric",
    Metric,
    {
        "dice_liver": Metric("liver Dice", _METRICS + "dice_liver", shown=2, curve=True),
        "sensitivity_liver": Metric("liver sensitivity", _METRICS + "sensitivity_liver"),
        "specificity_liver": Metric("liver specificity", _METRICS + "specificity_liver"),
        "precision_liver": Metric("liver precision", _METRICS + "precision_liver", _SILENT),
        "dice_tumor": Metric("tumor Dice", _METRICS + "dice_tumor", _NO_TUMOR, shown=1, curve=True),
        "sensitivity_tumor": Metric(
            "tumor sensitivity", _METRICS + "sensitivity_tumor", _NO_TUMOR, shown=3, curve=True
        ),
        "specificity_tumor": Metric("tumor specificity", _METRICS + "specificity_tumor", curve=True),
        "precision_tumor": Metric("tumor precision", _METRICS + "precision_tumor", _SILENT, shown=4),
        "foreground_acc": Metric("foreground accuracy", _METRICS + "foreground_acc", shown=5, curve=True),
        "pixel_acc": Metric("pixel accuracy", _METRICS + "pixel_acc", shown=6, curve=True),
    },
)

_MEASURES = "litsexp.evidence.measures:"
_NO_LESION, _NO_LESION_AT_ALL = "no lesion to find", "no lesion, and none predicted"
MEASURES = Table(
    "measure",
    Measure,
    {
        "precision_liver": Measure("liver precision", _MEASURES + "precision_liver", "no liver, and none predicted"),
        "precision_tumor": Measure("tumor precision", _MEASURES + "precision_tumor", "no tumor, and none predicted"),
        "lesion_recall": Measure("lesion recall", _MEASURES + "lesion_recall", _NO_LESION),
        "lesion_precision": Measure(
            "lesion precision", _MEASURES + "lesion_precision", "no lesion, and none predicted"
        ),
        "lesion_f1": Measure("lesion F1", _MEASURES + "lesion_f1", "no lesion, and none predicted"),
        "lesions_false": Measure(
            "false lesions", _MEASURES + "lesions_false", "never", higher_is_better=False, unit="a case"
        ),
        "burden_error": Measure(
            "tumor burden error", _MEASURES + "burden_error", "no liver to find", higher_is_better=False
        ),
    },
)

_ENCODERS = "litsexp.training.encoders:"
_RESNET = (_ENCODERS + "resnet", _ENCODERS + "resnet_imagenet")
ENCODERS = Table(
    "encoder",
    Encoder,
    {
        "tf_efficientnet_lite0": Encoder(
            "EfficientNet-Lite0 (timm); its ImageNet weights are bundled",
            _ENCODERS + "lite0",
            _ENCODERS + "lite0_imagenet",
        ),
        "resnet18": Encoder("ResNet-18 (torchvision)", *_RESNET),
        "resnet34": Encoder("ResNet-34 (torchvision)", *_RESNET),
        "resnet50": Encoder("ResNet-50 (torchvision), the paper's", *_RESNET),
    },
)

ARCHITECTURES = Table(  # (encoder, labels, size in pixels) -> nn.Module: (B, 3, size, size) -> (B, labels, size, size)
    "architecture",
    Part,
    {"dynamic_unet": Part("fastai's DynamicUnet, the paper's", "litsexp.training.architectures:dynamic_unet")},
)

_INIT = "litsexp.training.init:"
WEIGHTS_FILE = "FILE.safetensors"  # stands for every file of that ending
INITIALISATIONS = Table(  # (RunConfig, seed) -> state dict of the encoder, or None: it stays as the seed made it
    "init",
    Part,
    {
        "scratch": Part("random, from the seed", _INIT + "scratch"),
        "imagenet": Part("pretrained on ImageNet", _INIT + "imagenet"),
        "shuffled": Part("control: ImageNet's weights, each tensor shuffled", _INIT + "shuffled_imagenet"),
        WEIGHTS_FILE: Part("your own encoder: a safetensors file of its state dict", _INIT + "from_file"),
    },
)

ENCODINGS = Table(  # (Tensor (B, H, W) of int16 HU, window) -> Tensor (B, C, H, W)
    "encoding", Encoding, {"hu": Encoding("Hounsfield units as they are stored", "litsexp.training.inputs:stored_hu")}
)

WINDOWS = Table(
    "window",
    Window,
    {
        "liver": Window("-45 to 105 HU: width 150, level 30 (the paper's)", ((150.0, 30.0),)),
        "custom": Window("-40 to 160 HU: width 200, level 60 (the paper's)", ((200.0, 60.0),)),
        "wide": Window("-160 to 240 HU: width 400, level 40", ((400.0, 40.0),)),
        "notebook": Window("three channels: liver, custom, equalised HU", ((150.0, 30.0), (200.0, 60.0), EQUALISED)),
    },
)

_AUGMENT = "litsexp.training.augment:"
AUGMENTATIONS = Table(
    "augment",
    Augmentation,
    {
        "paper": Augmentation(
            "rotation, zoom, flip, elastic deformation, brightness, contrast", _AUGMENT + "move", _AUGMENT + "jitter"
        ),
        "none": Augmentation("slices as they are"),
    },
)

LOSSES = Table(  # (RunConfig) -> a function of logits (B, C, H, W) and labels (B, H, W) -> scalar
    "loss",
    Part,
    {"ce_dice": Part("cross entropy and soft Dice, by dice_weight", "litsexp.training.losses:ce_dice")},
)

_EXECUTORS = "litsexp.study.executors."
EXECUTORS = Table(  # (workers, threads a run) -> study.jobs.Executor
    "executor",
    Part,
    {
        "inline": Part("one after the other, in the driver's process", _EXECUTORS + "inline:inline"),
        "processes": Part("worker processes on this machine", _EXECUTORS + "processes:processes"),
    },
)

_SCORES, _NETWORKS = (METRICS, MEASURES), (ENCODERS, ARCHITECTURES, INITIALISATIONS)
_TABLES = (*_SCORES, *_NETWORKS, ENCODINGS, WINDOWS, AUGMENTATIONS, LOSSES, EXECUTORS)
TABLES: Mapping[str, Table[Any]] = {table.concept: table for table in _TABLES}


def registered_modules() -> tuple[str, ...]:
    """The modules that have added rows: a worker process has to load them, too."""
    return tuple(sorted({module for table in TABLES.values() for module in table.added.values()}))
