"""How far the surfaces of two masks lie apart, in mm.

A surface is the voxels of a mask that are not in its erosion; beyond the array all is background. Distances are between
centres of voxels, and every surface voxel weighs the same. Two definitions of a surface are in use, and each score
follows the tool that it is compared with: ASSD, RMSD and maximum erode with 18 neighbours (the LiTS scorer, MedPy's
surface class), HD95 and NSD with 6 (MONAI, scipy's default).

Nearest voxels are found by scipy's k-d tree: its cost follows the surface, which both masks mostly share, while a
distance transform visits every voxel of the box, and takes several times as long on a liver
(tests/benchmarks/bench_score.py).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from litsexp.evaluation.matching import box_of

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

SURFACE_SCORES = ("assd", "rmsd", "msd", "hd95", "nsd")
EDGES, FACES = 2, 1  # erosion with 18 neighbours, and with 6


def surface_scores(
    truth: Mask, prediction: Mask, spacing_mm: Sequence[float], tolerance_mm: float, diagonal_mm: float
) -> dict[str, float]:
    """``assd``, ``rmsd``, ``msd``, ``hd95`` (mm) and ``nsd`` (share) of two masks (slices, height, width).

    NaN where a spacing is, and where both masks are empty. A miss, where one of them is, is scored as the worst that
    can be: NSD 0, and every distance ``diagonal_mm``, which is meant to be the volume's.
    """
    if math.isnan(math.prod(spacing_mm)) or not (truth.any() or prediction.any()):
        return dict.fromkeys(SURFACE_SCORES, math.nan)
    if not (truth.any() and prediction.any()):
        return {**dict.fromkeys(SURFACE_SCORES, diagonal_mm), "nsd": 0.0}
    return {
        **lits_distances(truth, prediction, spacing_mm),
        **_shares(*directed(truth, prediction, spacing_mm, FACES), tolerance_mm),
    }


def lits_distances(truth: Mask, prediction: Mask, spacing_mm: Sequence[float]) -> dict[str, float]:
    """``assd``, ``rmsd`` and ``msd`` in mm of two masks, none of them empty; NaN where a spacing is.

    The mean, the root mean square and the maximum of all surface voxels' distances to the other surface, both surfaces
    together (Heimann et al. 2009, doi 10.1109/TMI.2009.2013851).
    """
    if math.isnan(math.prod(spacing_mm)):
        return dict.fromkeys(("assd", "rmsd", "msd"), math.nan)
    both = np.concatenate(directed(truth, prediction, spacing_mm, EDGES))
    return {"assd": float(both.mean()), "rmsd": math.sqrt(float((both**2).mean())), "msd": float(both.max())}


def _shares(from_truth: Floats, from_prediction: Floats, tolerance_mm: float) -> dict[str, float]:
    """HD95, the larger of the two directed 95th percentiles; NSD, the share of both surfaces within the tolerance.

    Percentiles are interpolated linearly. NSD: Nikolov et al. 2018 (arXiv 1809.04430), with voxels in place of their
    surface elements, as MONAI does.
    """
    within = int((from_truth <= tolerance_mm).sum() + (from_prediction <= tolerance_mm).sum())
    hd95 = max(float(np.percentile(mm, 95)) for mm in (from_truth, from_prediction))
    return {"hd95": hd95, "nsd": within / (len(from_truth) + len(from_prediction))}


def directed(truth: Mask, prediction: Mask, spacing_mm: Sequence[float], connectivity: int) -> tuple[Floats, Floats]:
    """Each surface voxel's distance in mm to the other mask's surface: of the truth's, of the prediction's.

    Neither mask may be empty. Surface voxels are in scan order. What lies around the masks changes nothing.
    """
    box = box_of(truth | prediction)
    edges = [surface(mask[box], connectivity) for mask in (truth, prediction)]
    points = [np.stack(np.nonzero(edge), axis=1) for edge in edges]
    mm = np.asarray(spacing_mm, np.float64)
    return (
        _nearest(points[0], points[1], edges[1], mm),
        _nearest(points[1], points[0], edges[0], mm),
    )


def surface(mask: Mask, connectivity: int) -> Mask:
    """The voxels of a mask that are not in its erosion with 6 (1) or 18 neighbours (2)."""
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for shift in np.argwhere(ndimage.generate_binary_structure(3, connectivity)):
        inner &= padded[tuple(slice(first, first + n) for first, n in zip(shift, mask.shape, strict=True))]
    outer: Mask = mask & ~inner
    return outer


def _nearest(points: NDArray[np.int64], others: NDArray[np.int64], edge: Mask, mm: Floats) -> Floats:
    """Distance of each of ``points`` to the nearest of ``others``, the voxels of ``edge``; points in it have none.

    Distances come from whole steps along the axes: what is rounded is the same wherever the masks lie.
    """
    distances_mm = np.zeros(len(points))
    apart = ~edge[tuple(points.T)]
    if apart.any():
        tree = cKDTree(others * mm, compact_nodes=False, balanced_tree=False)
        nearest = tree.query(points[apart] * mm)[1]
        distances_mm[apart] = np.sqrt((((points[apart] - others[nearest]) * mm) ** 2).sum(axis=1))
    return distances_mm
