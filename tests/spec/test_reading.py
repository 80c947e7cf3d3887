"""Reading a study file: overrides, cohorts given on the command line, and what a mistake in it says."""

from pathlib import Path

import pytest

from litsexp.spec.errors import LitsexpError
from litsexp.spec.reading import load_study
from litsexp.spec.run import RunConfig


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
