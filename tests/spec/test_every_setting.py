"""Every setting of a run: it can be a factor, alone, and it counts in the run's key."""

import pytest

from litsexp.spec.catalog import ARCHITECTURES, ENCODINGS, LOSSES
from litsexp.spec.design import arms, differing_fields
from litsexp.spec.run import RunConfig

from .test_study import run_key, study

# another valid value of every setting; a setting that is added to RunConfig has to be added here
OTHER = {
    "encoder": "resnet18",
    "init": "scratch",
    "window": "liver",
    "dice_weight": 0.0,
    "augment": "none",
    "architecture": "unet",
    "ssl_steps": 90,
    "ssl_batch_size": 8,
    "ssl_lr": 0.01,
    "encoder_depth": 4,
    "decoder_width": 64,
    "encoding": "another",
    "loss": "another",
    "liver_weight": 2.0,
    "tumor_weight": 5.0,
    "dice_smooth": 1e-5,
    "focal_gamma": 1.0,
    "tversky_beta": 0.9,
    "train_fraction": 0.25,
    "split_unit": "slice",
    "epochs": 7,
    "frozen_epochs": 1,
    "encoder_frozen": True,
    "patience": 3,
    "steps_per_epoch": 5,
    "batch_size": 8,
    "lr": "find",
    "schedule": "constant",
    "warmup": 0.4,
    "clip_norm": 1.0,
    "ema": 0.9,
    "weight_decay": 0.01,
    "precision": "fp32",
    "channels_last": False,
}


UNET = {"architecture": "unet"}


SSL = {"init": "ssl:masked"}


NEEDS = {  # settings that another has to allow
    **{"encoder_depth": UNET, "decoder_width": UNET},
    **{"ssl_steps": SSL, "ssl_batch_size": SSL, "ssl_lr": SSL},
    **{"focal_gamma": {"loss": "focal"}, "tversky_beta": {"loss": "tversky"}},
}


@pytest.fixture
def another(monkeypatch):
    """A second row for settings that have only one."""
    for table in (ARCHITECTURES, ENCODINGS, LOSSES):
        monkeypatch.setitem(table, "another", next(iter(table.values())))


@pytest.mark.usefixtures("another")
@pytest.mark.parametrize("factor", RunConfig.model_fields)
def test_every_setting_can_be_a_factor_and_changes_nothing_else(factor):
    baseline, arm = arms(study(factors={factor: [OTHER[factor]]}, run=NEEDS.get(factor, {})))
    assert differing_fields(baseline.run, arm.run) == {factor}


@pytest.mark.usefixtures("another")
def test_the_list_of_other_values_is_complete():
    assert set(OTHER) == set(RunConfig.model_fields)
    assert {name for name, value in OTHER.items() if getattr(RunConfig(), name) != value} == set(OTHER)


@pytest.mark.usefixtures("another")
@pytest.mark.parametrize("field", RunConfig.model_fields)
def test_run_key_changes_with_every_setting(field):
    needs = NEEDS.get(field, {})
    assert run_key(**needs, **{field: OTHER[field]}) != run_key(**needs)
