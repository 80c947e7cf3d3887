"""A synthetic abdominal CT cohort in LiTS layout: what the studies run on when no real data are given.

It models the task, not the disease: a right-sided liver among organs of like HU, dark lesions of every size and
contrast, correlated noise, mixed storage orientations. Anatomy, lesions and scanner are in modules of their own; here
one patient is put together from them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from litsexp.data.phantom import anatomy
from litsexp.data.phantom.anatomy import Body, Canvas, Organ, around, distance, make_body, smooth_field, tube_distance
from litsexp.data.phantom.scanner import SCANNERS, Field, Point, Scanner, blur, noise
from litsexp.data.phantom.tumors import SIZES, Lesion, Liver, draw_diameters, grow_lesions
from litsexp.spec.errors import LitsexpError

GENERATOR_VERSION = 2  # raise it when the same config would no longer give the same bytes
OUTSIDE_HU, AIR_HU = -1024, -1000


@dataclass(frozen=True)
class PhantomConfig:
    """Everything that decides the cohort's bytes. A cohort of 4 is the beginning of a cohort of 8."""

    patients: int
    seed: int = 0
    size: int = 96  # pixels in plane
    slices: int = 24
    site: str = "A"  # or B: whose scanner, and whose patients: no person is at both
    lesions: str = "lits"  # or large: see tumors.py

    def __post_init__(self) -> None:
        for name, least in {"patients": 1, "seed": 0, "size": 32, "slices": 8}.items():
            if getattr(self, name) < least:
                raise LitsexpError(f"phantom {name} = {getattr(self, name)}; expected at least {least}; change {name}")
        for name, choices in {"site": tuple(SCANNERS), "lesions": SIZES}.items():
            if getattr(self, name) not in choices:
                expected = " or ".join(choices)
                raise LitsexpError(f"phantom {name} = {getattr(self, name)}; expected {expected}; change {name}")


@dataclass(frozen=True)
class PhantomCase:
    """One patient: ``hu`` int16 and ``labels`` uint8 (0, liver 1, tumor 2), both (x, y, z) in RAS."""

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    spacing_mm: Point
    orientation: str  # as stored on disk
    lesions: tuple[Lesion, ...]


def make_case(config: PhantomConfig, number: int) -> PhantomCase:
    """Case ``number``: decided by it, the seed, the site and the grid, not by how many patients there are."""
    scanner = SCANNERS[config.site]
    rng = np.random.default_rng([config.seed, number, scanner.number, 1])
    liver_ml = float(np.clip(rng.normal(1500, 400), 800, 2500))
    body = make_body((config.size, config.size, config.slices), liver_ml, scanner, rng)
    organs = {
        name: _in_phase(name, anatomy.vary(organ, rng), scanner)
        for name, organ in (anatomy.SOFT | anatomy.SOLID).items()
    }
    limit_mm = _room_for_liver(body, organs, rng)
    liver = _make_liver(body, limit_mm, liver_ml, scanner, rng)
    diameters_mm = () if _is_tumor_free(config, number) else draw_diameters(config.lesions, rng)
    lesions = grow_lesions(liver, diameters_mm, config.lesions, scanner, rng)
    labels = np.where(liver.surface_mm < 0, np.where(liver.owner > 0, 2, 1), 0).astype(np.uint8)
    hu = _paint_abdomen(body, organs, liver, scanner, rng)
    hu = blur(hu, scanner, body.spacing_mm) + noise(hu.shape, scanner, rng)
    stored = np.where(body.in_view, np.clip(np.rint(hu), OUTSIDE_HU, 3071), OUTSIDE_HU).astype(np.int16)
    orientation = scanner.orientations[number % len(scanner.orientations)]
    return PhantomCase(stored, labels, body.spacing_mm, orientation, lesions)


