"""A synthetic abdominal CT cohort in LiTS layout: what the studies run on when no real data are given.

It models the task, not the disease: a right-sided liver among organs of like HU, dark lesions of every size and
contrast, correlated noise, mixed storage orientations. HU are portal venous; the noise has the correlation of LiTS case
117; liver volume, the lesions' number and the sizes of all but a patient's largest follow LiTS.

The largest lesion of a patient with tumor is drawn by itself: a sphere of 40 mm in the median, never under 28 mm and
never of low contrast; all lesions of a case have 58 cm3 in the median. That is easier than LiTS (median 16 cm3,
quartiles 3.4 and 108): a small U-Net at 64 px has to have something to learn, and a Dice per patient needs a tumor of
more than a few pixels. A lesion that fills no voxel by half is not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from litsexp.config import LitsexpError
from litsexp.data.anatomy import (
    HEART,
    LEFT_LOBE,
    RIGHT_BED,
    RIGHT_LOBE,
    SOFT,
    SOLID,
    VESSELS,
    Body,
    Field,
    Organ,
    Point,
    distance,
    make_body,
    smooth_field,
    vary,
)

GENERATOR_VERSION = 1  # raise it when the same config would no longer give the same bytes
ORIENTATIONS = ("LAS", "LPS", "RAS")  # of storage; case N has number N modulo 3
LARGEST_LESION_MM = (40.0, 28.0, 80.0)  # median, least and most of a patient's largest, log-SD 0.35
OUTSIDE_HU, AIR_HU = -1024, -1000
NOISE_TAPS = (0.2192, 0.2192, 0.2929)  # kernel [a, 1, a] along x, y, z: correlation 0.4, 0.4, 0.5 at lag 1, < 0.1 at 2
HARD_SHARE = 0.2  # of a patient's other lesions: contrast under 20 HU
VESSEL_CONTRAST_HU = 42


@dataclass(frozen=True)
class PhantomConfig:
    """Everything that decides the cohort's bytes. A cohort of 4 is the beginning of a cohort of 8."""

    patients: int
    seed: int = 0
    size: int = 96  # pixels in plane
    slices: int = 24

    def __post_init__(self) -> None:
        for name, least in {"patients": 1, "seed": 0, "size": 32, "slices": 8}.items():
            if getattr(self, name) < least:
                raise LitsexpError(f"phantom {name} = {getattr(self, name)}; expected at least {least}; change {name}")


@dataclass(frozen=True)
class Lesion:
    """Diameter of the sphere it was drawn from, HU below the liver, and the voxels it kept in the labels."""

    diameter_mm: float
    contrast_hu: float
    voxels: int


@dataclass(frozen=True)
class PhantomCase:
    """One patient: ``hu`` int16 and ``labels`` uint8 (0, liver 1, tumor 2), both (x, y, z) in RAS."""

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    spacing_mm: Point
    orientation: str  # as stored on disk
    lesions: tuple[Lesion, ...]


def make_case(config: PhantomConfig, number: int) -> PhantomCase:
    """Case ``number``: decided by it, the seed and the grid, not by how many patients there are."""
    rng = np.random.default_rng([config.seed, number])
    liver_ml = float(np.clip(rng.normal(1500, 400), 800, 2500))
    body = make_body((config.size, config.size, config.slices), liver_ml, rng)
    organs = {name: vary(organ, rng) for name, organ in (SOFT | SOLID).items()}
    distances_mm = {name: distance(body, organ) for name, organ in organs.items()}
    carved_mm = np.maximum(np.maximum(body.cavity_mm, body.diaphragm_mm), -distance(body, vary(RIGHT_BED, rng)))
    for name in SOLID:
        carved_mm = np.maximum(carved_mm, (6 if name == "vertebra" else 1) - distances_mm[name])
    liver_mm = _liver(body, carved_mm, liver_ml, rng)
    labels = _largest_part(liver_mm < 0).astype(np.uint8)
    diameters_mm = () if _is_tumor_free(config.seed, number) else _draw_diameters(rng)
    liver_hu, lesions = _fill_liver(body, labels, diameters_mm, rng)
    hu = _paint_abdomen(body, organs, distances_mm, liver_mm, liver_hu, rng)
    hu = ndimage.gaussian_filter(hu, (0.4, 0.4, 0)) + _noise(hu.shape, rng)
    stored = np.where(body.in_view, np.clip(np.rint(hu), OUTSIDE_HU, 3071), OUTSIDE_HU).astype(np.int16)
    return PhantomCase(stored, labels, body.spacing_mm, ORIENTATIONS[number % 3], lesions)


