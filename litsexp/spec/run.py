"""One arm's settings: everything that decides what a training run computes, fold and seed apart."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from litsexp.spec.base import Level, Strict
from litsexp.spec.catalog import (
    ARCHITECTURES,
    AUGMENTATIONS,
    ENCODERS,
    ENCODINGS,
    INITIALISATIONS,
    LOSSES,
    SCHEDULES,
    WINDOWS,
)
from litsexp.spec.keys import added
from litsexp.spec.tables import Table, UnknownName, one_of

IN_TABLES: Mapping[str, Table[Any]] = {  # settings that name a row
    "encoder": ENCODERS,
    "architecture": ARCHITECTURES,
    "init": INITIALISATIONS,
    "encoding": ENCODINGS,
    "window": WINDOWS,
    "augment": AUGMENTATIONS,
    "loss": LOSSES,
    "schedule": SCHEDULES,
}

LITE0 = "tf_efficientnet_lite0"
UNFROZEN: Mapping[str, object] = {"frozen_epochs": 0, "encoder_frozen": False}
OF_SOME_ARCHITECTURES: tuple[tuple[str, str, Mapping[str, object]], ...] = (  # what of a row lets a run set these
    ("encoder", "which is not built around an encoder", {"encoder": LITE0, "init": "scratch", **UNFROZEN}),
    ("shaped", "whose shape is its own", {"encoder_depth": None, "decoder_width": None}),
)


def known(table: Table[Any]) -> AfterValidator:
    """A setting's value has to be a name in this table, as it is when the study file is read."""

    def check(name: str) -> str:
        try:
            table.row_name(name)
        except UnknownName:
            raise ValueError(table.unknown(name)) from None
        return name

    return AfterValidator(check)


class RunConfig(Strict):
    """The settings of a run; each can be a factor of a study."""

    encoder: Annotated[str, known(ENCODERS)] = LITE0
    architecture: Annotated[str, known(ARCHITECTURES)] = added("dynamic_unet")
    encoder_depth: int | None = added(None, ge=1)  # of a unet: how often its encoder halves the image; default: all
    decoder_width: int | None = added(None, ge=8)  # of a unet: channels of its first decoder block; default: 256
    init: Annotated[str, known(INITIALISATIONS)] = "imagenet"
    ssl_steps: int = added(500, ge=1)  # of pretraining where init is ssl:..., as are the next two
    ssl_batch_size: int = added(16, ge=2)
    ssl_lr: float = added(1e-3, gt=0)  # its peak
    encoding: Annotated[str, known(ENCODINGS)] = added("hu")
    window: Annotated[str, known(WINDOWS)] = "notebook"
    augment: Annotated[str, known(AUGMENTATIONS)] = "paper"
    loss: Annotated[str, known(LOSSES)] = added("ce_dice")
    dice_weight: float = Field(0.5, ge=0, le=1)  # ce_dice = (1 - w) * CE + w * Dice
    dice_smooth: float = added(1.0, gt=0)  # pixels on both sides of Dice's fraction; near 0, what is absent counts not
    liver_weight: float = added(1.0, gt=0)  # of a liver pixel in the cross entropy; a background pixel's is 1
    tumor_weight: float = added(1.0, gt=0)  # of a tumor pixel
    focal_gamma: float = added(2.0, ge=0)  # how much less a pixel counts that is right already; 0: cross entropy
    tversky_beta: float = added(0.7, gt=0, lt=1)  # weight of missed tumor; 1 - beta: of false tumor; 0.5: Dice
    train_fraction: float = Field(1.0, gt=0, le=1)  # of the training patients, not of the steps
    split_unit: Literal["patient", "slice"] = added("patient")  # slice: a leak, made on purpose (data/rows.py)
    epochs: int = Field(6, ge=1)
    frozen_epochs: int = Field(0, ge=0)  # the first of the epochs, with the encoder's weights frozen
    encoder_frozen: bool = added(False)  # in every epoch, its BatchNorm statistics too
    patience: int = Field(0, ge=0)  # early stopping: epochs in all without a better validation score; 0 = never
    steps_per_epoch: int | None = Field(None, ge=1)  # default: as many batches as the whole training set gives
    batch_size: int = Field(16, ge=2)
    lr: Annotated[float, Field(gt=0)] | Literal["find"] = 1e-3  # the highest of the schedule
    schedule: Annotated[str, known(SCHEDULES)] = added("one_cycle")
    warmup: float = added(0.25, gt=0, lt=1)  # part of a phase's steps in which the learning rate rises
    clip_norm: float | None = added(None, gt=0)  # gradients are scaled down to this norm
    ema: float = added(0.0, ge=0, lt=1)  # decay a step of the averaged weights that are validated and kept; 0: none
    weight_decay: float = Field(0.1, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 autocast where it is faster
    channels_last: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.frozen_epochs > self.epochs:
            raise ValueError(
                f"frozen_epochs: found {self.frozen_epochs} with epochs = {self.epochs}; expected at most epochs"
            )
        return self

    @model_validator(mode="after")
    def _what_the_architecture_has(self) -> Self:
        row = ARCHITECTURES[self.architecture]
        for feature, why, settings in OF_SOME_ARCHITECTURES:
            for name, left_alone in {} if getattr(row, feature) else settings.items():
                if (found := getattr(self, name)) != left_alone:
                    having = one_of(other for other, its in ARCHITECTURES.items() if getattr(its, feature))
                    raise ValueError(
                        f"{name}: found {found} with architecture = {self.architecture}, {why}; expected "
                        f"{f'no {name}' if left_alone is None else f'{name}: {left_alone}'}, or architecture: {having}"
                    )
        return self

    @model_validator(mode="after")
    def _loss_has_its_term(self) -> Self:
        weighted = [name for name in ("liver_weight", "tumor_weight") if getattr(self, name) != 1]
        if self.loss not in ("ce_dice", "focal", "tversky"):
            return self  # what somebody's own loss makes of dice_weight is theirs
        if self.dice_weight == 1 and (self.loss == "focal" or weighted):
            name = weighted[0] if weighted else "loss"
            raise ValueError(
                f"{name}: found {getattr(self, name)} with dice_weight = 1, which leaves no cross entropy to change; "
                "expected a smaller dice_weight"
            )
        if self.dice_weight == 0 and self.loss == "tversky":
            raise ValueError(
                "loss: found tversky with dice_weight = 0, which leaves no overlap to change; "
                "expected a larger dice_weight"
            )
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if self.encoder_frozen and self.frozen_epochs:
            raise ValueError(
                f"frozen_epochs: found {self.frozen_epochs} with encoder_frozen, which freezes it in every epoch; "
                "expected one of the two"
            )
        if self.schedule == "fine_tune" and self.encoder_frozen:
            raise ValueError(
                "encoder_frozen: found true with schedule = fine_tune, which trains the encoder after its frozen "
                "epochs; expected another schedule"
            )
        if self.schedule == "fine_tune" and not 0 < self.frozen_epochs < self.epochs:
            raise ValueError(
                f"frozen_epochs: found {self.frozen_epochs} with schedule = fine_tune and epochs = {self.epochs}; "
                "expected at least 1 (the notebook's) and fewer than epochs"
            )
        return self

    def changed(self, levels: Mapping[str, Level]) -> Self:
        """These settings with some of them changed, and checked like any other; ValidationError names the setting."""
        return type(self).model_validate({**self.model_dump(), **levels})
