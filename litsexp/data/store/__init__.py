"""The slice store: a cohort's slices as Hounsfield units of one size."""
