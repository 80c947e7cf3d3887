"""What reaches the parent run: notes and tags that name the cohort, and the split's table."""

from dataclasses import replace

import numpy as np

from litsexp.data.splits import split_table
from litsexp.evidence.parent import failed_runs, note, scalars, verdict_tags


def test_the_note_says_phantom_and_reports_the_external_cohort_apart(shown, shown_elsewhere):
    text = note(shown)
    assert "Phantom results (phantom, 12 patients, seed 0): the patients are synthetic." in text
    assert shown.verdicts[0].sentence in text
    assert "phantom patients" in shown.verdicts[0].sentence
    assert "external" not in text
    text = note(shown_elsewhere)
    answer, apart = text.split("On the external cohort (phantom, 8 patients, seed 1, site B)")
    assert shown.verdicts[0].sentence in answer
    assert shown_elsewhere.replications[0].words in apart


def test_a_real_cohorts_note_has_no_warning(make_evidence):
    assert "hantom" not in note(make_evidence(phantom=False, cohort="lits, 12 patients", verdicts=[]))


def test_effects_and_verdicts_elsewhere_have_names_of_their_own(shown, shown_elsewhere):
    assert {name for name in scalars(shown) if "effect" in name} == {"effect/transfer", "effect/pixels"}
    added = set(scalars(shown_elsewhere)) - set(scalars(shown))
    assert all("_external/" in name for name in added)
    assert {name for name in added if "effect" in name} == {"effect_external/transfer", "effect_external/pixels"}
    assert verdict_tags(shown_elsewhere)["verdict_external.transfer"] == "supported"
    assert verdict_tags(shown).items() < verdict_tags(shown_elsewhere).items()


def test_the_noise_of_training_is_a_metric_where_it_is_known(shown, shown_elsewhere, make_evidence, make_study):
    (tumor,) = (each for each in shown.noise if each.metric == "dice_tumor")
    numbers = scalars(shown)
    assert numbers["noise/run_sd/dice_tumor"] == tumor.run_sd
    assert numbers["noise/halves/dice_tumor"] == tumor.halves > 0
    assert "noise_external/halves/dice_tumor" in scalars(shown_elsewhere)
    once = make_evidence(make_study(seeds=[0]))
    assert not [name for name in scalars(once) if "noise" in name]


def test_runs_that_failed_to_learn_are_named_by_their_run_id(shown):
    """The rule looks at the study's own test, and at every measure that a claim is about."""
    assert failed_runs(shown) == {}
    cases, runs = shown.cases.copy(), shown.runs.assign(run_id=[f"run {i}" for i in range(len(shown.runs))])
    cases.loc[(cases["arm"] == "init=scratch") & (cases["fold"] == 1) & (cases["seed"] == 1), "pixel_acc"] = 0.05
    (where,) = runs.index[(runs["arm"] == "init=scratch") & (runs["fold"] == 1) & (runs["seed"] == 1)]
    found = failed_runs(replace(shown, cases=cases, runs=runs))
    assert found == {f"run {where}": "pixel accuracy 0.05, below 0.1"}


def test_the_note_says_what_the_intervals_cover(shown, make_evidence):
    assert "95 % intervals: new patients and new runs, on these training sets." in note(shown)
    assert "intervals" not in note(make_evidence(verdicts=[]))


def test_a_spacing_that_is_not_known_is_called_unknown(phantom_store, phantom_split):
    index = phantom_store.index.copy()
    known = split_table(phantom_store, [phantom_split])["spacing"]
    assert known.str.fullmatch(r"\d\.\d\d × \d\.\d\d × \d+\.\d\d").all()
    axes = ["spacing_x_mm", "spacing_y_mm", "spacing_z_mm"]
    index.loc[index["case"] == 0, axes] = np.nan
    index.loc[index["case"] == 1, axes] = (0.7, 0.7, np.nan)
    found = split_table(replace(phantom_store, index=index), [phantom_split])["spacing"]
    assert found[0] == "unknown"
    assert found[1] == "0.70 × 0.70 × unknown"
    assert list(found[2:]) == list(known[2:])
