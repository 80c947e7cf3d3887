"""A CT window: the (width, level) in Hounsfield units that is shown from black to white, as radiologists set it."""

from typing import Any, TypeVar

_Values = TypeVar("_Values")


def windowed(values: _Values, width_hu: float, level_hu: float) -> _Values:
    """HU as shares of a window: level - width/2 .. level + width/2 become 0 .. 1, and the rest is clipped.

    ``values`` is a numpy array or a torch tensor of floats; so is the result, with its shape and type. ValueError for a
    width that is not above 0.
    """
    if not width_hu > 0:
        raise ValueError(f"width_hu = {width_hu}; expected more than 0")
    hu: Any = values
    shares: _Values = ((hu - (level_hu - width_hu / 2)) / width_hu).clip(0, 1)
    return shares
