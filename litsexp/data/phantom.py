"""A synthetic abdominal CT cohort in LiTS layout: what the studies run on when no real data are given.

It models the task, not the disease: a right-sided liver among organs of like HU, dark lesions of every size and
contrast, correlated noise, mixed storage orientations. HU are portal venous; the noise has the correlation of LiTS case
117; liver volume, lesion sizes and counts follow LiTS. Geometry: RAS, mm, so +x is the patient's right.

Diameters alone would give too little tumor: LiTS has a median of 16 cm3 a case (quartiles 3.4 and 108), spheres of 31,
19 and 59 mm. So the largest lesion of a patient with tumor is drawn from those, and is at least 18 mm: a small U-Net at
64 px has something to learn (LiTS also has patients with small lesions only). A lesion that fills no voxel by half is
not drawn.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from litsexp.config import LitsexpError

GENERATOR_VERSION = 1  # raise it when the same config would no longer give the same bytes
ORIENTATIONS = ("LAS", "LPS", "RAS")  # of storage; case N has number N modulo 3
LARGEST_LESION_MM = (31.0, 18.0, 80.0)  # median, least and most, log-SD 0.6: LiTS's tumor volume a case
OUTSIDE_HU, AIR_HU = -1024, -1000
NOISE_TAPS = (0.2192, 0.2192, 0.2929)  # kernel [a, 1, a] along x, y, z: correlation 0.4, 0.4, 0.5 at lag 1, < 0.1 at 2
HARD_SHARE = 0.15  # of the lesions: contrast under 20 HU
VESSEL_CONTRAST_HU = 42
CAVITY_MM = (118.0, 80.0)  # half width and half depth of the reference abdomen, inside its wall

Field = NDArray[np.float32]
Point = tuple[float, float, float]


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
HEART = Organ((-22, 28, 98), (60, 46, 40), 140, 8)
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
class _Body:
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


def make_case(config: PhantomConfig, number: int) -> PhantomCase:
    """Case ``number``: decided by it, the seed and the grid, not by how many patients there are."""
    rng = np.random.default_rng([config.seed, number])
    liver_ml = float(np.clip(rng.normal(1500, 400), 800, 2500))
    body = _make_body(config, liver_ml, rng)
    organs = {name: _vary(organ, rng) for name, organ in (SOFT | SOLID).items()}
    distances_mm = {name: _distance(body, organ) for name, organ in organs.items()}
    carved_mm = np.maximum(np.maximum(body.cavity_mm, body.diaphragm_mm), -_distance(body, _vary(RIGHT_BED, rng)))
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
    """Lesion diameters in mm, largest first: median 12, 3 to 140; how many: 1 + negative binomial, median 3 in all."""
    count = 1 + min(rng.negative_binomial(0.7, 0.11), 29)
    diameters_mm = np.sort(np.clip(rng.lognormal(math.log(12), 0.8, count), 3, 140))[::-1]
    median_mm, least_mm, most_mm = LARGEST_LESION_MM
    largest_mm = float(np.clip(rng.lognormal(math.log(median_mm), 0.6), least_mm, most_mm))
    diameters_mm[0] = max(diameters_mm[0], largest_mm)
    return tuple(float(d) for d in diameters_mm)


def _make_body(config: PhantomConfig, liver_ml: float, rng: np.random.Generator) -> _Body:
    """Draw a patient's size and position and lay the voxel grid through it."""
    shape = (config.size, config.size, config.slices)
    scale = 1 + 0.045 * np.clip(rng.normal(size=3), -2, 2) + 0.5 * ((liver_ml / 1500) ** (1 / 3) - 1)
    wall, fat = rng.uniform(10, 15), rng.uniform(7, 30)
    fov_mm = float(np.clip(rng.uniform(2.2, 2.5) * (CAVITY_MM[0] * scale[0] + wall + fat), 340, 400))
    height_mm = float(np.clip(174 * scale[2], 144, 192))
    spacing_mm = (round(fov_mm / config.size, 4), round(fov_mm / config.size, 4), round(height_mm / config.slices, 4))
    offset_mm = rng.uniform([-6, -2, -6], [6, 8, 6])
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    bend_mm = [3.5 * _smooth_field(shape, (6, 6, 4), rng) for _ in range(3)]
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
    return _Body(spacing_mm, x, y, z, ring(0), ring(wall), skin_mm, diaphragm_mm, couch_mm, in_view)


def _smooth_field(shape: tuple[int, ...], knots: tuple[int, ...], rng: np.random.Generator) -> Field:
    """Random field of SD about 1, cubic between its knots; the same field on any grid."""
    field = 1.4 * rng.normal(size=knots)
    for n, k in zip(shape, knots, strict=True):  # axis by axis: the first is interpolated and goes last
        weights = ndimage.zoom(np.eye(k), (n / k, 1), order=3, mode="nearest", grid_mode=True)
        field = np.einsum("nk,kab->abn", weights, field)
    return np.asarray(field, np.float32)


