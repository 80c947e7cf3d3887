"""Measures by hand: what is undefined, what silence costs, which way is better; and tables that lack their columns."""

import math

import pandas as pd
import pytest

from litsexp.evidence.measures import main_metrics, measure_of
from litsexp.spec.catalog import MEASURES, METRICS, Measure, Metric
from litsexp.spec.errors import LitsexpError

NAN = math.nan


def values(name, **columns):
    return measure_of(name).values(pd.DataFrame(columns, index=range(10, 10 + len(next(iter(columns.values()))))))


def assert_equal(found, expected):
    assert list(found.index) == list(range(10, 10 + len(expected)))
    assert found.dtype == float
    assert found.tolist() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("structure", ["liver", "tumor"])
def test_precision_is_0_where_an_arm_is_silent_though_there_is_something_to_find(structure):
    """Found in part; silent about one; made up where there is none; nothing there and nothing said."""
    counts = {"tp": [6, 0, 0, 0], "fp": [2, 0, 5, 0], "fn": [1, 9, 0, 0]}
    found = values(f"precision_{structure}", **{f"{kind}_{structure}": column for kind, column in counts.items()})
    assert_equal(found, [0.75, 0, 0, NAN])


LESIONS = {
    "lesions_true": [4, 2, 0, 0, 2, 3],
    "lesions_detected": [3, 0, 0, 0, 0, 3],
    "lesions_predicted": [5, 0, 3, 0, 2, 2],  # in the last case one prediction covers two true lesions
    "lesions_false": [3, 0, 3, 0, 2, 0],
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lesion_recall", [3 / 4, 0, NAN, NAN, 0, 1]),
        ("lesion_precision", [2 / 5, 0, 0, NAN, 0, 1]),
        ("lesion_f1", [2 * 0.75 * 0.4 / 1.15, 0, 0, NAN, 0, 1]),
        ("lesions_false", [3, 0, 3, 0, 2, 0]),
    ],
)
def test_lesions_by_hand(name, expected):
    assert_equal(values(name, **LESIONS), expected)


def test_an_arm_that_paints_no_liver_sees_no_tumor():
    """Too much; too little; no liver painted; none there; neither."""
    true, predicted = [0.1, 0.3, 0.2, NAN, NAN], [0.15, 0.1, NAN, 0.4, NAN]
    assert_equal(values("burden_error", burden_true=true, burden_predicted=predicted), [0.05, 0.2, 0.2, NAN, NAN])


def test_an_arm_that_is_silent_on_hard_patients_does_not_gain():
    """Two arms alike on the easy patient; the one that also says something on the hard one is the better one."""
    talks = values("precision_tumor", tp_tumor=[8, 1], fp_tumor=[2, 3], fn_tumor=[0, 9])
    silent = values("precision_tumor", tp_tumor=[8, 0], fp_tumor=[2, 0], fn_tumor=[0, 10])
    assert talks.mean() > silent.mean()


def test_a_metrics_own_column_is_its_measure():
    assert_equal(values("dice_tumor", dice_tumor=[1, NAN]), [1, NAN])
    words = measure_of("dice_tumor")
    assert (words.words, words.title, words.undefined, words.sign) == (
        "tumor Dice",
        "tumor Dice",
        "no tumor to find",
        1,
    )
    assert measure_of("sensitivity_liver").words == "liver sensitivity"


def test_words_of_one_where_less_is_better():
    less = measure_of("lesions_false")
    assert (less.sign, less.per, less.title) == (-1, " a case", "false lesions a case (less is better)")


@pytest.mark.parametrize("name", [*METRICS, *MEASURES])
def test_a_table_that_has_not_scored_it_is_undefined_and_no_error(name):
    table = pd.DataFrame({"case": [1, 2], "arm": "a"})
    assert not measure_of(name).scored(table)
    assert not measure_of(name).scored(pd.DataFrame())
    assert measure_of(name).values(table).isna().all()


@pytest.mark.parametrize("name", MEASURES)
def test_what_an_older_run_left_open_stays_undefined(name):
    """Its rows in a table of several runs are NaN, not 0."""
    columns = [f"{kind}_{structure}" for kind in ("tp", "fp", "fn") for structure in ("liver", "tumor")]
    columns += [*LESIONS, "burden_true", "burden_predicted"]
    assert_equal(values(name, **{column: [NAN] for column in columns}), [NAN])


def test_an_unknown_measure_lists_the_known_ones():
    with pytest.raises(LitsexpError, match=r"found 'dice_tumour'; expected one of .*dice_tumor.*; did you mean"):
        measure_of("dice_tumour")


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda cases: 1 / 0, r"its function failed \(ZeroDivisionError: division by zero\); expected a Series"),
        (lambda cases: pd.Series([0.5, math.inf]), "its function gave a Series; expected a Series of finite numbers"),
        (lambda cases: 0.5, "its function gave a float; expected a Series"),
        (lambda cases: pd.Series([0.5, 0.5, 0.5]), "its function gave a Series; expected .* with the table's index"),
        (lambda cases: cases["arm"], "its function gave a Series; expected a Series of finite numbers"),
    ],
)
def test_a_measure_that_gives_no_numbers_is_named(monkeypatch, function, says):
    monkeypatch.setitem(MEASURES, "mine", Measure("mine", function))
    with pytest.raises(LitsexpError, match=f"^measure 'mine': {says}"):
        measure_of("mine").values(pd.DataFrame({"arm": ["a", "b"]}))


def test_main_columns_come_from_the_table_of_metrics(monkeypatch):
    first = ["dice_tumor", "dice_liver", "sensitivity_tumor", "precision_tumor", "foreground_acc", "pixel_acc"]
    assert main_metrics() == first
    monkeypatch.setitem(METRICS, "mine", Metric("mine", "x:y", shown=2))
    assert main_metrics() == ["dice_tumor", "dice_liver", "mine", *first[2:]]
