"""Data settings: which cohorts may share patients."""

import pytest
from litsexp.spec.cohort import CohortConfig


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
