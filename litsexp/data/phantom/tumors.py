"""The phantom's lesions: how many and how large as in LiTS, where they grow, and what they look like.

Two kinds of cohort (``PhantomConfig.lesions``):

``lits`` (default): 1 to 40 lesions, median 3 and quartiles 1 and 9 with the tumor-free included; diameters lognormal,
median 12 mm, log-SD 0.8, 3 to 140 mm. Half of the log-variance is the patient's own, and many lesions are smaller ones.
A case has 16 cm3 of tumor in the median, quartiles 3.6 and 64 as drawn (LiTS: 16, 3.4 and 108).

``large``: the largest is drawn by itself: 40 mm in the median, never under 28 mm and never of low contrast; all
lesions of a case have 58 cm3 in the median. A small U-Net that trains for minutes at 64 px has to have something to
learn, and a Dice per patient needs a tumor of more than a few pixels.

A lesion that fills no voxel by half is not drawn: on the default grid those under some 5 mm. A patient's first is
enlarged until it fills one, so that a patient with tumor has a tumor.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from litsexp.data.phantom.anatomy import Box
from litsexp.data.phantom.scanner import Field, Point, Scanner

SIZES = ("lits", "large")
COUNT = (0.6, 0.087, 39)  # lesions after the first: negative binomial n and p, and the most
DIAMETER_MM = (12.0, 0.8, 3.0, 140.0)  # of all lesions: median, log-SD, least, most
PATIENT_SHARE = 0.5  # of the log-variance of diameters: what a patient's lesions have in common
CROWDING = 0.2  # diameters fall with count ** -0.2
LARGEST_MM = (40.0, 0.35, 28.0, 80.0)  # `large`: the largest lesion's median, log-SD, least, most
HARD_SHARE = 0.2  # of lesions: contrast under 20 HU
CAPSULE_SHARE = 0.2  # of lesions: at the liver's surface, which they make bulge by up to a fifth of their radius
CORE_SHARE = 0.25  # of lesions over 20 mm: necrotic inside


@dataclass(frozen=True)
class Look:
    """One lesion's appearance, in HU and mm."""

    contrast_hu: float  # below the liver
    edge_mm: float  # over which it fades into the liver; half of it lies outside the label
    rim_hu: float | None
    rim_mm: float
    core_hu: float | None
    core_size: float  # radius of the necrosis, in radii of the lesion
    at_capsule: bool
    roughness: float  # of its surface: 0 is an ellipsoid


@dataclass(frozen=True)
class Lesion:
    """A lesion that has grown: the diameter of the sphere it was drawn from, and its voxels in the labels."""

    diameter_mm: float
    look: Look
    voxels: int


@dataclass
class Liver:
    """One patient's liver while lesions grow in it; ``surface_mm``, ``hu`` and ``owner`` are changed in place."""

    spacing_mm: Point
    surface_mm: Field  # below 0 inside
    limit_mm: Field  # below 0 where a liver may be
    mean_hu: float
    hu: Field  # of its tissue, defined everywhere
    owner: NDArray[np.uint8]  # 0 liver, else the lesion's number from 1


def draw_diameters(sizes: str, rng: np.random.Generator) -> tuple[float, ...]:
    """One patient's lesion diameters in mm, largest first."""
    others, p, most = COUNT
    count = 1 + min(int(rng.negative_binomial(others, p)), most)
    median_mm, log_sd, least_mm, most_mm = DIAMETER_MM
    if sizes == "large":
        log_mm = math.log(median_mm) + log_sd * rng.normal(size=count)
        middle_mm, spread, low_mm, high_mm = LARGEST_MM
        most_mm = float(np.clip(rng.lognormal(math.log(middle_mm), spread), low_mm, high_mm))
        log_mm[0] = math.log(most_mm)
    else:
        rest = math.sqrt(log_sd**2 - 0.18**2)  # crowding alone gives the lesions of all patients a log-SD of 0.18
        common, own = rest * math.sqrt(PATIENT_SHARE) * rng.normal(), rest * math.sqrt(1 - PATIENT_SHARE)
        crowded = CROWDING * math.log(count / 13)  # half of all lesions have fewer beside them
        log_mm = math.log(median_mm) - crowded + common + own * rng.normal(size=count)
    return tuple(float(d) for d in np.sort(np.clip(np.exp(log_mm), least_mm, most_mm))[::-1])


