"""What a cohort is called, and which external cohort may stand beside which data."""

from dataclasses import replace
from pathlib import Path

import pytest

from litsexp.data.store import Store
from litsexp.spec.cohort import CohortConfig
from litsexp.spec.errors import LitsexpError
from litsexp.study.cohorts import check_external, cohort_name


@pytest.mark.parametrize(
    ("cohort", "phantom", "name"),
    [
        ({"seed": 3}, True, "phantom, 6 patients, seed 3"),
        ({"seed": 3, "site": "B", "lesions": "large"}, True, "phantom, 6 patients, seed 3, site B, large lesions"),
        ({"cohort": "/data/LiTS/"}, False, "LiTS, 6 patients"),
        ({"cohort": "/data/mine"}, True, "mine, 6 phantom patients"),  # written by litsexp phantom, named with --data
    ],
    ids=str,
)
def test_a_phantoms_name_says_so(phantom_store: Store, cohort: dict[str, object], phantom: bool, name: str) -> None:
    assert cohort_name(CohortConfig.model_validate(cohort), replace(phantom_store, phantom=phantom)) == name


def test_another_cohort_of_one_size_is_taken(phantom_store: Store, external_store: Store) -> None:
    check_external(phantom_store, external_store)
    check_external(phantom_store, replace(external_store, phantom=False))  # do phantoms prepare for patients?
    check_external(phantom_store, None)


def test_an_external_cohort_that_would_mislead_is_refused(phantom_store: Store, external_store: Store) -> None:
    smaller = replace(external_store, hu=external_store.hu[:, :32, :32])
    copy = replace(phantom_store, directory=Path("a-copy"))
    real = replace(phantom_store, phantom=False)
    for data, external, said in [
        (phantom_store, copy, r"external: found the slices of data itself \(a-copy\)"),
        (real, external_store, "external: found a phantom beside real patients"),
        (phantom_store, smaller, "external: found slices of 32 px, and of 64 px as data"),
    ]:
        with pytest.raises(LitsexpError, match=said) as caught:
            check_external(data, external)
        assert "\n" not in str(caught.value)
