"""From cells to cases: labels, numbers, arms of several names, and what is refused."""

import math

import pandas as pd
import pytest

from litsexp.evidence.foreign.tidy import measures_of, tidy
from litsexp.spec.errors import LitsexpError
from litsexp.spec.reading import as_claims


@pytest.fixture
def cases_of(make_claim):
    """The tidy table of these columns: two arms, a case each, unless they say otherwise."""

    def of(columns=None, claims=None, **content):
        table = pd.DataFrame({"arm": ["new", "old"], "case": [1, 1], "kappa": [0.5, 0.4]} | (columns or {}))
        return tidy(table, as_claims({"claims": claims or [make_claim()]} | content), "results.csv")

    return of


@pytest.fixture
def error_of(cases_of):
    def of(*arguments, **content):
        with pytest.raises(LitsexpError) as caught:
            cases_of(*arguments, **content)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("results.csv: ")
        return str(caught.value).removeprefix("results.csv: ")

    return of


def test_a_table_without_runs_has_one_fold_and_seed(cases_of):
    assert cases_of()[["arm", "fold", "seed", "case"]].values.tolist() == [["new", 0, 0, 1], ["old", 0, 0, 1]]


def test_labels_are_numbers_where_all_of_them_are(cases_of):
    assert cases_of({"case": ["12", "3.0"]})["case"].tolist() == [12, 3]
    assert cases_of({"case": ["007", "8"]})["case"].tolist() == ["007", "8"]
    assert cases_of({"case": ["liver_12", "3"]})["case"].tolist() == ["liver_12", "3"]
    assert cases_of({"fold": [0.0, 1.0], "seed": ["a", "1"]})[["fold", "seed"]].values.tolist() == [[0, "a"], [1, "1"]]


def test_an_arm_that_looks_like_a_number_is_a_name(cases_of, make_claim):
    cases = cases_of({"arm": [1, 2]}, [make_claim(better=1, than=2)])
    assert cases["arm"].tolist() == ["1", "2"]


@pytest.mark.parametrize("empty", ["", " ", "NaN", "n/a", "None", None, math.nan])
def test_an_empty_cell_is_undefined(cases_of, empty):
    assert cases_of({"kappa": ["0.5", empty]})["kappa"].isna().tolist() == [False, True]


def test_nullable_numbers_of_parquet(cases_of):
    assert cases_of({"kappa": pd.array([1, None], dtype="Int64")})["kappa"].isna().tolist() == [False, True]


def test_other_columns_may_hold_words(cases_of):
    assert cases_of({"site": ["A", "B"], "n": ["1", "2"]})[["site", "n"]].values.tolist() == [["A", 1], ["B", 2]]


def test_several_names_are_the_seeds_of_one_arm(cases_of):
    columns = {"arm": ["n1", "n0", "old"], "case": [1, 1, 1], "kappa": [0.1, 0.2, 0.3]}
    cases = cases_of(columns, arms={"new": ["n0", "n1"]})
    assert cases[["arm", "seed"]].values.tolist() == [["new", 1], ["new", 0], ["old", 0]]


def test_one_name_only_renames_and_keeps_its_seeds(cases_of):
    columns = {"arm": ["n", "n", "old"], "seed": [4, 5, 4], "case": [1, 1, 1], "kappa": [0.1, 0.2, 0.3]}
    cases = cases_of(columns, arms={"new": ["n"]})
    assert cases[["arm", "seed"]].values.tolist() == [["new", 4], ["new", 5], ["old", 4]]


