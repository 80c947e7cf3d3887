"""The slice store: a cohort's slices as Hounsfield units of one size."""

from litsexp.data.store.build import prepare
from litsexp.data.store.slices import Store

__all__ = ["Store", "prepare"]
