"""How runs are paired, and what is said to differ."""

import dataclasses

import numpy as np

from litsexp.evidence.compare.comparison import compare
from litsexp.evidence.compare.sides import differences, notes, paired_sides


def pair(make_study, make_scores, make_side, seeds_a, seeds_b):
    one, other = make_study(seeds=seeds_a), make_study(seeds=seeds_b)
    rng = np.random.default_rng(0)
    return make_side(make_scores(one, rng), one), make_side(make_scores(other, rng), other)


def test_runs_are_paired_by_the_seeds_that_both_have(make_study, make_scores, make_side):
    a, b = pair(make_study, make_scores, make_side, [0, 1], [1, 2])
    pairing, same = paired_sides(a, b)
    assert same is b
    assert pairing.words.endswith("Left out, without a partner: seed 0 of A and seed 2 of B.")
    change = compare(a, b).arms[0]
    assert change.n_runs == 3
    own = a.tables.cases.query("arm == 'baseline' and seed == 1")["dice_tumor"]
    assert np.isclose(change.a, own.mean())


def test_without_a_seed_in_common_by_their_order(make_study, make_scores, make_side):
    a, b = pair(make_study, make_scores, make_side, [3, 1], [10, 8, 9])
    pairing, renamed = paired_sides(a, b)
    assert "no seed in common" in pairing.words
    assert pairing.words.endswith("Left out, without a partner: 1 seed.")
    cases = renamed.tables.cases
    assert cases["dice_tumor"].equals(b.tables.cases["dice_tumor"])
    became = dict(zip(b.tables.cases["seed"], cases["seed"], strict=True))
    assert (became[8], became[9]) == (1, 3)
    assert became[10] not in (1, 3)
    assert compare(a, b).arms[0].n_runs == 6


def test_other_folds_are_not_paired(make_study, make_scores, make_side):
    a, _ = pair(make_study, make_scores, make_side, [0, 1], [0, 1])
    other = make_study(split={"folds": 3, "seed": 1})
    pairing, _ = paired_sides(a, dataclasses.replace(a, study=other))
    assert not pairing.paired
    assert "the splits differ" in pairing.words
    assert not any(change.identical or change.paired for change in compare(a, dataclasses.replace(a, study=other)).arms)


def test_what_differs_is_told_field_by_field(make_study, make_scores, make_side):
    a, _ = pair(make_study, make_scores, make_side, [0, 1], [0, 1])
    claim = a.study.claims[0].model_dump(exclude={"compares", "differs"}) | {"margin": 0.1}
    run = {"epochs": 9}
    b = make_side(a.tables.cases, make_study(run=run, claims=[claim]), fingerprint="other", preregistered={})
    b = dataclasses.replace(b, facts=b.facts | {"version.torch": "2.10.0", "device": "H100"})
    found = {(row.about, row.what): (row.a, row.b) for row in differences(a, b).itertuples()}
    assert found["settings", "run.epochs"] == (str(a.study.run.epochs), "9")
    assert found["claims", "transfer.margin"] == ("0.05", "0.1")
    assert found["claims", "transfer: fixed before the first run"] == ("yes", "no")
    assert found["versions", "torch"] == ("2.9.0", "2.10.0")
    assert found["machine", "device"] == ("cpu", "H100")
    assert found["data", "data fingerprint"] == ("same", "other")
    assert len(found) == 7  # and the claim's digest
    assert differences(a, a).empty


def test_notes_name_phantoms_missing_runs_lone_arms_and_mixed_versions(make_study, make_scores, make_side):
    a, _ = pair(make_study, make_scores, make_side, [0, 1], [0, 1])
    more = make_study(factors={"init": ["scratch"], "augment": ["none"]}, split={"unit": "slice"})
    b = make_side(a.tables.cases, more, planned=18, facts={"version.torch": "2.10; 2.9"}, phantom=False)
    said = "\n".join(notes(a, b))
    assert "Phantom results (A: phantom, 24 patients, seed 0): the patients are synthetic." in said
    assert "Phantom results (B" not in said
    assert "B: 6 of 18 runs have not finished" in said
    assert "several values of version.torch: 2.10; 2.9" in said
    assert "Only in B, and not compared: augment=none." in said
    assert "B: LEAKING" in said
    assert "The one study leaks" in said
