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
    WINDOWS,
)
from litsexp.spec.keys import added
from litsexp.spec.tables import Table, UnknownName

IN_TABLES: Mapping[str, Table[Any]] = {  # settings that name a row
    "encoder": ENCODERS,
    "architecture": ARCHITECTURES,
    "init": INITIALISATIONS,
    "encoding": ENCODINGS,
    "window": WINDOWS,
    "augment": AUGMENTATIONS,
    "loss": LOSSES,
}


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

    encoder: Annotated[str, known(ENCODERS)] = "tf_efficientnet_lite0"
    architecture: Annotated[str, known(ARCHITECTURES)] = added("dynamic_unet")
    encoder_depth: int | None = added(None, ge=1)  # of a unet: how often its encoder halves the image; default: all
    decoder_width: int | None = added(None, ge=8)  # of a unet: channels of its first decoder block; default: 256
    init: Annotated[str, known(INITIALISATIONS)] = "imagenet"
    encoding: Annotated[str, known(ENCODINGS)] = added("hu")
    window: Annotated[str, known(WINDOWS)] = "notebook"
    augment: Annotated[str, known(AUGMENTATIONS)] = "paper"
    loss: Annotated[str, known(LOSSES)] = added("ce_dice")
    dice_weight: float = Field(0.5, ge=0, le=1)  # ce_dice = (1 - w) * CE + w * Dice
    train_fraction: float = Field(1.0, gt=0, le=1)  # of the training patients, not of the steps
    split_unit: Literal["patient", "slice"] = added("patient")  # slice: a leak, made on purpose (data/rows.py)
    epochs: int = Field(6, ge=1)
    frozen_epochs: int = Field(0, ge=0)  # the first of the epochs, with the encoder's weights frozen
    patience: int = Field(0, ge=0)  # early stopping: epochs without a better validation score; 0 = never
    steps_per_epoch: int | None = Field(None, ge=1)  # default: as many batches as the whole training set gives
    batch_size: int = Field(16, ge=2)
    lr: Annotated[float, Field(gt=0)] | Literal["find"] = 1e-3  # peak of the one-cycle schedule
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
        for name in ("encoder_depth", "decoder_width"):
            if (found := getattr(self, name)) is not None and self.architecture == "dynamic_unet":
                raise ValueError(
                    f"{name}: found {found} with architecture = dynamic_unet, which takes its shape from its encoder; "
                    f"expected architecture: unet, or no {name}"
                )
        return self

    def changed(self, levels: Mapping[str, Level]) -> Self:
        """These settings with some of them changed, and checked like any other; ValidationError names the setting."""
        return type(self).model_validate({**self.model_dump(), **levels})
