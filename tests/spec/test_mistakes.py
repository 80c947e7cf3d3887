"""What a mistake in a study file says: where it is, what was found, what was expected."""

import pytest

CLAIM = {"id": "window", "says": "It helps.", "factor": "window", "better": "liver", "than": "notebook"}


def with_claim(**changes):
    claim = {**CLAIM, **changes}
    body = ", ".join(f"{key}: {value}" for key, value in claim.items() if value is not None)
    return f"factors: {{window: [liver], init: [scratch]}}\nclaims: [{{{body}}}]"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("runs: {}", ["runs", "unknown key", "did you mean 'run'?"]),
        ("run: {encodr: resnet18}", ["run.encodr", "unknown key", "did you mean 'encoder'?"]),
        ("run: {zzz: 1}", ["run.zzz", "unknown key", "expected one of encoder, architecture"]),
        ("run: {encoder: resnet5}", ["run.encoder", "found 'resnet5'", "resnet18"]),
        ("run: {init: imagnet}", ["run.init", "found 'imagnet'", "file:PATH", "did you mean 'imagenet'?"]),
        ("run: {init: x.safetensors}", ["run.init", "did you mean 'file:x.safetensors'?"]),
        ("run: {lr: fast}", ["run.lr", "found 'fast'; expected a number or 'find'"]),
        ("run: {lr: -1}", ["run.lr: found -1; expected more than 0 or 'find'"]),
        ("run: {epochs: 2.5}", ["run.epochs", "found 2.5", "whole number"]),
        ("run: {weight_decay: .nan}", ["run.weight_decay", "found nan", "finite"]),
        ("run: {epochs: 2, frozen_epochs: 3}", ["run: frozen_epochs: found 3 with epochs = 2", "at most"]),
        ("run: {focal_gamma: 1}", ["run.focal_gamma: found 1.0 with loss = ce_dice", "expected loss: one of focal"]),
        ("run: {loss: focal, tversky_beta: 0.9}", ["run.tversky_beta: found 0.9 with loss = focal", "tversky"]),
        ("run: {tversky_beta: 1}", ["run.tversky_beta: found 1"]),
        ("run: {loss: focal, dice_weight: 1}", ["run: loss: found focal with dice_weight = 1", "smaller"]),
        ("run: {loss: tversky, dice_weight: 0}", ["run: loss: found tversky with dice_weight = 0", "larger"]),
        ("run: {tumor_weight: 3, dice_weight: 1}", ["run: tumor_weight: found 3.0 with dice_weight = 1"]),
        ("run: {tumor_weight: 0}", ["run.tumor_weight: found 0; expected more than 0"]),
        ("run: {schedule: finetune}", ["run.schedule: found 'finetune'", "did you mean 'fine_tune'?"]),
        ("run: {schedule: fine_tune}", ["run: frozen_epochs: found 0 with schedule = fine_tune", "at least 1"]),
        (
            "run: {schedule: fine_tune, epochs: 3, frozen_epochs: 3}",
            ["run: frozen_epochs: found 3 with schedule = fine_tune and epochs = 3", "fewer than epochs"],
        ),
        (
            "run: {schedule: fine_tune, frozen_epochs: 1, warmup: 0.1}",
            ["run.warmup: found 0.1 with schedule = fine_tune", "one_cycle, constant"],
        ),
        ("run: {encoder_frozen: true, frozen_epochs: 1}", ["run: frozen_epochs: found 1 with encoder_frozen"]),
        ("run: {encoder_frozen: true, schedule: fine_tune}", ["run: encoder_frozen: found true with schedule"]),
        ("run: [1]", ["run", "found [1]"]),
        ("run: {lr: true}", ["run.lr: found True; expected a number"]),
        ("run: {epochs: true}", ["run.epochs: found True; expected a number"]),
        ("run: {dice_weight: yes}", ["run.dice_weight: found True; expected a number"]),
        ("run: {steps_per_epoch: 0}", ["run.steps_per_epoch: found 0; expected at least 1"]),
        ("run: {channels_last: [1]}", ["run.channels_last: found [1]; expected true or false"]),
        ("run: 3", ["run: found 3; expected keys such as epochs, lr"]),
        ("run:", ["run: found nothing; expected keys such as epochs, lr"]),
        ("run: {1: 2}", ["run.1: unknown key"]),
        ("data: 3", ["data: found 3; expected keys such as cohort, patients"]),
        ("data: {cohort: ''}", ["data.cohort: found ''; expected phantom, or a directory"]),
        ("data: {size: 65}", ["data.size", "found 65", "multiple of 32"]),
        ("data: {slice: all}", ["data.slice", "did you mean 'slices'?"]),
        ("external: 3", ["external: found 3; expected keys such as cohort, patients"]),
        ("external: {site: C}", ["external.site: found 'C'; expected 'A' or 'B'"]),
        ("external: {size: 64}", ["external.size: unknown key"]),
        ("external: {seed: 0, site: A}", ["external: found a phantom of seed 0, site A", "expected another cohort"]),
        ("data: {cohort: /ct}\nexternal: {cohort: /ct/b}", ["external: found '/ct/b'", "expected another cohort"]),
        ("data: {lesions: small}", ["data.lesions: found 'small'; expected 'lits' or 'large'"]),
        ("design: abltion", ["design", "found 'abltion'", "'ablation'"]),
        ("seeds: []", ["seeds: found []; expected at least one"]),
        ("seeds: 0", ["seeds: found 0; expected a list, for example [0]"]),
        ("seeds: [x]", ["seeds.0: found 'x'; expected a whole number"]),
        ("seeds: [true]", ["seeds.0: found True; expected a whole number"]),
        ("seeds: [1, 1]", ["seeds", "[1, 1]", "once"]),
        ("split: {folds: 3, train: 0.7}", ["split", "folds together with train/test"]),
        ("split: {train: 0.7, valid: 0.15}", ["split", "expected folds"]),
        ("split: {train: 0.7, valid: 0.2, test: 0.2}", ["split", "1.1", "expected 1"]),
        ("split: {folds: 1}", ["split.folds", "found 1"]),
    ],
)
def test_a_mistake_in_a_section_is_named(error_of, text, parts):
    message = error_of(f"question: q\n{text}\n")
    assert message.startswith(parts[0])
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("factors: {inti: [scratch]}", ["factors.inti", "unknown key", "did you mean 'init'?"]),
        ("factors: {window: [livr]}", ["factors.window", "found 'livr'", "'liver'"]),
        ("factors: {init: [random]}", ["factors.init", "found 'random'", "expected one of scratch, imagenet"]),
        ("factors: {dice_weight: [2]}", ["factors.dice_weight", "found 2"]),
        ("factors: {lr: [fast]}", ["factors.lr", "found 'fast'"]),
        ("factors: {lr: [fast]}", ["factors.lr: found 'fast'; expected a number or 'find'"]),
        ("factors: {epochs: [true]}", ["factors.epochs: found True; expected a number"]),
        ("factors: {window: []}", ["factors.window", "found []"]),
        ("factors: {window: liver}", ["factors.window: found 'liver'; expected a list, for example [liver]"]),
        ("factors: {window: [[1]]}", ["factors.window.0: found [1]; expected true or false, a whole number"]),
        ("factors: {dice_weight: [0.0, '0']}", ["factors.dice_weight: found [0.0, 0.0]", "each level once"]),
        ("factors: {lr: [1e-3]}", ["factors.lr: found 0.001, the baseline's own level"]),
        (
            "design: factorial\nfactors: {epochs: [6, 2], frozen_epochs: [0, 3]}",
            ["frozen_epochs: found 3 with epochs = 2"],
        ),
        ("factors: {focal_gamma: [1]}", ["factors.focal_gamma: found [1.0] with loss = ce_dice", "focal"]),
        (
            "design: factorial\nfactors: {loss: [focal, ce_dice], focal_gamma: [1, 2]}",
            ["factors.focal_gamma: found [1.0, 2.0] with loss = ce_dice"],
        ),
        (
            "design: search\nsearch: {trials: 3}\nfactors: {loss: [ce_dice, focal], dice_weight: [0, 1]}",
            ["loss: found focal with dice_weight = 1"],
        ),
        ("search: 3", ["search: found 3; expected keys such as trials, lr"]),
        ("design: search\nsearch: {lr: [1]}", ["search.lr: found [1]; expected [low, high]"]),
        ("factors: {window: [liver, liver]}", ["factors.window: found ['liver', 'liver']", "each level once"]),
        ("factors: {window: [notebook]}", ["factors.window", "'notebook', the baseline's own level"]),
        ("factors: {frozen_epochs: [9]}", ["factors: frozen_epochs: found 9 with epochs = 6", "at most"]),
        ("search: {trials: 3}", ["search: found with design: ablation", "expected design: search"]),
        ("design: search", ["search: missing; expected with design: search"]),
        ("design: search\nsearch: {lr: [0.1, 0.01]}", ["search.lr: found [0.1, 0.01]", "low < high"]),
        (
            f"design: search\nsearch: {{trials: 3}}\n{with_claim()}",
            ["claims: found with design: search", "cannot test claims"],
        ),
    ],
)
def test_a_mistake_in_the_design_is_named(error_of, text, parts):
    message = error_of(f"question: q\n{text}\n")
    assert message.startswith(parts[0])
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"factor": "augment"}, ["claims.window", "'augment', which is not varied", "expected one of window, init"]),
        ({"better": "livr"}, ["claims.window", "found window = 'livr'", "['notebook', 'liver']"]),
        ({"than": "liver"}, ["claims.window", "both 'liver'"]),
        ({"than": None}, ["claims.0.than", "missing"]),
        ({"metric": "dice_tumour"}, ["claims.0.metric", "found 'dice_tumour'", "dice_tumor"]),
        ({"margn": 0.1}, ["claims.0.margn", "unknown key", "did you mean 'margin'?"]),
        ({"id": "Not an id"}, ["claims.0.id: found 'Not an id'; expected a short name of a-z"]),
        ({"better": "{}"}, ["claims.0.better: found {}; expected true or false, a whole number, a number or text"]),
        ({"margin": "true"}, ["claims.0.margin: found True; expected a number"]),
        ({"where": 3}, ["claims.0.where: found 3; expected keys such as"]),
        ({"where": "{window: liver}"}, ["claims.window", "the factor under test"]),
        ({"where": "{augment: none}"}, ["claims.window", "'augment', which is not varied"]),
        ({"where": "{init: scratch}"}, ["claims.window", "no two arms differ only in window"]),
    ],
)
def test_a_mistake_in_a_claim_is_named(error_of, changes, parts):
    message = error_of(f"question: q\n{with_claim(**changes)}\n")
    assert message.startswith(parts[0])
    assert all(part in message for part in parts), message


def test_a_claim_needs_factors(error_of):
    claims = "question: q\nclaims: [{id: a, says: s, factor: window, better: liver, than: wide}]"
    assert error_of(claims) == "claims.a: found factor 'window', which is not varied; this design has no factors"


@pytest.mark.parametrize("value", ["3", "{id: a}"])
def test_claims_are_a_list(error_of, value):
    assert error_of(f"question: q\nclaims: {value}").endswith("; expected a list")


def test_claims_have_ids_of_their_own(error_of):
    text = "question: q\nfactors: {window: [liver]}\nclaims:\n"
    one = "  - {id: same, says: s, factor: window, better: liver, than: notebook}\n"
    assert "['same', 'same']; expected each id once" in error_of(text + one + one)