def draw_contrast_hu(scanner: Scanner, liver_hu: float, rng: np.random.Generator) -> float:
    """How far a clear lesion lies below its liver, 25 to 70 HU in portal venous phase: it enhances little itself, so it
    stands out more in a liver that enhances well."""
    contrast_hu = float(np.clip(45 + 0.7 * (liver_hu - scanner.liver_hu[0]) + rng.normal(0, 7), 25, 70))
    return scanner.lesion_contrast * contrast_hu


def _draw_look(diameter_mm: float, spared: bool, scanner: Scanner, liver_hu: float, rng: np.random.Generator) -> Look:
    """A lesion's appearance; one that is ``spared`` is never of low contrast and its edge is not wide."""
    hard, has_rim, is_bright, is_necrotic, at_capsule = rng.random(5)
    is_hard = hard < HARD_SHARE and not spared
    clear_hu, low_hu = draw_contrast_hu(scanner, liver_hu, rng), scanner.lesion_contrast * rng.uniform(8, 20)
    contrast_hu = low_hu if is_hard else clear_hu
    bright_hu, dark_hu = liver_hu + rng.uniform(0, 25), liver_hu - contrast_hu - rng.uniform(5, 20)
    rim_share = 0.0 if is_hard else scanner.rim_share * (1 if diameter_mm > 15 else 0.5)
    core_share = CORE_SHARE if diameter_mm > 20 and not is_hard else 0.0
    edge_mm, rim_mm = rng.uniform(1, 5 if spared else 9), rng.uniform(2, 4)
    core_hu, core_size, roughness = rng.uniform([10, 0.4, 0.02], [30, 0.7, 0.08])
    return Look(
        contrast_hu=contrast_hu,
        edge_mm=min(edge_mm, 0.5 * diameter_mm),
        rim_hu=(bright_hu if is_bright < 0.7 else dark_hu) if has_rim < rim_share else None,
        rim_mm=min(rim_mm, 0.15 * diameter_mm),
        core_hu=core_hu if is_necrotic < core_share else None,
        core_size=core_size,
        at_capsule=at_capsule < CAPSULE_SHARE,
        roughness=roughness,
    )


def grow_lesions(
    liver: Liver, diameters_mm: tuple[float, ...], sizes: str, scanner: Scanner, rng: np.random.Generator
) -> tuple[Lesion, ...]:
    """Place the lesions where they fit, largest first: changes the liver's HU, owners and, at the capsule, surface."""
    spacing_mm = np.array(liver.spacing_mm)
    inside = liver.surface_mm < 0
    at = np.argwhere(inside)
    room_mm = ndimage.distance_transform_edt(inside, sampling=spacing_mm)[inside]
    voxel_mm = (6 / np.pi * np.prod(spacing_mm)) ** (1 / 3)  # the sphere of a voxel's volume
    grown: list[tuple[float, Look]] = []
    for diameter_mm in diameters_mm:
        first = not grown
        look = _draw_look(diameter_mm, first and sizes == "large", scanner, liver.mean_hu, rng)
        radius_mm = min(max(diameter_mm, 1.3 * voxel_mm if first else 0) / 2, 1.1 * float(room_mm.max()))
        if radius_mm < DIAMETER_MM[2] / 2:
            break  # the liver is full
        centre = at[rng.choice(_fitting(room_mm, radius_mm, look.at_capsule))]
        aside = (0.1 if first else 0.4) * rng.uniform(-1, 1, 3)
        number = len(grown) + 1
        while not (fills := _grow(liver, centre + aside, radius_mm, look, number, scanner, rng)) and first:
            radius_mm *= 1.2
        if fills:
            grown.append((2 * radius_mm, look))
        room_mm = np.minimum(room_mm, np.linalg.norm((at - centre) * spacing_mm, axis=1) - radius_mm)
    return tuple(Lesion(*lesion, int((liver.owner == number).sum())) for number, lesion in enumerate(grown, start=1))


