"""The study file: arms, cells, identity of a run, and what a mistake in it says."""

import itertools
from pathlib import Path

import pytest

from litsexp.config import Arm, Cell, Claim, Fingerprints, StudyConfig, arms, cells, contexts, differing_fields
from litsexp.settings import CohortConfig, DataConfig, LitsexpError, RunConfig, SplitConfig
from litsexp.studyfile import load_study

# another valid value of every setting; a setting that is added to RunConfig has to be added here
OTHER = {
    "encoder": "resnet18",
    "init": "scratch",
    "window": "liver",
    "dice_weight": 0.0,
    "augment": "none",
    "train_fraction": 0.25,
    "epochs": 7,
    "frozen_epochs": 1,
    "patience": 3,
    "steps_per_epoch": 5,
    "batch_size": 8,
    "lr": "find",
    "weight_decay": 0.01,
    "precision": "fp32",
    "channels_last": False,
}
SPLIT = SplitConfig(folds=3)
ABC = Fingerprints("abc")
CLAIM = {"id": "window", "says": "It helps.", "factor": "window", "better": "liver", "than": "notebook"}
FACTORS = {"init": ["scratch"], "window": ["liver", "wide"], "dice_weight": [0.0]}


def study(**sections):
    return StudyConfig.model_validate({"question": "Does it help?", **sections})


def factorial(**sections):
    return study(
        design="factorial", factors={"init": ["imagenet", "scratch"], "window": ["notebook", "liver"]}, **sections
    )


def run_key(fold=0, seed=0, split=SPLIT, fingerprint="abc", external=None, **settings):
    return Cell(Arm("any", RunConfig(**settings)), fold, seed).run_key(split, Fingerprints(fingerprint, external))


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


# arms and cells


def test_an_ablation_is_the_baseline_and_one_change_at_a_time():
    its = arms(study(factors=FACTORS))
    assert [arm.name for arm in its] == ["baseline", "init=scratch", "window=liver", "window=wide", "dice_weight=0"]
    assert its[0].run == RunConfig()
    for arm in its[1:]:
        assert differing_fields(its[0].run, arm.run) == {arm.name.split("=")[0]}


@pytest.mark.parametrize("factor", RunConfig.model_fields)
def test_every_setting_can_be_a_factor_and_changes_nothing_else(factor):
    baseline, arm = arms(study(factors={factor: [OTHER[factor]]}))
    assert differing_fields(baseline.run, arm.run) == {factor}


def test_a_factorial_is_every_combination():
    its = arms(factorial())
    assert [arm.name for arm in its] == [
        "init=imagenet, window=notebook",
        "init=imagenet, window=liver",
        "init=scratch, window=notebook",
        "init=scratch, window=liver",
    ]
    assert its[0].run == RunConfig()
    assert len({arm.run for arm in its}) == 4


def test_designs_without_factors_have_the_baseline_only():
    for design in ("ablation", "factorial"):
        assert arms(study(design=design)) == [Arm("baseline", RunConfig())]
    search = study(design="search", search={"trials": 3}, factors={"window": ["liver", "wide"]})
    assert arms(search) == [Arm("baseline", RunConfig())]


def test_cells_finish_a_fold_with_all_arms_before_the_next():
    its = cells(study(split={"folds": 3}, seeds=[4, 2], factors={"window": ["liver"]}))
    assert len(its) == 2 * 3 * 2
    expected = itertools.product([4, 2], [0, 1, 2], ["baseline", "window=liver"])
    assert [(cell.seed, cell.fold, cell.arm.name) for cell in its] == list(expected)
    assert its[0].name == "baseline · fold 0 · seed 4"


def test_a_holdout_has_one_fold():
    split = {"train": 0.7, "valid": 0.15, "test": 0.15}
    assert [cell.fold for cell in cells(study(split=split))] == [0]


def test_no_two_cells_of_a_study_have_one_key():
    its = cells(factorial(seeds=[0, 1]))
    assert len({cell.run_key(SPLIT, ABC) for cell in its}) == len(its) == 24


