"""What reaches the parent run: notes and tags that name the cohort, and the split's table."""

from dataclasses import replace

import numpy as np

from litsexp.pipeline import note, scalars, split_table, verdict_tags


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
    assert set(scalars(shown)) == {"effect/transfer", "effect/pixels"}
    assert set(scalars(shown_elsewhere)) - set(scalars(shown)) == {"effect_external/transfer", "effect_external/pixels"}
    assert verdict_tags(shown_elsewhere)["verdict_external.transfer"] == "supported"
    assert verdict_tags(shown).items() < verdict_tags(shown_elsewhere).items()


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
