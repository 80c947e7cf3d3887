"""Encoders' weights in files of others: read without running anything, found by their names, renamed to ours.

A file may hold the encoder alone or within another network, under our names (those of an ``nn.Sequential``, as
RadImageNet's ``backbone.4.0.conv1.weight``) or its publisher's (``layer1.0.conv1.weight``), and behind any prefix.
"""

import pickle
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from litsexp.spec.errors import LitsexpError, one_line

WRAPPERS = ("state_dict", "model")  # keys under which training scripts put the weights among other things
HEADS = ("fc", "classifier", "head")  # layers of a classifier: left out
SHOWN = 3  # names of a kind in a message
Names = Mapping[str, str | None]


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a torch file (.pt, .pth, .bin) that holds a state dict.

    Raises:
        LitsexpError: a file that is missing, damaged, or holds anything but tensors and plain values.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise LitsexpError(
            f"{path}: cannot be read: damaged, or it holds objects that run code; expected tensors only: "
            "save a network's state_dict()"
        ) from None
    except Exception as error:  # whatever a damaged file makes them say
        said = one_line(error)[:200]
        raise LitsexpError(f"{path}: cannot be read ({said}); expected a safetensors or torch file") from None
    while isinstance(found, Mapping) and (inside := [key for key in WRAPPERS if isinstance(found.get(key), Mapping)]):
        found = found[inside[0]]
    items = found.items() if isinstance(found, Mapping) else ()
    tensors = {str(name): value for name, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise LitsexpError(f"{path}: no tensors by name; expected a network's state dict, alone or as 'state_dict'")
    return tensors


def fitted(found: Mapping[str, Tensor], ours: Mapping[str, Tensor], published: Names) -> dict[str, Tensor]:
    """A file's tensors under our names.

    Args:
        found: what the file holds.
        ours: the encoder's state dict; gives names, shapes, and the batch counters that old files lack.
        published: what others call the tensors of the network that the encoder is of, with our names for them.

    Raises:
        ValueError: the file does not hold this encoder; says which names and shapes do not fit.
    """
    prefix, names = _found_under(found, ours, published)
    inside = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    state = {our: inside[name] for name, our in names.items() if our and name in inside}
    state |= {name: ours[name] for name in ours.keys() - state.keys() if name.endswith("num_batches_tracked")}
    missing = [prefix + name for name, our in names.items() if our and our not in state]
    surplus = [prefix + name for name in inside if name not in names and name.split(".")[0] not in HEADS]
    shapes = [
        f"{prefix + name} {tuple(inside[name].shape)} for {tuple(ours[our].shape)}"
        for name, our in names.items()
        if our and name in inside and inside[name].shape != ours[our].shape
    ]
    wrong = [_few(missing, "missing"), _few(surplus, "too many"), _few(shapes, "of another shape")]
    if any(wrong):
        raise ValueError("; ".join(part for part in wrong if part))
    return {name: state[name] for name in ours}


def _found_under(found: Iterable[str], ours: Iterable[str], published: Names) -> tuple[str, Names]:
    """The prefix and the naming under which most of the encoder's names are found; ValueError where two are as good."""
    namings: list[Names] = [{name: name for name in ours}, published]
    votes: Counter[tuple[str, int]] = Counter()
    for name in found:
        parts = name.split(".")
        for start in range(len(parts)):
            end = ".".join(parts[start:])
            votes.update((name.removesuffix(end), which) for which, names in enumerate(namings) if names.get(end))
    if not votes:
        raise ValueError(f"{_few(list(found), 'names')}, and none of them is the encoder's")
    (prefix, which), most = votes.most_common(1)[0]
    rivals = [other for (other, _), count in votes.items() if count == most and other != prefix]
    if rivals:
        raise ValueError(f"as many names fit behind {prefix!r} as behind {rivals[0]!r}; keep one encoder in the file")
    return prefix, namings[which]


def _few(names: list[str], what: str) -> str:
    """``122 missing (0.weight, 1.weight, 1.bias, ...)``; empty for none."""
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:SHOWN])}{more})" if names else ""
