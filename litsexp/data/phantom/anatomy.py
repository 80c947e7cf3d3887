"""The phantom's anatomy: organs of a reference abdomen, and one patient's voxel grid laid through it.

Geometry: RAS, mm, so +x is the patient's right. A surface is a field that is below 0 inside, in mm to first order.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from litsexp.data.phantom.scanner import Field, Point, Scanner

CAVITY_MM = (122.0, 84.0)  # half width and half depth of the reference abdomen, inside its wall
MOST_BEND_MM = 14.0  # how far a patient's organs are bent out of the reference abdomen

Box = tuple[slice, slice, slice]
EVERYWHERE: Box = (slice(None), slice(None), slice(None))


class Organ(NamedTuple):
    """An ellipsoid of the reference abdomen (mm, x to the patient's right) and its mean HU +/- SD between patients."""

    centre_mm: Point
    semi_mm: Point
    hu: float
    hu_sd: float = 5


class Tube(NamedTuple):
    """A vessel or band of muscle: a line with a radius in mm, thinner at its far end; HU in portal venous phase."""

    start_mm: Point
    end_mm: Point
    radius_mm: float
    hu: float
    kind: str  # artery | vein | muscle


SOFT = {  # painted before lung and liver, in this order
    "pancreas": Organ((-12, 0, -30), (50, 11, 12), 95),
    "duodenum": Organ((36, -4, -54), (15, 14, 26), 45, 10),
    "spleen": Organ((-88, -30, 16), (29, 45, 48), 120, 8),
    "stomach": Organ((-54, 26, 10), (44, 40, 50), 20),
}
SOLID = {  # the liver makes room for these; painted after it
    "right psoas": Organ((37, -60, -95), (15, 17, 66), 60),
    "left psoas": Organ((-37, -60, -95), (15, 17, 66), 60),
    "right kidney": Organ((60, -46, -58), (27, 23, 48), 170, 25),
    "left kidney": Organ((-64, -44, -42), (27, 23, 50), 170, 25),
    "right sinus": Organ((45, -40, -58), (14, 7, 19), -40),
    "left sinus": Organ((-49, -37, -42), (14, 7, 19), -40),
    "gallbladder": Organ((44, 46, -40), (14, 19, 24), 12),
    "cava": Organ((21, -30, 0), (12, 10, 1e4), 155),
    "aorta": Organ((-9, -33, 0), (10, 10, 1e4), 162),
    "right back": Organ((34, -89, 0), (36, 21, 1e4), 55),
    "left back": Organ((-34, -89, 0), (36, 21, 1e4), 55),
    "right flank": Organ((76, -78, -95), (26, 14, 70), 55),
    "left flank": Organ((-76, -78, -95), (26, 14, 70), 55),
    "vertebra": Organ((0, -62, 0), (23, 18, 1e4), 420, 60),
    "marrow": Organ((0, -62, 0), (19, 14, 1e4), 190, 30),
    "processes": Organ((0, -89, 0), (32, 5, 1e4), 420, 60),
    "spinous": Organ((0, -100, 0), (4, 11, 1e4), 420, 60),
    "canal": Organ((0, -83, 0), (10, 8, 1e4), 35),
}
GAP_MM = {"vertebra": 8, "right kidney": 5, "aorta": 3, "right psoas": 4}  # fat between these and the liver; else 1
FAT = {  # where no liver is
    "behind the right kidney": Organ((50, -62, -60), (44, 40, 58), -100),
    "among the bowel": Organ((-44, 22, -84), (84, 88, 64), -100),
    "porta hepatis": Organ((8, -2, -18), (34, 9, 13), -100),
    "ligament": Organ((0, 56, -8), (4, 30, 30), -100),
}
HEART = Organ((-22, 28, 98), (60, 46, 40), 140)  # the same HU in every patient
RIGHT_LOBE = Organ((57, 0, 3), (67, 79, 66), 0)
LEFT_LOBE = Organ((-14, 46, 22), (66, 28, 33), 0)
TUBES = (  # painted after the liver; the porta hepatis opens around the portal vein
    Tube((26, 0, -15), (-4, -4, -40), 6.5, 155, "vein"),
    Tube((-4, -6, -37), (-76, -32, 4), 4.0, 155, "vein"),
    Tube((0, 0, -40), (4, 16, -125), 5.0, 155, "vein"),
    Tube((21, -31, -52), (50, -42, -56), 4.5, 155, "vein"),
    Tube((15, -27, -46), (-52, -39, -42), 4.0, 155, "vein"),
    Tube((-9, -24, -30), (-6, 14, -125), 3.5, 162, "artery"),
    Tube((-9, -22, -16), (22, 2, -10), 3.0, 162, "artery"),
    Tube((10, -44, 55), (16, -48, -75), 6.0, 58, "muscle"),
    Tube((-20, -44, 55), (-22, -50, -75), 5.0, 58, "muscle"),
)
LIVER_VESSELS = (  # from, to, radius in mm: hepatic veins that meet at the cava, then the portal tree
    ((20, -22, 44), (84, 25, 24), 4.0),
    ((20, -22, 44), (30, 50, 26), 4.0),
    ((20, -22, 44), (90, -32, 14), 4.5),
    ((24, 1, -14), (60, -4, -6), 6.0),
    ((60, -4, -6), (94, 24, -20), 4.0),
    ((60, -4, -6), (88, -38, -8), 4.0),
    ((60, -4, -6), (74, -24, -48), 3.5),
    ((24, 1, -14), (-14, 44, 16), 4.5),
)


@dataclass(frozen=True)
class Body:
    """One patient's grid: reference coordinates of every voxel, and how far it lies from the larger surfaces."""

    spacing_mm: Point
    axes_mm: tuple[NDArray[np.float64], ...]  # reference coordinates along x, y, z, before they are bent
    x: Field  # mm in the reference abdomen, bent by a smooth random field
    y: Field
    z: Field
    cavity_mm: Field  # signed distances: below 0 inside
    wall_mm: Field
    skin_mm: Field
    diaphragm_mm: Field  # below 0 under it
    couch_mm: Field
    in_view: NDArray[np.bool_]  # the circular field of view

    def box(self, low_mm: NDArray[np.float64], high_mm: NDArray[np.float64]) -> Box | None:
        """The part of the grid between two reference points, wherever the bending has moved it; None outside."""
        box = []
        for axis, low, high in zip(self.axes_mm, low_mm, high_mm, strict=True):
            first, last = np.searchsorted(axis, (low - MOST_BEND_MM, high + MOST_BEND_MM))
            first, last = max(int(first) - 1, 0), min(int(last) + 1, len(axis))
            if last - first < 2:
                return None
            box.append(slice(first, last))
        return box[0], box[1], box[2]


def make_body(shape: tuple[int, int, int], liver_ml: float, scanner: Scanner, rng: np.random.Generator) -> Body:
    """Draw a patient's size and position and lay the scanner's voxel grid through it."""
    scale = 1 + 0.045 * np.clip(rng.normal(size=3), -2, 2) + 0.5 * ((liver_ml / 1500) ** (1 / 3) - 1)
    wall, fat = rng.uniform(10, 15), rng.uniform(8, 32)
    fov_mm = float(np.clip(rng.uniform(*scanner.view) * (CAVITY_MM[0] * scale[0] + wall + fat), *scanner.view_mm))
    height_mm = float(np.clip(scanner.height_mm[0] * scale[2], *scanner.height_mm[1:]))
    spacing_mm = (round(fov_mm / shape[0], 4), round(fov_mm / shape[1], 4), round(height_mm / shape[2], 4))
    offset_mm = rng.uniform([-6, -2, 0], [6, 8, 10])
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    reference = tuple((a - o) / s for a, o, s in zip(axes, offset_mm, scale, strict=True))
    still = np.meshgrid(*reference, indexing="ij")
    coarse = [3.5 * smooth_field(shape, (6, 6, 4), rng) for _ in range(3)]
    fine = [1.5 * smooth_field(shape, (15, 15, 8), rng) for _ in range(3)]
    bends = [np.clip(c + f, -MOST_BEND_MM, MOST_BEND_MM) for c, f in zip(coarse, fine, strict=True)]
    x, y, z = (np.asarray(s + b, np.float32) for s, b in zip(still, bends, strict=True))
    skin = (still[0] + 0.3 * coarse[0], still[1] + 0.3 * coarse[1])
    squareness = rng.uniform(2.2, 2.6)

    def ring(margin: float, behind: float = 0) -> Field:  # signed distance to the cavity's outline, widened
        x, y = skin[0] / (CAVITY_MM[0] + margin), (skin[1] + behind) / (CAVITY_MM[1] + margin + behind)
        r = (np.abs(x) ** squareness + np.abs(y) ** squareness) ** (1 / squareness)
        return np.asarray((r - 1) * np.hypot(skin[0], skin[1] + behind) / np.maximum(r, 1e-3), np.float32)

    cavity_mm, skin_mm = ring(0), ring(wall + fat, 14)
    in_view = (axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2) <= (fov_mm / 2) ** 2
    couch_mm = _couch(still, float(still[1][skin_mm < 0].min()), scanner)
    wall_mm = cavity_mm - wall * _wall_profile(x, y, z)
    return Body(
        spacing_mm, reference, x, y, z, cavity_mm, wall_mm, skin_mm, _diaphragm(x, y, z, rng), couch_mm, in_view
    )


def _wall_profile(x: Field, y: Field, z: Field) -> Field:
    """How thick the wall is, 1 on average: thin in the midline and beside the recti, thick under the shoulder blade."""
    angle = np.arctan2(np.abs(x), -y)  # 0 at the spine, pi at the front
    thin = 0.6 * np.exp(-(((angle - np.pi) / 0.1) ** 2)) + 0.4 * np.exp(-(((angle - 2.35) / 0.15) ** 2))
    thick = 0.8 * np.exp(-(((angle - 0.8) / 0.45) ** 2)) * np.clip(0.5 + z / 60, 0.3, 1)
    return np.asarray(1 - thin + thick, np.float32)


def _diaphragm(x: Field, y: Field, z: Field, rng: np.random.Generator) -> Field:
    """Two domes, the right one higher; below 0 under them."""
    domes = [(rng.normal(62, 4), 53, 5, 72, 80), (rng.normal(50, 4), -58, -4, 66, 80)]  # apex z; centre, radii in x, y
    tops = [apex - 60 * (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2) ** 1.5 for apex, cx, cy, rx, ry in domes]
    return np.asarray(1.5 * (z - np.maximum(*tops)), np.float32)


def _couch(still: tuple[NDArray[np.float64], ...], back_mm: float, scanner: Scanner) -> Field:
    """The slab under the patient, who sinks 3 mm into it."""
    half_width_mm, thick_mm = scanner.couch_mm
    depth_mm = back_mm + 3 + scanner.couch_curve * still[0] ** 2 - still[1]
    slab_mm = np.abs(depth_mm - thick_mm / 2) - thick_mm / 2
    return np.asarray(np.maximum(slab_mm, np.abs(still[0]) - half_width_mm), np.float32)


def smooth_field(shape: tuple[int, ...], knots: tuple[int, ...], rng: np.random.Generator) -> Field:
    """Random field of SD about 1, cubic between its knots; the same field on any grid."""
    field = (1.4 * rng.normal(size=knots)).astype(np.float32)
    for n, k in zip(shape, knots, strict=True):  # axis by axis: the first is interpolated and goes last
        weights = ndimage.zoom(np.eye(k, dtype=np.float32), (n / k, 1), order=3, mode="nearest", grid_mode=True)
        field = np.tensordot(field, weights, axes=(0, 1))
    return np.asarray(field, np.float32)


def vary(organ: Organ, rng: np.random.Generator) -> Organ:
    """The organ of one patient: moved by some 3 mm, scaled by some 6 %, at its own HU."""
    x, y, z = (c + s for c, s in zip(organ.centre_mm, rng.normal(0, [2, 2, 5]), strict=True))
    a, b, c = (s * f for s, f in zip(organ.semi_mm, rng.normal(1, 0.06, 3), strict=True))
    return Organ((x, y, z), (a, b, c), organ.hu + organ.hu_sd * float(np.clip(rng.normal(), -2, 2)))


def around(body: Body, organ: Organ, margin_mm: float = 12.0) -> Box | None:
    """The part of the grid that an organ and what lies within ``margin_mm`` of it can fill."""
    centre, reach = np.array(organ.centre_mm), np.array(organ.semi_mm) + margin_mm
    return body.box(centre - reach, centre + reach)


def distance(body: Body, organ: Organ, box: Box, lean: float = 0.0) -> Field:
    """Signed distance in mm to an ellipsoid, to first order; ``lean`` moves its lower parts to the right."""
    centre, semi = organ.centre_mm, organ.semi_mm
    z = body.z[box] - np.float32(centre[2])
    offsets = (body.x[box] - np.float32(centre[0]) + np.float32(lean) * z, body.y[box] - np.float32(centre[1]), z)
    near = np.sqrt(sum((o / np.float32(s)) ** 2 for o, s in zip(offsets, semi, strict=True)))
    slope = np.sqrt(sum((o / np.float32(s * s)) ** 2 for o, s in zip(offsets, semi, strict=True)))
    return np.asarray(near * (near - 1) / np.maximum(slope, 1e-6), np.float32)


def tube_distance(points_mm: tuple[Field, ...], start_mm: Point, end_mm: Point, radius_mm: float) -> Field:
    """Signed distance in mm of points to a tube that loses 40 % of its radius on the way."""
    line = np.subtract(end_mm, start_mm).astype(np.float32)
    offsets = [p - np.float32(s) for p, s in zip(points_mm, start_mm, strict=True)]
    along = np.clip(sum(o * c for o, c in zip(offsets, line, strict=True)) / np.float32(line @ line), 0, 1)
    squared = sum((o - along * c) ** 2 for o, c in zip(offsets, line, strict=True))
    return np.asarray(np.sqrt(squared) - radius_mm * (1 - 0.4 * along), np.float32)


@dataclass(frozen=True)
class Canvas:
    """HU of a case while it is painted, tissue over tissue; ``thickness`` is that of a slice, in slice spacings."""

    hu: Field
    thickness: float

    def paint(self, surface_mm: Field, value_hu: float | Field, box: Box = EVERYWHERE) -> None:
        """Fill what lies inside a surface, voxels at its edge in part; ``surface_mm`` has the box's shape.

        A voxel's share goes from 0 to 1 while the surface passes through it, half where the field is 0. How far that
        is follows from how the field changes from voxel to voxel, slices being thicker than pixels.
        """
        across_mm = np.square(np.gradient(surface_mm))
        across_mm = np.sqrt(across_mm[0] + across_mm[1] + self.thickness**2 * across_mm[2])
        share = np.clip(0.5 - surface_mm / np.maximum(across_mm, 0.5), 0, 1)
        self.hu[box] += (value_hu - self.hu[box]) * share