def test_levels_become_the_settings_they_set():
    claim = {**CLAIM, "factor": "lr", "better": "1e-4", "than": 0.001, "where": {"dice_weight": "0"}}
    its = study(design="factorial", factors={"lr": ["1e-4", "0.001", "find"], "dice_weight": [0]}, claims=[claim])
    assert its.factors == {"lr": (1e-4, 1e-3, "find"), "dice_weight": (0.0,)}
    assert [type(level) for level in its.factors["dice_weight"]] == [float]
    assert (its.claims[0].better, its.claims[0].than, its.claims[0].where) == (1e-4, 1e-3, {"dice_weight": 0.0})
    assert [(a.run.lr, b.run.lr) for a, b in contexts(its, its.claims[0])] == [(1e-4, 1e-3)]


def test_levels_that_look_alike_are_named_in_full():
    files = ["a/x.safetensors", "b/x.safetensors", "c/y.safetensors"]
    names = [arm.name for arm in arms(study(factors={"init": files}))]
    assert names == ["baseline", "init=a/x.safetensors", "init=b/x.safetensors", "init=y.safetensors"]
    rates = [0.00012345671, 0.00012345672]
    names = [arm.name for arm in arms(study(factors={"lr": rates}, run={"init": "a/x.safetensors"}))]
    assert names == ["baseline", "lr=0.00012345671", "lr=0.00012345672"]
    beside_baseline = study(factors={"init": ["b/x.safetensors"]}, run={"init": "a/x.safetensors"})
    assert arms(beside_baseline)[1].name == "init=b/x.safetensors"


# identity of a run


def test_the_list_of_other_values_is_complete():
    assert set(OTHER) == set(RunConfig.model_fields)
    assert differing_fields(RunConfig(), RunConfig(**OTHER)) == set(RunConfig.model_fields)


@pytest.mark.parametrize("field", RunConfig.model_fields)
def test_run_key_changes_with_every_setting(field):
    assert run_key(**{field: OTHER[field]}) != run_key()


@pytest.mark.parametrize(
    "other",
    [
        {"fold": 1},
        {"seed": 1},
        {"fingerprint": "abd"},
        {"external": "abd"},
        {"split": SplitConfig(folds=4)},
        {"split": SplitConfig(folds=3, valid=0.25)},
        {"split": SplitConfig(folds=3, seed=1)},
        {"split": SplitConfig(train=0.6, valid=0.2, test=0.2)},
    ],
    ids=str,
)
def test_run_key_changes_with_fold_seed_split_and_data(other):
    assert run_key(**other) != run_key()


def test_run_key_without_an_external_cohort_is_what_it_was_before_there_were_any():
    """Finished runs of earlier studies stay valid. Another default in RunConfig does change it, and has to."""
    assert run_key() == "767878daa0103ea5"


def test_a_cohorts_description_is_no_part_of_run_key():
    """The stored slices are, by their fingerprint."""
    plain, other = (cells(study(data=data))[0] for data in ({}, {"patients": 4, "site": "B", "lesions": "large"}))
    assert plain.run_key(SPLIT, ABC) == other.run_key(SPLIT, ABC)


def test_run_key_does_not_depend_on_what_is_asked():
    plain = study(factors=FACTORS)
    asked = study(question="Another?", claims=[CLAIM], factors={**FACTORS, "augment": ["none"]}, seeds=[0, 1])
    keys = {cell.run_key(SPLIT, ABC) for cell in cells(asked)}
    assert {cell.run_key(SPLIT, ABC) for cell in cells(plain)} < keys


def test_run_key_is_16_hex_digits_and_blind_to_how_a_number_is_written():
    assert len(run_key()) == 16
    assert int(run_key(), 16) >= 0
    assert run_key(dice_weight=1, weight_decay=0) == run_key(dice_weight=1.0, weight_decay=0.0)
    assert run_key() == run_key()


def test_a_weights_file_counts_by_its_bytes(tmp_path):
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for file, content in zip(files, (b"same", b"same", b"other"), strict=True):
        file.write_bytes(content)
    a, b, c = (run_key(init=str(file)) for file in files)
    assert a == b != c
    with pytest.raises(LitsexpError, match=r"gone.safetensors: cannot be read \(No such file"):
        run_key(init=str(tmp_path / "gone.safetensors"))