def _vary(organ: Organ, rng: np.random.Generator) -> Organ:
    """The organ of one patient: moved by some 3 mm, scaled by some 6 %, at its own HU."""
    x, y, z = (c + s for c, s in zip(organ.centre_mm, rng.normal(0, [2, 2, 5]), strict=True))
    a, b, c = (s * f for s, f in zip(organ.semi_mm, rng.normal(1, 0.06, 3), strict=True))
    return Organ((x, y, z), (a, b, c), organ.hu + organ.hu_sd * float(np.clip(rng.normal(), -2, 2)))


def _distance(body: _Body, organ: Organ, lean: float = 0.0) -> Field:
    """Signed distance in mm to an ellipsoid, to first order; ``lean`` moves its lower parts to the right."""
    centre, semi = organ.centre_mm, organ.semi_mm
    offsets = (body.x - centre[0] + lean * (body.z - centre[2]), body.y - centre[1], body.z - centre[2])
    near = np.sqrt(sum((o / np.float32(s)) ** 2 for o, s in zip(offsets, semi, strict=True)))
    slope = np.sqrt(sum((o / np.float32(s * s)) ** 2 for o, s in zip(offsets, semi, strict=True)))
    return np.asarray(near * (near - 1) / np.maximum(slope, 1e-6), np.float32)


def _liver(body: _Body, carved_mm: Field, liver_ml: float, rng: np.random.Generator) -> Field:
    """Signed distance to the liver: two lobes grown together until they fill ``liver_ml`` of the room that is left."""
    right, left = _distance(body, _vary(RIGHT_LOBE, rng), lean=0.2), _distance(body, _vary(LEFT_LOBE, rng))
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
    body: _Body, labels: NDArray[np.uint8], diameters_mm: tuple[float, ...], rng: np.random.Generator
) -> tuple[Field, tuple[Lesion, ...]]:
    """HU of the liver's tissue with vessels and lesions, for every voxel; marks the lesions in ``labels``, in place."""
    inside = labels == 1
    mean_hu = float(np.clip(rng.normal(*RIGHT_LOBE[2:]), 68, 142))
    hu = mean_hu + 3 * _smooth_field(labels.shape, (16, 16, 8), rng)[inside]
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
    body: _Body,
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
    lesions = []
    for diameter_mm in diameters_mm:
        radius_mm = min(diameter_mm / 2, 1.1 * float(room_mm.max()))
        if radius_mm < 1.5:
            break  # the liver is full
        centre = points_mm[rng.choice(np.flatnonzero(room_mm >= 0.85 * radius_mm))]
        offsets_mm = points_mm - centre - rng.uniform(-0.4, 0.4, 3) * body.spacing_mm
        contrast_hu = rng.uniform(8, 20) if rng.random() < HARD_SHARE else np.clip(rng.normal(45, 9), 20, 60)
        share = _lesion_share(offsets_mm, radius_mm, body.spacing_mm, rng)
        if not (kept := (share >= 0.5) & ~marked).any():
            continue
        hu += (mean_hu - contrast_hu - hu) * share
        marked |= kept
        room_mm = np.minimum(room_mm, np.linalg.norm(offsets_mm, axis=1) - radius_mm)
        lesions.append(Lesion(round(2 * radius_mm, 1), round(float(contrast_hu), 1), int(kept.sum())))
    labels[inside] = 1 + marked
    return tuple(lesions)


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
    body: _Body,
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
        distance_mm = np.maximum(_distance(body, loop), body.cavity_mm)
        paint(distance_mm, loop.hu)
        if gas:
            paint(np.maximum(distance_mm + 3, loop.centre_mm[1] + 4 - body.y), -900)
    for name in SOFT:
        distance_mm = np.maximum(distances_mm[name], np.maximum(body.cavity_mm, body.diaphragm_mm))
        paint(distance_mm, organs[name].hu)
        if name == "stomach":
            paint(np.maximum(distance_mm + 4, rng.uniform(32, 44) - body.y), -900)
    paint(np.maximum(body.cavity_mm + 2, 3 - body.diaphragm_mm), rng.uniform(-850, -700))
    paint(np.maximum(_distance(body, _vary(HEART, rng)), np.maximum(body.cavity_mm + 6, -body.diaphragm_mm)), HEART.hu)
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


def _ribs(body: _Body, rng: np.random.Generator) -> Field:
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


