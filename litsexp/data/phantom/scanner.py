"""The phantom's CT scanners: two sites that differ in grid, dose, kernel, contrast phase and couch.

Every property is a field of ``Scanner``. Site A is what one hospital's portal venous protocol gives; the noise has the
correlation of LiTS case 117. Site B is another hospital: less dose and a sharper kernel (so more noise, and noise that
is correlated less), a taller scan in thicker slices, a wider field of view, a late arterial phase and a flat couch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float32]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Scanner:
    """What one site adds to its patients: the grid in mm, noise and blur, the contrast phase in HU, the couch."""

    number: int  # part of the random seed: the sites share no patient
    orientations: tuple[str, ...]  # of storage, as nibabel's axis codes; case N has number N modulo their count
    view: tuple[float, float]  # field of view: least and most, in half widths of the patient's trunk
    view_mm: tuple[float, float]  # and its limits
    height_mm: tuple[float, float, float]  # of the scan: at a patient of mean height, least, most
    noise_hu: tuple[float, float]  # SD, and how that varies between patients (SD)
    noise_correlation: Point  # between neighbours along x, y, z
    kernel_mm: float  # SD of the blur in plane
    thickness: float  # of a slice, in slice spacings: what lies between thin slices is not seen
    liver_hu: tuple[float, float]  # mean and SD between patients
    vessel_hu: float  # the liver's vessels, above its tissue
    lesion_contrast: float  # factor on how far lesions lie below the liver
    rim_share: float  # of lesions over 15 mm, half as many of smaller ones: with a rim
    organ_hu: Mapping[str, float] = field(default_factory=dict)  # where the phase differs from portal venous
    couch_curve: float = 0.0015  # 1/mm: how its top bends up, towards the sides
    couch_mm: tuple[float, float] = (210.0, 28.0)  # half width, thickness


SCANNERS: Mapping[str, Scanner] = {
    "A": Scanner(
        number=1,
        orientations=("LAS", "LPS", "RAS"),
        view=(2.2, 2.5),
        view_mm=(340, 400),
        height_mm=(184, 160, 208),
        noise_hu=(20.5, 2),
        noise_correlation=(0.38, 0.38, 0.53),
        kernel_mm=1.6,
        thickness=0.5,
        liver_hu=(105, 15),
        vessel_hu=42,
        lesion_contrast=1.0,
        rim_share=0.3,
    ),
    "B": Scanner(
        number=2,
        orientations=("RAI", "LPI", "ASR"),
        view=(2.6, 2.9),
        view_mm=(400, 460),
        height_mm=(216, 198, 240),
        noise_hu=(28, 3),
        noise_correlation=(0.15, 0.15, 0.25),
        kernel_mm=0.9,
        thickness=1.0,
        liver_hu=(82, 12),
        vessel_hu=18,
        lesion_contrast=0.7,
        rim_share=0.45,
        organ_hu={
            "aorta": 300,
            "artery": 280,
            "cava": 100,
            "vein": 120,
            "spleen": 135,
            "pancreas": 110,
            "right kidney": 210,
            "left kidney": 210,
        },
        couch_curve=0.0,
        couch_mm=(230.0, 40.0),
    ),
}


def noise(shape: tuple[int, ...], scanner: Scanner, rng: np.random.Generator) -> Field:
    """Correlated noise in HU: neighbours as stated, almost nothing beyond; its SD is one patient's."""
    values = rng.standard_normal(shape, np.float32)
    for axis, correlation in enumerate(scanner.noise_correlation):
        tap = (1 - math.sqrt(1 - 2 * correlation**2)) / (2 * correlation)  # [tap, 1, tap] has that correlation
        kernel = np.array([tap, 1, tap]) / math.sqrt(1 + 2 * tap**2)
        values = ndimage.convolve1d(values, kernel, axis=axis, mode="wrap")
    mean_hu, sd_hu = scanner.noise_hu
    return np.asarray(values * np.clip(rng.normal(mean_hu, sd_hu), mean_hu - 5, mean_hu + 5), np.float32)


def blur(hu: Field, scanner: Scanner, spacing_mm: Point) -> Field:
    """What the kernel leaves of edges in plane."""
    in_plane = [scanner.kernel_mm / mm for mm in spacing_mm[:2]]
    return np.asarray(ndimage.gaussian_filter(hu, (*in_plane, 0)), np.float32)
