"""Masks that tests of several modules share: random ones, and those on which scores go wrong."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from litsexp.evaluation.cases import CaseMasks

MM = (2.5, 0.7, 1.3)  # (z, y, x), no two alike


def case_of(truth, prediction, spacing_mm=MM, number=7):
    """Two label arrays as a whole volume."""
    return CaseMasks(number, truth, prediction, spacing_mm, np.arange(len(truth)))


def ball(shape, centre, radius, spacing_mm=MM):
    """A ball in mm, as a boolean mask."""
    away = [(np.arange(n) - c) * mm for n, c, mm in zip(shape, centre, spacing_mm, strict=True)]
    return sum(np.square(a) for a in np.meshgrid(*away, indexing="ij")) <= radius**2


def adversarial():
    """Name -> (truth, prediction), labels (6, 9, 11)."""
    empty = np.zeros((6, 9, 11), np.uint8)
    full, dot, corner, plane, pair, bridge = (empty.copy() for _ in range(6))
    full[:] = 2
    dot[3, 4, 5] = 2
    corner[0, 0, 0] = corner[-1, -1, -1] = 2
    plane[2] = 1
    plane[2, 3:6, 3:6] = 2
    pair[1:4, 2:5, 1:4] = pair[1:4, 2:5, 6:9] = 2
    bridge[1:4, 2:5, 1:9] = 2
    touching = pair.copy()
    touching[1:4, 2:5, 4:6] = 1
    line = empty.copy()
    line[:, 4, 5] = 2
    return {
        "both empty": (empty, empty),
        "missed": (dot, empty),
        "made up": (empty, dot),
        "one voxel": (dot, dot),
        "all foreground": (full, full),
        "all against one": (full, dot),
        "opposite corners": (corner, dot),
        "one slice": (plane, np.roll(plane, 1, axis=2)),
        "another slice": (plane, np.roll(plane, 2, axis=0)),
        "bridged": (pair, bridge),
        "split": (bridge, pair),
        "touching liver": (touching, bridge),
        "across all slices": (line, np.roll(line, 3, axis=1)),
    }


ADVERSARIAL = adversarial()


@st.composite
def label_pairs(draw, labels=(0, 0, 0, 1, 2)):
    """Two label arrays of one shape: noise, blocks, or a block and the same one moved."""
    shape = tuple(draw(st.integers(1, 8)) for _ in range(3))
    kind = draw(st.sampled_from(["noise", "blocks", "moved"]))
    if kind == "noise":
        return tuple(draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from(labels))) for _ in range(2))
    truth, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for mask in (truth, prediction):
        for label in (1, 2):
            first = [draw(st.integers(0, n - 1)) for n in shape]
            mask[tuple(slice(f, f + draw(st.integers(1, 5))) for f in first)] = label
    if kind == "moved":
        prediction = np.roll(truth, draw(st.integers(-2, 2)), axis=draw(st.integers(0, 2)))
    return truth, prediction