def _fitting(room_mm: NDArray[np.float64], radius_mm: float, at_capsule: bool) -> NDArray[np.intp]:
    """The voxels where a lesion of this radius may be centred; at the capsule it is cut by it or touches it."""
    fits = room_mm >= 0.85 * radius_mm
    touches = (room_mm >= 0.6 * radius_mm) & (room_mm <= 1.05 * radius_mm)
    return np.flatnonzero(touches if at_capsule and touches.any() else fits if fits.any() else room_mm > 0)


def _grow(
    liver: Liver,
    centre: NDArray[np.float64],
    radius_mm: float,
    look: Look,
    number: int,
    scanner: Scanner,
    rng: np.random.Generator,
) -> bool:
    """Grow one lesion around a centre in voxels; False where it fills no voxel of the liver by half."""
    spacing_mm = liver.spacing_mm
    reach = (1.7 * radius_mm + look.edge_mm) / np.array(spacing_mm) + 1
    low = np.maximum(np.floor(centre - reach), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach) + 1, liver.hu.shape).astype(int)
    box: Box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    depths_mm = _depths(low - centre, high - low, radius_mm, look.roughness, spacing_mm, scanner.thickness, rng)
    width_mm = max(look.edge_mm, spacing_mm[0] / (3 if radius_mm < 10 else 1))

    def share(depth_mm: float) -> Field:  # of each voxel, deeper in the lesion than this
        return np.asarray(np.clip(0.5 + (depths_mm - depth_mm) / width_mm, 0, 1).mean(axis=0), np.float32)

    whole = share(0)
    surface_mm = liver.surface_mm[box]
    if look.at_capsule:  # the liver bulges over the lesion, as far as there is room
        bulge_mm = np.maximum(-depths_mm.mean(axis=0), np.maximum(surface_mm - 0.2 * radius_mm, liver.limit_mm[box]))
        surface_mm = np.minimum(surface_mm, bulge_mm)
    kept = (whole >= 0.5) & (surface_mm < 0) & (liver.owner[box] == 0)
    if not kept.any():
        return False
    liver.surface_mm[box] = surface_mm
    liver.owner[box][kept] = number
    hu = liver.hu[box]
    hu += (liver.mean_hu - look.contrast_hu - hu) * whole
    if look.rim_hu is not None:
        hu += (look.rim_hu - (liver.mean_hu - look.contrast_hu)) * (whole - share(look.rim_mm))
    if look.core_hu is not None:
        hu += (look.core_hu - hu) * share((1 - look.core_size) * radius_mm)
    return True


def _depths(
    first: NDArray[np.float64],
    shape: NDArray[np.int_],
    radius_mm: float,
    roughness: float,
    spacing_mm: Point,
    thickness: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Depth in mm inside an irregular ellipsoid, below 0 outside, at several points of each voxel (points, x, y, z).

    ``first`` is the first voxel, from the centre. More points for a small lesion; across a slice always.
    """
    stretch = np.exp(rng.normal(0, 0.12, 3))
    stretch /= np.prod(stretch) ** (1 / 3)
    waves, phases = rng.normal(0, 2, (4, 3)), rng.uniform(0, 2 * np.pi, 4)
    points = (3, 3, 5) if radius_mm < 10 else (1, 1, 3)
    parts = [f * (np.arange(n) - (n - 1) / 2) / n for f, n in zip((1, 1, thickness), points, strict=True)]
    steps = [  # (points, voxels) along each axis, in radii
        (start + np.arange(n) + part[:, None]) * (mm / radius_mm / s)
        for start, n, part, mm, s in zip(first, shape, parts, spacing_mm, stretch, strict=True)
    ]
    x, y, z = (np.asarray(s, np.float32) for s in steps)
    unit = (x[:, None, None, :, None, None], y[None, :, None, None, :, None], z[None, None, :, None, None, :])
    lumps = sum(
        np.sin(wave[0] * unit[0] + wave[1] * unit[1] + wave[2] * unit[2] + phase)
        for wave, phase in zip(waves.astype(np.float32), phases.astype(np.float32), strict=True)
    )
    depth = 1 + roughness * lumps - np.sqrt(unit[0] ** 2 + unit[1] ** 2 + unit[2] ** 2)
    return np.asarray(depth * radius_mm, np.float32).reshape(-1, *shape)
