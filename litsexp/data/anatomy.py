"""The phantom's anatomy: organs of a reference abdomen, and one patient's voxel grid laid through it.

Geometry: RAS, mm, so +x is the patient's right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CAVITY_MM = (118.0, 80.0)  # half width and half depth of the reference abdomen, inside its wall

Field = NDArray[np.float32]
Point = tuple[float, float, float]


class Organ(NamedTuple):
    """An ellipsoid of the reference abdomen (mm, x to the patient's right) and its mean HU +/- SD between patients."""

    centre_mm: Point
    semi_mm: Point
    hu: float
    hu_sd: float = 5


SOFT = {  # painted before lung and liver, in this order
    "pancreas": Organ((-8, 2, -28), (52, 11, 12), 95),
    "spleen": Organ((-84, -30, 14), (30, 44, 48), 120, 8),
    "stomach": Organ((-50, 24, 10), (46, 40, 50), 20),
}
SOLID = {  # the liver makes room for these; painted after it
    "right psoas": Organ((36, -60, -85), (13, 14, 62), 60),
    "left psoas": Organ((-36, -60, -85), (13, 14, 62), 60),
    "right kidney": Organ((56, -44, -54), (27, 23, 48), 170, 25),
    "left kidney": Organ((-62, -40, -40), (27, 23, 50), 170, 25),
    "right sinus": Organ((45, -40, -54), (9, 8, 20), -20),
    "left sinus": Organ((-51, -37, -40), (9, 8, 20), -20),
    "gallbladder": Organ((46, 40, -38), (14, 18, 22), 12),
    "hilum": Organ((6, 0, -20), (24, 11, 18), -60),
    "cava": Organ((21, -30, 0), (12, 10, 1e4), 155),
    "aorta": Organ((-9, -33, 0), (10, 10, 1e4), 162),
    "right back": Organ((34, -96, 0), (27, 15, 1e4), 60),
    "left back": Organ((-34, -96, 0), (27, 15, 1e4), 60),
    "vertebra": Organ((0, -62, 0), (22, 17, 1e4), 420, 60),
    "marrow": Organ((0, -62, 0), (18, 13, 1e4), 190, 30),
    "processes": Organ((0, -91, 0), (30, 5, 1e4), 450, 60),
    "spinous": Organ((0, -103, 0), (4, 11, 1e4), 450, 60),
    "canal": Organ((0, -84, 0), (9, 8, 1e4), 35),
}
RIGHT_BED = Organ((42, -66, -54), (48, 42, 56), -100)  # the fat behind the right kidney, where no liver is
HEART = Organ((-22, 28, 98), (60, 46, 40), 140)  # the same HU in every patient
RIGHT_LOBE = Organ((52, 0, -2), (63, 75, 72), 105, 15)
LEFT_LOBE = Organ((-12, 44, 20), (64, 27, 34), 105, 15)
VESSELS = (  # from, to, radius in mm: hepatic veins that meet at the cava, then the portal tree
    ((20, -22, 44), (80, 25, 22), 4.0),
    ((20, -22, 44), (30, 45, 26), 4.0),
    ((20, -22, 44), (85, -30, 14), 4.5),
    ((20, 2, -14), (58, -4, -6), 6.0),
    ((58, -4, -6), (88, 24, -20), 4.0),
    ((58, -4, -6), (82, -38, -8), 4.0),
    ((58, -4, -6), (66, -28, -48), 3.5),
    ((20, 2, -14), (-14, 42, 16), 4.5),
)


@dataclass(frozen=True)
class Body:
    """One patient's grid: reference coordinates of every voxel, and how far it lies from the larger surfaces."""

    spacing_mm: Point
    x: Field  # mm in the reference abdomen, bent by a smooth random field
    y: Field
    z: Field
    cavity_mm: Field  # signed distances: below 0 inside
    wall_mm: Field
    skin_mm: Field
    diaphragm_mm: Field  # below 0 under it
    couch_mm: Field
    in_view: NDArray[np.bool_]  # the circular field of view


def make_body(shape: tuple[int, int, int], liver_ml: float, rng: np.random.Generator) -> Body:
    """Draw a patient's size and position and lay the voxel grid through it."""
    scale = 1 + 0.045 * np.clip(rng.normal(size=3), -2, 2) + 0.5 * ((liver_ml / 1500) ** (1 / 3) - 1)
    wall, fat = rng.uniform(10, 15), rng.uniform(7, 30)
    fov_mm = float(np.clip(rng.uniform(2.2, 2.5) * (CAVITY_MM[0] * scale[0] + wall + fat), 340, 400))
    height_mm = float(np.clip(174 * scale[2], 144, 192))
    spacing_mm = (round(fov_mm / shape[0], 4), round(fov_mm / shape[1], 4), round(height_mm / shape[2], 4))
    offset_mm = rng.uniform([-6, -2, -6], [6, 8, 6])
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    bend_mm = [3.5 * smooth_field(shape, (6, 6, 4), rng) for _ in range(3)]
    still = np.meshgrid(*[(a - o) / s for a, o, s in zip(axes, offset_mm, scale, strict=True)], indexing="ij")
    x, y, z = (np.asarray(s + b, np.float32) for s, b in zip(still, bend_mm, strict=True))
    skin = (still[0] + 0.3 * bend_mm[0], still[1] + 0.3 * bend_mm[1])
    squareness = rng.uniform(2.2, 2.6)

    def ring(margin: float, behind: float = 0) -> Field:  # signed distance to the cavity's outline, widened
        x, y = skin[0] / (CAVITY_MM[0] + margin), (skin[1] + behind) / (CAVITY_MM[1] + margin + behind)
        r = (np.abs(x) ** squareness + np.abs(y) ** squareness) ** (1 / squareness)
        return np.asarray((r - 1) * np.hypot(skin[0], skin[1] + behind) / np.maximum(r, 1e-3), np.float32)

    domes = [(rng.normal(62, 4), 50, 5, 70, 76), (rng.normal(50, 4), -56, -4, 66, 76)]  # apex z; centre, radii in x, y
    tops = [apex - 60 * (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2) ** 1.5 for apex, cx, cy, rx, ry in domes]
    in_view = (axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2) <= (fov_mm / 2) ** 2
    diaphragm_mm = np.asarray(1.5 * (z - np.maximum(*tops)), np.float32)
    skin_mm = ring(wall + fat, 9)
    couch_mm = np.abs(still[1] - 0.0015 * still[0] ** 2 - float(still[1][skin_mm < 0].min()) + 3) - 2
    return Body(spacing_mm, x, y, z, ring(0), ring(wall), skin_mm, diaphragm_mm, couch_mm, in_view)


def smooth_field(shape: tuple[int, ...], knots: tuple[int, ...], rng: np.random.Generator) -> Field:
    """Random field of SD about 1, cubic between its knots; the same field on any grid."""
    field = 1.4 * rng.normal(size=knots)
    for n, k in zip(shape, knots, strict=True):  # axis by axis: the first is interpolated and goes last
        weights = ndimage.zoom(np.eye(k), (n / k, 1), order=3, mode="nearest", grid_mode=True)
        field = np.einsum("nk,kab->abn", weights, field)
    return np.asarray(field, np.float32)


def vary(organ: Organ, rng: np.random.Generator) -> Organ:
    """The organ of one patient: moved by some 3 mm, scaled by some 6 %, at its own HU."""
    x, y, z = (c + s for c, s in zip(organ.centre_mm, rng.normal(0, [2, 2, 5]), strict=True))
    a, b, c = (s * f for s, f in zip(organ.semi_mm, rng.normal(1, 0.06, 3), strict=True))
    return Organ((x, y, z), (a, b, c), organ.hu + organ.hu_sd * float(np.clip(rng.normal(), -2, 2)))


def distance(body: Body, organ: Organ, lean: float = 0.0) -> Field:
    """Signed distance in mm to an ellipsoid, to first order; ``lean`` moves its lower parts to the right."""
    centre, semi = organ.centre_mm, organ.semi_mm
    offsets = (body.x - centre[0] + lean * (body.z - centre[2]), body.y - centre[1], body.z - centre[2])
    near = np.sqrt(sum((o / np.float32(s)) ** 2 for o, s in zip(offsets, semi, strict=True)))
    slope = np.sqrt(sum((o / np.float32(s * s)) ** 2 for o, s in zip(offsets, semi, strict=True)))
    return np.asarray(near * (near - 1) / np.maximum(slope, 1e-6), np.float32)
