"""Reading a study file: overrides, cohorts given on the command line, and what a mistake in it says."""

from pathlib import Path

import pytest

from litsexp.spec.errors import LitsexpError
from litsexp.spec.reading import load_study
from litsexp.spec.run import RunConfig

CLAIM = {"id": "window", "says": "It helps.", "factor": "window", "better": "liver", "than": "notebook"}


@pytest.fixture
def error_of(tmp_path):
    """What loading this text says, without the file's name; checked to be one line that opens with it."""

    def load(text, overrides=()):
        path = tmp_path / "study.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(LitsexpError) as caught:
            load_study(path, overrides)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith((f"{path}: ", "--set "))
        return message.removeprefix(f"{path}: ")

    return load


def test_a_study_file_with_overrides_and_data(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("question: Does it help?\nrun: {epochs: 3}\n", encoding="utf-8")
    its = load_study(path, ["run.epochs=4", "run.lr=1e-2", "seeds=[0, 1]", "split.folds=4"], Path("/ct"))
    assert (its.run.epochs, its.run.lr, its.seeds, its.split.folds) == (4, 0.01, (0, 1), 4)
    assert its.data.cohort == "/ct"
    assert its.run == RunConfig(epochs=4, lr=0.01)


@pytest.fixture
def external_of(tmp_path):
    """The external cohort of a study file with this line, its data and external cohort replaced by these folders."""

    def load(line, data=None, external=None):
        path = tmp_path / "study.yaml"
        path.write_text(f"question: Does it help?\n{line}\n", encoding="utf-8")
        its = load_study(path, (), data and Path(data), external and Path(external))
        return its.external and (its.external.cohort, its.data.cohort)

    return load


def test_data_of_a_folder_leaves_out_a_phantom_external_cohort_and_no_other(external_of):
    assert external_of("external: {seed: 3}") == ("phantom", "phantom")
    assert external_of("external: {seed: 3}", data="/ct") is None
    assert external_of("external: {}", data="/ct") is None
    assert external_of("external:", data="/ct") is None
    assert external_of("external: {cohort: /b}", data="/ct") == ("/b", "/ct")


def test_an_external_folder_replaces_the_files_external_cohort(external_of):
    for line in ("", "external: {seed: 3}", "external: {cohort: /other}"):
        assert external_of(line, external="/b") == ("/b", "phantom")
        assert external_of(line, data="/ct", external="/b") == ("/b", "/ct")


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


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("question: q\nrun: {epochs: 3}\nrun: {epochs: 4}\n", ["not valid YAML", "key 'run' stands twice"]),
        ("question: q\nrun: {epochs: 3, epochs: 4}\n", ["key 'epochs' stands twice", "line 2"]),
        (
            "question: q\nrun:\n  epochs: 3\n  lr: 1\n  epochs: 4\n",
            ["not valid YAML: line 5: key 'epochs' stands twice"],
        ),
        ("question: [\n", ["not valid YAML: line 2: "]),
        ("question: 2024-13-45\n", ["not valid YAML: month must be"]),
        ("question: \x07\n", ["not valid YAML: special characters"]),
        ("# nothing\n", ["the file is empty; expected keys such as question, run, factors"]),
        ("1: 2\nquestion: q\n", ["1: unknown key"]),
        ("- question\n", ["found a list at the top level"]),
        ("", ["the file is empty"]),
        ("run: {}\n", ["question", "missing"]),
        ("question: ''\n", ["question", "found ''"]),
    ],
)
def test_a_file_that_is_no_study_is_named(error_of, text, parts):
    message = error_of(text)
    assert all(part in message for part in parts), message
    assert "unicode string" not in message
    assert "^" not in message


def test_merge_keys_copy_a_claim(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(
        "question: q\nfactors: {window: [liver, wide]}\nclaims:\n"
        "  - &first {id: a, says: It helps., factor: window, better: liver, than: notebook}\n"
        "  - &second {<<: *first, id: b, better: wide}\n"
        "  - {<<: *second, id: c, metric: dice_liver}\n",
        encoding="utf-8",
    )
    its = load_study(path).claims
    assert [(claim.id, claim.better, claim.metric) for claim in its] == [
        ("a", "liver", "dice_tumor"),
        ("b", "wide", "dice_tumor"),
        ("c", "wide", "dice_liver"),
    ]


def test_an_empty_section_takes_overrides(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("question: q\nrun:\ndata:\n", encoding="utf-8")
    its = load_study(path, ["run.epochs=3"], Path("/ct"))
    assert (its.run.epochs, its.data.cohort) == (3, "/ct")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(LitsexpError, match=r"none.yaml: cannot be read \(No such file or directory\)"):
        load_study(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LitsexpError, match=r"binary.yaml: not valid YAML"):
        load_study(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("run.epochs", ["--set run.epochs:", "expected KEY=VALUE"]),
        ("=3", ["--set =3:", "expected KEY=VALUE"]),
        (".=3", ["--set .=3: expected KEY=VALUE"]),
        ("run..x=3", ["--set run..x=3: expected KEY=VALUE"]),
        ("run={lr: 1, lr: 2}", ["--set run={lr: 1, lr: 2}:", "key 'lr' stands twice"]),
        ("run.epochs=", ["run.epochs: found nothing; expected a whole number"]),
        ("run.epochs=[", ["--set run.epochs=[:", "not valid YAML"]),
        ("question.x=1", ["--set question.x=1:", "found a value at 'question'", "expected a section"]),
        ("run.epoch=3", ["run.epoch", "did you mean 'epochs'?"]),
        ("run.epochs=many", ["run.epochs", "found 'many'"]),
        ("run=3", ["run", "found 3"]),
    ],
)
def test_a_misused_override_is_named(error_of, override, parts):
    message = error_of("question: q\n", [override])
    assert all(part in message for part in parts), message


def test_the_unit_of_the_split_on_the_command_line(tmp_path, error_of):
    path = tmp_path / "study.yaml"
    path.write_text("question: Does it help?\n", encoding="utf-8")
    assert load_study(path, ["split.unit=slice"]).run.split_unit == "slice"
    assert error_of("question: x", ["split.unit=lung"]) == "split.unit: found 'lung'; expected 'patient' or 'slice'"
    wrong = "split: {folds: 1, unit: slice}"
    assert error_of(f"question: x\n{wrong}") == "split.folds: found 1; expected at least 2"
