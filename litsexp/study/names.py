"""What the MLflow UI lists a run as."""

from collections.abc import Mapping

from litsexp.spec.design import Cell


def run_name(name: str, tags: Mapping[str, str]) -> str:
    """What the UI lists a run as: a phantom's says so, and a leaking one's."""
    said = [word for tag, word in (("phantom", "phantom"), ("leaks", "leaks")) if tags.get(tag) == "true"]
    return " · ".join([*said, name])


def short_name(cell: Cell) -> str:
    """``f0 s01 · init=scratch``: a narrow list still says which run it is, and sorted by it pairs are neighbors."""
    return f"f{cell.fold} s{cell.seed:02} · {cell.arm.name}"