# claims


def test_contexts_of_an_ablation_are_one_pair():
    its = study(factors=FACTORS, claims=[CLAIM])
    assert [(a.name, b.name) for a, b in contexts(its, its.claims[0])] == [("window=liver", "baseline")]
    between = Claim(**{**CLAIM, "better": "liver", "than": "wide"})
    assert [(a.name, b.name) for a, b in contexts(its, between)] == [("window=liver", "window=wide")]


def test_contexts_of_a_factorial_are_one_pair_a_setting_of_the_rest():
    its = factorial()
    everywhere, scratch = Claim(**CLAIM), Claim(**CLAIM, where={"init": "scratch"})
    pairs = contexts(its, everywhere)
    assert len(pairs) == 2
    assert all(differing_fields(a.run, b.run) == {"window"} for a, b in pairs)
    assert [(a.name, b.name) for a, b in contexts(its, scratch)] == [
        ("init=scratch, window=liver", "init=scratch, window=notebook")
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("says", "It hurts."),
        ("margin", 0.03),
        ("than", "wide"),
        ("metric", "dice_liver"),
        ("where", {"init": "scratch"}),
    ],
)
def test_a_claims_digest_changes_with_it(field, value):
    assert Claim(**{**CLAIM, field: value}).digest != Claim(**CLAIM).digest == Claim(**CLAIM).digest


# reading a study file


def test_a_study_file_with_overrides_and_data(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("question: Does it help?\nrun: {epochs: 3}\n", encoding="utf-8")
    its = load_study(path, ["run.epochs=4", "run.lr=1e-2", "seeds=[0, 1]", "split.folds=4"], Path("/ct"))
    assert (its.run.epochs, its.run.lr, its.seeds, its.split.folds) == (4, 0.01, (0, 1), 4)
    assert its.data.cohort == "/ct"
    assert its.run == RunConfig(epochs=4, lr=0.01)


def test_the_external_cohort_is_stored_as_the_data_are():
    its = study(data={"size": 96, "slices": "all"}, external={"patients": 5, "lesions": "large"})
    expected = DataConfig(patients=5, seed=1, site="B", lesions="large", size=96, slices="all")
    assert its.external_data == expected
    assert study().external_data is None


@pytest.mark.parametrize(
    ("ours", "theirs", "shared"),
    [
        ({}, {"patients": 3, "lesions": "large"}, True),
        ({}, {"seed": 1}, False),
        ({}, {"site": "B"}, False),  # another site's patients are others, whatever the seed
        ({}, {"cohort": "ct"}, False),
        ({"cohort": "ct"}, {"cohort": "./ct", "seed": 4}, True),
        ({"cohort": "ct"}, {"cohort": "ct/site-b"}, True),
        ({"cohort": "ct/site-b"}, {"cohort": "ct"}, True),
        ({"cohort": "ct"}, {"cohort": "ct-b"}, False),
    ],
    ids=str,
)
def test_cohorts_that_may_share_patients(ours, theirs, shared):
    assert CohortConfig(**ours).overlaps(CohortConfig(**theirs)) == shared


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
        ("run: {zzz: 1}", ["run.zzz", "unknown key", "expected one of encoder, init"]),
        ("run: {encoder: resnet5}", ["run.encoder", "found 'resnet5'", "'resnet18'"]),
        ("run: {init: imagnet}", ["run.init", "found 'imagnet'", "safetensors"]),
        ("run: {lr: fast}", ["run.lr", "found 'fast'; expected a number or 'find'"]),
        ("run: {lr: -1}", ["run.lr: found -1; expected more than 0 or 'find'"]),
        ("run: {epochs: 2.5}", ["run.epochs", "found 2.5", "whole number"]),
        ("run: {weight_decay: .nan}", ["run.weight_decay", "found nan", "finite"]),
        ("run: {epochs: 2, frozen_epochs: 3}", ["run: frozen_epochs: found 3 with epochs = 2", "at most"]),
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
        ("factors: {init: [random]}", ["factors.init", "found 'random'", "expected scratch, imagenet"]),
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