def _is_tumor_free(config: PhantomConfig, number: int) -> bool:
    """One patient of every ten has no tumor; which one, the seed and the site decide."""
    rng = np.random.default_rng([config.seed, number // 10, SCANNERS[config.site].number, 2])
    return bool(number % 10 == rng.integers(10))


def _in_phase(name: str, organ: Organ, scanner: Scanner) -> Organ:
    """The organ in the scanner's contrast phase, where that is not portal venous."""
    reference_hu = (anatomy.SOFT | anatomy.SOLID)[name].hu
    return organ._replace(hu=organ.hu + scanner.organ_hu.get(name, reference_hu) - reference_hu)


def _room_for_liver(body: Body, organs: dict[str, Organ], rng: np.random.Generator) -> Field:
    """Below 0 where a liver may be: under the diaphragm, in the cavity, and where neither organ nor fat is."""
    limit_mm = np.maximum(body.cavity_mm + 1, body.diaphragm_mm)
    others = [(organs[name], anatomy.GAP_MM.get(name, 1.0)) for name in anatomy.SOLID]
    for organ, gap_mm in [*others, *((anatomy.vary(fat, rng), 0.0) for fat in anatomy.FAT.values())]:
        if (box := around(body, organ)) is not None:
            limit_mm[box] = np.maximum(limit_mm[box], gap_mm - distance(body, organ, box))
    return np.asarray(limit_mm, np.float32)


def _make_liver(body: Body, limit_mm: Field, liver_ml: float, scanner: Scanner, rng: np.random.Generator) -> Liver:
    """Two lobes grown together until they fill ``liver_ml`` of the room that is left; tissue with vessels."""
    right = distance(body, anatomy.vary(anatomy.RIGHT_LOBE, rng), anatomy.EVERYWHERE, lean=0.3)
    left = distance(body, anatomy.vary(anatomy.LEFT_LOBE, rng), anatomy.EVERYWHERE)
    right = np.where(right > 0, right * (1 + np.clip(-body.z / 30 - 1.5, 0, 2)), right)  # grows little downwards
    left = np.where(left > 0, 2 * left, left)  # grows half as fast
    lobes_mm = -8 * np.logaddexp(-right / 8, -left / 8)
    room_mm = np.sort(lobes_mm[(limit_mm < 0) & body.in_view])
    voxels = min(int(liver_ml * 1000 / math.prod(body.spacing_mm)), len(room_mm) - 1)
    surface_mm = np.asarray(np.maximum(lobes_mm - room_mm[voxels], limit_mm), np.float32)
    surface_mm[(surface_mm < 0) & ~_largest_part(surface_mm < 0)] = 1
    mean_hu = float(np.clip(rng.normal(*scanner.liver_hu), scanner.liver_hu[0] - 37, scanner.liver_hu[0] + 37))
    hu = mean_hu + 3 * smooth_field(surface_mm.shape, (16, 16, 8), rng)
    inside = surface_mm < 6
    points_mm = (body.x[inside], body.y[inside], body.z[inside])
    tissue_hu = hu[inside]
    for start, end, radius_mm in anatomy.LIVER_VESSELS:
        start_mm, end_mm = start + rng.normal(0, 3, 3), end + rng.normal(0, 9, 3)
        from_wall_mm = tube_distance(points_mm, tuple(start_mm), tuple(end_mm), radius_mm)
        tissue_hu += (mean_hu + scanner.vessel_hu - tissue_hu) * np.clip(0.5 - from_wall_mm / body.spacing_mm[0], 0, 1)
    hu[inside] = tissue_hu
    return Liver(body.spacing_mm, surface_mm, limit_mm, mean_hu, hu, np.zeros(hu.shape, np.uint8))


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 6-connected component without its slivers: a liver is neither an island nor a sheet of one voxel."""
    thick = ndimage.binary_opening(mask, np.ones((3, 3, 1)))
    parts, _ = ndimage.label(thick if thick.any() else mask)
    return np.asarray(parts == np.bincount(parts[parts > 0]).argmax(), bool)


def _paint_abdomen(
    body: Body, organs: dict[str, Organ], liver: Liver, scanner: Scanner, rng: np.random.Generator
) -> Field:
    """HU without noise: from the couch inwards, each tissue over the last."""
    canvas = Canvas(np.full(liver.hu.shape, AIR_HU, np.float32), scanner.thickness)
    specks = smooth_field(liver.hu.shape, (40, 40, 12), rng)  # small vessels, in fat and in lung
    canvas.paint(body.couch_mm, 150)
    canvas.paint(body.couch_mm + 8, -930)
    canvas.paint(body.skin_mm, 40)
    canvas.paint(body.skin_mm + 2.5, -105 + 6 * specks)
    canvas.paint(np.maximum(body.wall_mm, body.skin_mm + 6), 52)  # and the diaphragm: what fat and lung leave
    abdomen_mm = np.maximum(body.cavity_mm, body.diaphragm_mm + 1)
    canvas.paint(abdomen_mm, -100 + 130 * np.clip(1.5 * specks - 1.9, 0, 1))
    for organ, gas_mm in _bowel(rng):
        _paint_loop(canvas, body, organ, gas_mm)
    for name in anatomy.SOFT:
        if name == "stomach":
            _paint_loop(canvas, body, organs[name], rng.uniform(8, 20))
        else:
            _paint_organ(canvas, body, organs[name], abdomen_mm)
    lung_hu = rng.uniform(-850, -720) + 700 * np.clip(1.5 * specks - 2.6, 0, 1)
    canvas.paint(np.maximum(body.cavity_mm + 2, 3 - body.diaphragm_mm), lung_hu)
    heart = anatomy.vary(anatomy.HEART, rng)._replace(hu=anatomy.HEART.hu)
    _paint_organ(canvas, body, heart, np.maximum(body.cavity_mm + 6, -body.diaphragm_mm))
    canvas.paint(liver.surface_mm, liver.hu)
    _paint_tubes(canvas, body, scanner)
    for name in anatomy.SOLID:
        _paint_organ(canvas, body, organs[name], body.skin_mm + 6)
    discs_mm = np.abs((body.z + rng.uniform(0, 36)) % 36 - 18) - 4  # between the vertebrae, one every 36 mm
    _paint_organ(canvas, body, organs["vertebra"]._replace(hu=90), discs_mm)
    canvas.paint(_ribs(body, rng), rng.uniform(350, 700))
    return canvas.hu


def _paint_organ(canvas: Canvas, body: Body, organ: Organ, limit_mm: Field) -> None:
    """An organ, as far as it lies where ``limit_mm`` is below 0."""
    if (box := around(body, organ)) is not None:
        canvas.paint(np.maximum(distance(body, organ, box), limit_mm[box]), organ.hu, box)


def _paint_tubes(canvas: Canvas, body: Body, scanner: Scanner) -> None:
    """The larger vessels outside the liver, and the crura of the diaphragm."""
    for tube in anatomy.TUBES:
        ends = np.array([tube.start_mm, tube.end_mm])
        if (box := body.box(ends.min(axis=0) - 12, ends.max(axis=0) + 12)) is not None:
            points_mm = (body.x[box], body.y[box], body.z[box])
            from_wall_mm = tube_distance(points_mm, tube.start_mm, tube.end_mm, tube.radius_mm)
            canvas.paint(from_wall_mm, scanner.organ_hu.get(tube.kind, tube.hu), box)


def _paint_loop(canvas: Canvas, body: Body, organ: Organ, gas_mm: float | None) -> None:
    """Stomach or bowel: an enhancing wall of 3 mm, what is in it, and gas down to ``gas_mm`` above its centre."""
    if (box := around(body, organ)) is None:
        return
    wall_mm = np.maximum(distance(body, organ, box), np.maximum(body.cavity_mm, body.diaphragm_mm)[box])
    canvas.paint(wall_mm, 85, box)
    canvas.paint(wall_mm + 3, organ.hu, box)
    if gas_mm is not None:
        canvas.paint(np.maximum(wall_mm + 3, organ.centre_mm[1] + gas_mm - body.y[box]), -900, box)


def _bowel(rng: np.random.Generator) -> Iterator[tuple[Organ, float | None]]:
    """Loops of small bowel in the lower abdomen, framed by the colon, which holds more gas; and their gas, if any."""
    for _ in range(28):
        x, y, z = rng.uniform([-90, -12, -120], [62, 58, -28])
        a, b, c = rng.uniform([12, 11, 11], [30, 19, 24])
        yield Organ((x, y, z), (a, b, c), rng.uniform(15, 60)), 5.0 if rng.random() < 0.15 else None
    colon: list[tuple[Point, Point]]
    colon = [((90, -18, -102), (21, 23, 44)), ((-98, -30, -74), (16, 18, 62)), ((-92, 18, -14), (20, 24, 24))]
    colon += [((x, 60, rng.uniform(-66, -48)), (34, 15, 17)) for x in (56, 6, -46)]
    for centre_mm, semi_mm in colon:
        organ = anatomy.vary(Organ(centre_mm, semi_mm, rng.uniform(20, 60)), rng)
        yield organ, rng.uniform(-8, 8) if rng.random() < 0.7 else None


def _ribs(body: Body, rng: np.random.Generator) -> Field:
    """Signed distance to the ribs: bands in the wall that sink towards the front and end at the costal arch."""
    angle = np.arctan2(np.abs(body.x), -body.y)  # 0 at the spine, pi at the front
    period_mm = rng.uniform(28, 33)
    height_mm = body.z + 38 * angle + rng.uniform(0, period_mm)
    band_mm = np.abs((height_mm % period_mm) - period_mm / 2) - 5
    shell_mm = np.abs(body.cavity_mm - 5) - 3.5
    arch_mm = np.maximum(28 * (angle - 2.4) - 0.5 * (body.z + 10), 30 * (0.5 - angle))
    return np.asarray(np.maximum(np.maximum(band_mm, shell_mm), arch_mm), np.float32)
