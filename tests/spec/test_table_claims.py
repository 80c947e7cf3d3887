"""A claims file: what it says, and what a mistake in it says."""

import pytest
import yaml

from litsexp.spec.errors import LitsexpError
from litsexp.spec.reading import as_claims, load_claims
from litsexp.spec.table_claims import Column

CLAIM = {"id": "da5", "says": "DA5 helps.", "metric": "assd", "better": "DA5", "than": "plain", "margin": 0.5}


def test_a_claims_file(tmp_path):
    file = tmp_path / "claims.yaml"
    content = {"claims": [CLAIM], "metrics": {"assd": {"unit": "mm", "higher_is_better": False}}, "kind": "phantom"}
    file.write_text(yaml.safe_dump(content | {"arms": {"plain": ["a", "b"]}}))
    its = load_claims(file)
    assert (its.claims[0].better, its.claims[0].margin, its.claims[0].where) == ("DA5", 0.5, {})
    assert its.metrics["assd"] == Column(words="", unit="mm", higher_is_better=False)
    assert (its.arms, its.kind) == ({"plain": ("a", "b")}, "phantom")


def test_arms_that_yaml_reads_as_numbers_are_names():
    its = as_claims({"claims": [CLAIM | {"better": 2, "than": 1}]})
    assert (its.claims[0].better, its.claims[0].than) == ("2", "1")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"margn": 1}, "claims.0.margn: unknown key; did you mean 'margin'?"),
        ({"margin": "much"}, "claims.0.margin: found 'much'; expected a number"),
        ({"margin": -1}, "claims.0.margin: found -1; expected at least 0"),
        ({"better": True}, "claims.0.better: found True; expected a name, as text"),
        ({"better": "plain"}, "claims.0.than: found 'plain', as in better; expected another arm"),
        ({"factor": "init"}, "claims.0.factor: found 'init'; expected no factor: a table's claims name two arms"),
        ({"where": {"init": "scratch"}}, "claims.0.where: found {'init': 'scratch'}; expected nothing: a table's"),
        ({"id": "Da 5"}, "claims.0.id: found 'Da 5'; expected a short name of a-z, 0-9, - and _"),
    ],
)
def test_a_mistake_in_a_claim_is_one_line(changes, said):
    with pytest.raises(LitsexpError) as caught:
        as_claims({"claims": [CLAIM | changes]}, "claims.yaml")
    assert str(caught.value).startswith(f"claims.yaml: {said}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "claims: missing; expected a value"),
        ({"claims": []}, "claims: found []; expected at least one"),
        ({"claims": [{k: v for k, v in CLAIM.items() if k != "margin"}]}, "claims.0.margin: missing; expected a value"),
        ({"claims": [CLAIM, CLAIM]}, "claims: found the id 'da5' twice; expected one of its own for each"),
        ({"claims": [CLAIM], "arms": {"a": ["x"], "b": ["x"]}}, "arms: found 'x' twice; expected it in one arm, once"),
        ({"claims": [CLAIM], "arms": {"a": "x"}}, "arms.a: found 'x'; expected a list, for example [x]"),
        ({"claims": [CLAIM], "metrics": {"assd": {"units": "mm"}}}, "metrics.assd.units: unknown key; did you mean"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(content, said):
    with pytest.raises(LitsexpError) as caught:
        as_claims(content, "claims.yaml")
    assert str(caught.value).startswith(f"claims.yaml: {said}")


def test_a_file_that_is_no_mapping(tmp_path):
    file = tmp_path / "claims.yaml"
    file.write_text("- id: da5\n")
    with pytest.raises(LitsexpError, match=r"found a list at the top level; expected keys such as claims, metrics"):
        load_claims(file)
    with pytest.raises(LitsexpError, match=r"no\.yaml: cannot be read .*; expected a claims file \(YAML\)"):
        load_claims(tmp_path / "no.yaml")