def write_cohort(
    directory: Path,
    config: PhantomConfig,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``volume-N.nii.gz``, ``segmentation-N.nii.gz`` and ``phantom.json``; all of it or nothing.

    The same phantom already there is returned untouched; anything else there is a LitsexpError.
    ``progress(done, total)`` is called in this process. ``processes`` > 1 spawns: a script that calls this needs
    ``if __name__ == "__main__"``.
    """
    directory = Path(directory)
    if _is_there(directory, config):
        return directory
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise _not_written(directory, error) from error
    try:
        partial.chmod(0o755)
        cases = _write_cases(partial, config, processes, progress)
        content = {"generator": GENERATOR_VERSION, "config": asdict(config), "cases": cases}
        (partial / "phantom.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if directory.is_dir():
            directory.rmdir()  # it is empty
        partial.rename(directory)
    except OSError as error:
        if _is_there(directory, config):  # somebody else wrote the same meanwhile
            return directory
        raise _not_written(directory, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return directory


def _not_written(directory: Path, error: OSError) -> LitsexpError:
    reason = error.strerror or error
    return LitsexpError(
        f"{directory}: the phantom cannot be written ({reason}); expected a folder to write in; name one"
    )


def _is_there(directory: Path, config: PhantomConfig) -> bool:
    """Whether this phantom is complete in ``directory``; LitsexpError where something else is."""
    if not directory.exists():
        return False
    if directory.is_dir() and not any(directory.iterdir()):
        return False
    found = "other files" if directory.is_dir() else "a file"
    try:
        content = json.loads((directory / "phantom.json").read_text(encoding="utf-8"))
        same = (content["generator"], content["config"]) == (GENERATOR_VERSION, asdict(config))
        found = f"a phantom of generator {content['generator']} with {content['config']}"
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    names = [f"{kind}-{n}.nii.gz" for kind in ("volume", "segmentation") for n in range(config.patients)]
    missing = [name for name in names if same and not (directory / name).is_file()]
    if same and not missing:
        return True
    found = f"this phantom without {missing[0]}" if missing else found
    expected = f"a phantom of generator {GENERATOR_VERSION} with {asdict(config)}"
    raise LitsexpError(
        f"{directory}: found {found}; expected {expected}, or nothing; remove it or name another directory"
    )


def _write_cases(
    directory: Path, config: PhantomConfig, processes: int | None, progress: Callable[[int, int], None] | None
) -> list[dict[str, Any]]:
    """Generate every case, in parallel where that pays; what ``phantom.json`` says of each, by number."""
    told = progress or (lambda done, total: None)
    processes = processes or min(os.cpu_count() or 1, math.ceil(config.patients / 4))
    cases: dict[int, dict[str, Any]] = {}
    if processes == 1:
        for number in range(config.patients):
            cases[number] = _write_case(directory, config, number)
            told(len(cases), config.patients)
        return list(cases.values())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            futures = {pool.submit(_write_case, directory, config, n): n for n in range(config.patients)}
            for future in as_completed(futures):
                cases[futures[future]] = future.result()
                told(len(cases), config.patients)
        except BaseException:  # Ctrl-C too: the parent alone gets it
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [cases[number] for number in range(config.patients)]


def _write_case(directory: Path, config: PhantomConfig, number: int) -> dict[str, Any]:
    """Write one case in its storage orientation; its entry in ``phantom.json``."""
    case = make_case(config, number)
    flips = tuple(-1 if stored != ras else 1 for stored, ras in zip(case.orientation, "RAS", strict=True))
    shape = np.array(case.hu.shape)
    first_mm = -np.array(flips) * (shape - 1) / 2 * case.spacing_mm  # the grid's centre is the world's origin
    affine = np.diag([*(np.array(flips) * case.spacing_mm), 1.0])
    affine[:3, 3] = first_mm
    for kind, array in (("volume", case.hu), ("segmentation", case.labels)):
        image = nib.Nifti1Image(array[tuple(slice(None, None, flip) for flip in flips)], affine)
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
        image.header.set_xyzt_units("mm")
        buffer = io.BytesIO()  # no name and no time in the gzip header: the same case, the same bytes
        with gzip.GzipFile(filename="", mode="wb", compresslevel=3, fileobj=buffer, mtime=0) as file:
            file.write(image.to_bytes())
        (directory / f"{kind}-{number}.nii.gz").write_bytes(buffer.getvalue())
    liver_ml = float((case.labels > 0).sum() * math.prod(case.spacing_mm) / 1000)
    facts = {"case": number, "orientation": case.orientation, "spacing_mm": case.spacing_mm}
    lesions = {
        "lesions": len(case.lesions),
        "diameters_mm": [lesion.diameter_mm for lesion in case.lesions],
        "contrasts_hu": [lesion.contrast_hu for lesion in case.lesions],
    }
    return {**facts, "liver_ml": round(liver_ml, 1), **lesions}