def _is_tumor_free(seed: int, number: int) -> bool:
    """One patient of every ten has no tumor; which one, the seed decides."""
    return number % 10 == np.random.default_rng([seed, number // 10, 1]).integers(10)


def _draw_diameters(rng: np.random.Generator) -> tuple[float, ...]:
    """Lesion diameters in mm, largest first: that one of its own draw, the others' median 12, 3 mm up to the largest.

    How many: 1 + negative binomial, median 3 in all.
    """
    median_mm, least_mm, most_mm = LARGEST_LESION_MM
    largest_mm = float(np.clip(rng.lognormal(math.log(median_mm), 0.35), least_mm, most_mm))
    others = min(rng.negative_binomial(0.7, 0.11), 29)
    others_mm = np.clip(rng.lognormal(math.log(12), 0.8, others), 3, largest_mm)
    return (largest_mm, *(float(d) for d in np.sort(others_mm)[::-1]))


def _liver(body: Body, carved_mm: Field, liver_ml: float, rng: np.random.Generator) -> Field:
    """Signed distance to the liver: two lobes grown together until they fill ``liver_ml`` of the room that is left."""
    right, left = distance(body, vary(RIGHT_LOBE, rng), lean=0.2), distance(body, vary(LEFT_LOBE, rng))
    left = np.where(left > 0, 2 * left, left)  # grows half as fast
    lobes_mm = -8 * np.logaddexp(-right / 8, -left / 8)
    room_mm = np.sort(lobes_mm[(carved_mm < 0) & body.in_view])
    voxels = min(int(liver_ml * 1000 / math.prod(body.spacing_mm)), len(room_mm) - 1)
    return np.asarray(np.maximum(lobes_mm - room_mm[voxels], carved_mm), np.float32)


def _largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 6-connected component: a liver has no islands of single voxels."""
    parts, _ = ndimage.label(mask)
    return np.asarray(parts == np.bincount(parts[mask]).argmax(), bool)


def _fill_liver(
    body: Body, labels: NDArray[np.uint8], diameters_mm: tuple[float, ...], rng: np.random.Generator
) -> tuple[Field, tuple[Lesion, ...]]:
    """HU of the liver's tissue with vessels and lesions, for every voxel; marks the lesions in ``labels``, in place."""
    inside = labels == 1
    mean_hu = float(np.clip(rng.normal(*RIGHT_LOBE[2:]), 68, 142))
    hu = mean_hu + 3 * smooth_field(labels.shape, (16, 16, 8), rng)[inside]
    points = np.stack([body.x[inside], body.y[inside], body.z[inside]], axis=1)
    for start, end, radius_mm in VESSELS:
        a, b = np.array(start) + rng.normal(0, 3, 3), np.array(end) + rng.normal(0, 9, 3)
        along = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        from_axis_mm = np.linalg.norm(points - a - along[:, None] * (b - a), axis=1)
        share = np.clip(0.5 + (radius_mm * (1 - 0.4 * along) - from_axis_mm) / body.spacing_mm[0], 0, 1)
        hu += (mean_hu + VESSEL_CONTRAST_HU - hu) * share
    lesions = _add_lesions(body, labels, hu, mean_hu, diameters_mm, rng)
    tissue_hu = np.full(labels.shape, mean_hu, np.float32)
    tissue_hu[inside] = hu
    return tissue_hu, lesions


def _add_lesions(
    body: Body,
    labels: NDArray[np.uint8],
    hu: Field,
    mean_hu: float,
    diameters_mm: tuple[float, ...],
    rng: np.random.Generator,
) -> tuple[Lesion, ...]:
    """Place the lesions where they fit, largest first; darkens ``hu`` (of the liver's voxels) and marks ``labels``."""
    inside = labels == 1
    points_mm = np.argwhere(inside) * np.array(body.spacing_mm)
    room_mm = ndimage.distance_transform_edt(inside, sampling=body.spacing_mm)[inside]
    marked = np.zeros(len(points_mm), bool)
    lesions: list[Lesion] = []
    for diameter_mm in diameters_mm:
        radius_mm = min(diameter_mm / 2, 1.1 * float(room_mm.max()))
        if radius_mm < 1.5:
            break  # the liver is full
        centre = points_mm[rng.choice(np.flatnonzero(room_mm >= 0.85 * radius_mm))]
        offsets_mm = points_mm - centre - rng.uniform(-0.4, 0.4, 3) * body.spacing_mm
        hard = bool(lesions) and rng.random() < HARD_SHARE
        contrast_hu = rng.uniform(8, 20) if hard else _contrast_hu(mean_hu, rng)
        share = _lesion_share(offsets_mm, radius_mm, body.spacing_mm, rng)
        if not (kept := (share >= 0.5) & ~marked).any():
            continue
        hu += (mean_hu - contrast_hu - hu) * share
        marked |= kept
        room_mm = np.minimum(room_mm, np.linalg.norm(offsets_mm, axis=1) - radius_mm)
        lesions.append(Lesion(round(2 * radius_mm, 1), round(float(contrast_hu), 1), int(kept.sum())))
    labels[inside] = 1 + marked
    return tuple(lesions)


def _contrast_hu(liver_hu: float, rng: np.random.Generator) -> float:
    """How far a clear lesion lies below its liver, 25 to 70 HU: it enhances little itself, so it stands out more in a
    liver that enhances well."""
    return float(np.clip(45 + 0.7 * (liver_hu - 105) + rng.normal(0, 7), 25, 70))


def _lesion_share(
    offsets_mm: NDArray[np.float64], radius_mm: float, spacing_mm: Point, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Share of each voxel (at ``offsets_mm``, n x 3, from the centre) that an irregular ellipsoid fills."""
    stretch = np.exp(rng.normal(0, 0.12, 3))
    stretch /= np.prod(stretch) ** (1 / 3)
    waves, phases = rng.normal(0, 2, (3, 4)), rng.uniform(0, 2 * np.pi, 4)
    share = np.zeros(len(offsets_mm))
    for part in (-1 / 3, 0, 1 / 3):  # a slice is thick: average over its thickness
        unit = (offsets_mm + np.array([0, 0, part * spacing_mm[2]])) / (radius_mm * stretch)
        surface = 1 + 0.05 * np.sin(unit @ waves + phases).sum(axis=1)
        share += np.clip(0.5 + (surface - np.linalg.norm(unit, axis=1)) * radius_mm / spacing_mm[0], 0, 1) / 3
    return share


def _paint_abdomen(
    body: Body,
    organs: dict[str, Organ],
    distances_mm: dict[str, Field],
    liver_mm: Field,
    liver_hu: Field,
    rng: np.random.Generator,
) -> Field:
    """HU without noise: from the couch inwards, each tissue over the last, edges one pixel wide."""
    hu = np.full(liver_mm.shape, AIR_HU, np.float32)

    def paint(distance_mm: Field, value_hu: float | Field) -> None:
        share = np.clip(0.5 - distance_mm / body.spacing_mm[0], 0, 1)
        hu[:] += (value_hu - hu) * share

    paint(body.couch_mm, -150)
    paint(body.skin_mm, -105)
    paint(body.wall_mm, 60)  # the wall, and the diaphragm: what fat and lung leave
    paint(np.maximum(body.cavity_mm, body.diaphragm_mm + 1), -100)
    for loop, gas in _bowel(rng):
        distance_mm = np.maximum(distance(body, loop), body.cavity_mm)
        paint(distance_mm, loop.hu)
        if gas:
            paint(np.maximum(distance_mm + 3, loop.centre_mm[1] + 4 - body.y), -900)
    for name in SOFT:
        distance_mm = np.maximum(distances_mm[name], np.maximum(body.cavity_mm, body.diaphragm_mm))
        paint(distance_mm, organs[name].hu)
        if name == "stomach":
            paint(np.maximum(distance_mm + 4, rng.uniform(32, 44) - body.y), -900)
    paint(np.maximum(body.cavity_mm + 2, 3 - body.diaphragm_mm), rng.uniform(-850, -700))
    paint(np.maximum(distance(body, vary(HEART, rng)), np.maximum(body.cavity_mm + 6, -body.diaphragm_mm)), HEART.hu)
    paint(liver_mm, liver_hu)
    for name in SOLID:
        paint(distances_mm[name], organs[name].hu)
    paint(_ribs(body, rng), rng.uniform(350, 700))
    return hu


def _bowel(rng: np.random.Generator) -> Iterator[tuple[Organ, bool]]:
    """Loops of bowel in the lower abdomen, and whether gas floats in them."""
    for _ in range(22):
        x, y, z = rng.uniform([-100, -15, -100], [70, 64, -15])
        a, b, c = rng.uniform(14, 28, 3)
        yield Organ((x, y, z), (a, b, c), rng.uniform(15, 60)), bool(rng.random() < 0.3)


def _ribs(body: Body, rng: np.random.Generator) -> Field:
    """Signed distance to the ribs: bands in the wall that sink towards the front and end at the costal arch."""
    angle = np.arctan2(np.abs(body.x), -body.y)  # 0 at the spine, pi at the front
    period_mm = rng.uniform(28, 33)
    height_mm = body.z + 38 * angle + rng.uniform(0, period_mm)
    band_mm = np.abs((height_mm % period_mm) - period_mm / 2) - 6
    shell_mm = np.abs(body.cavity_mm - 5) - 3.5
    arch_mm = np.maximum(28 * (angle - 2.4) - 0.5 * (body.z + 10), 30 * (0.5 - angle))
    return np.asarray(np.maximum(np.maximum(band_mm, shell_mm), arch_mm), np.float32)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Field:
    """Correlated noise in HU; its SD is one patient's: about 20."""
    noise = rng.standard_normal(shape, np.float32)
    for axis, tap in enumerate(NOISE_TAPS):
        kernel = np.array([tap, 1, tap]) / math.sqrt(1 + 2 * tap**2)
        noise = ndimage.convolve1d(noise, kernel, axis=axis, mode="wrap")
    return np.asarray(noise * np.clip(rng.normal(20, 2), 15, 25), np.float32)