TWINS = {"arm": ["new", "old", "new"], "case": [1, 1, 1], "kappa": [0.1, 0.2, 0.3]}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"kappa": ["0.5", "good"]}, "kappa: found 'good' in row 2; expected a number, or nothing where it is undefi"),
        ({"kappa": ["bad", "good"]}, "kappa: found 'bad' in row 1 and 1 more; expected a number"),
        ({"kappa": [0.5, math.inf]}, "kappa: found 'inf' in row 2; expected a finite number; give what has none"),
        ({"case": ["1", ""]}, "case: found nothing in row 2; expected a value in every row"),
        ({"seed": [0, None]}, "seed: found nothing in row 2; expected a value in every row"),
        (TWINS, "case 1 stands 2 times in arm 'new', fold 0, seed 0 (rows 1, 3); expected one row a case and run"),
        (
            {"arm": ["new", "older"]},
            "claim 'new': than: found 'old'; expected one of new, older; did you mean 'older'?",
        ),
    ],
)
def test_cells_that_would_be_misread_are_refused(error_of, columns, said):
    assert error_of(columns).startswith(said)


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ({"one": ["nwe"]}, "arms.one: found 'nwe'; expected one of new, old; did you mean 'new'?"),
        ({"old": ["new"]}, "arms.old: 'old' is an arm of the table too, and not among its names; expected a name of"),
    ],
)
def test_arms_that_are_not_in_the_table_are_refused(error_of, arms, said):
    assert error_of(arms=arms).startswith(said)


def test_seeds_of_their_own_in_names_that_make_one_arm_are_refused(error_of):
    columns = {"arm": ["a", "a", "b"], "seed": [0, 1, 0], "case": [1, 1, 1], "kappa": [0.1, 0.2, 0.3]}
    assert error_of(columns, arms={"new": ["a", "b"]}).startswith("arms.new: 'a' has 2 seeds of its own; expected one")


def test_columns_that_are_missing_are_named(make_claim):
    claims = as_claims({"claims": [make_claim()]})
    with pytest.raises(LitsexpError, match=r"no column 'arm'; found Arm, case; .*column names are lower-case"):
        tidy(pd.DataFrame({"Arm": ["new"], "case": [1]}), claims, "results.csv")
    with pytest.raises(LitsexpError, match="found no rows"):
        tidy(pd.DataFrame({"arm": [], "case": []}), claims, "results.csv")
    with pytest.raises(LitsexpError, match="found two columns of one name"):
        tidy(pd.DataFrame([[1, 2]], columns=["arm", "arm"]), claims, "results.csv")


class TestMeasures:
    def test_the_file_says_what_a_column_is(self, cases_of, make_claim):
        content = {"claims": [make_claim()], "metrics": {"kappa": {"unit": "mm", "higher_is_better": False}}}
        measure = measures_of(cases_of(), as_claims(content), "results.csv")["kappa"]
        assert (measure.title, measure.sign) == ("kappa mm (less is better)", -1)
        assert measure.values(cases_of()).tolist() == [0.5, 0.4]

    def test_a_column_that_litsexp_knows_keeps_its_words(self, cases_of, make_claim):
        claims = [make_claim(metric="lesions_false")]
        cases = cases_of({"lesions_false": [2, 3]}, claims)
        measure = measures_of(cases, as_claims({"claims": claims}), "results.csv")["lesions_false"]
        assert (measure.words, measure.unit, measure.sign) == ("false lesions", "a case", -1)

    def test_a_measure_is_made_of_columns_where_it_has_none_itself(self, cases_of, make_claim):
        claims = [make_claim(metric="lesion_recall")]
        cases = cases_of({"lesions_detected": ["1", "2"], "lesions_true": ["4", "4"]}, claims)
        measure = measures_of(cases, as_claims({"claims": claims}), "results.csv")["lesion_recall"]
        assert measure.values(cases).tolist() == [0.25, 0.5]

    @pytest.mark.parametrize("metric", ["kapa", "dice_tumor"])
    def test_a_column_that_is_not_there_is_refused(self, cases_of, make_claim, metric):
        claims = [make_claim(metric=metric)]
        with pytest.raises(LitsexpError, match=f"no column '{metric}', which a claim is about; expected one of kappa"):
            measures_of(cases_of(claims=claims), as_claims({"claims": claims}), "results.csv")
