"""The phantom cohort on disk: NIfTI files in LiTS layout with ``phantom.json``, all of it or nothing."""

import gzip
import io
import json
import math
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from litsexp.data.ct.layout import PHANTOM_FILE
from litsexp.data.parallel import Progress, map_parallel, usable_cpus
from litsexp.data.phantom.patient import GENERATOR_VERSION, PhantomConfig, make_case
from litsexp.files import whole_folder
from litsexp.spec.errors import LitsexpError


def write_cohort(
    directory: Path, config: PhantomConfig, processes: int | None = None, progress: Progress | None = None
) -> Path:
    """Write ``volume-N.nii.gz``, ``segmentation-N.nii.gz`` and ``phantom.json``; all of it or nothing.

    The same phantom already there is returned untouched; anything else there is a LitsexpError. ``processes`` and
    ``progress`` as in ``map_parallel``.
    """
    if _is_there(directory, config):
        return directory
    try:
        with whole_folder(directory) as temporary:
            write = partial(_write_case, temporary, config)
            processes = processes or min(usable_cpus(), math.ceil(config.patients / 4))  # where that pays
            cases = map_parallel(write, range(config.patients), processes, progress)
            content = {"generator": GENERATOR_VERSION, "config": asdict(config), "cases": cases}
            (temporary / PHANTOM_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        if not _is_there(directory, config):  # else somebody wrote the same meanwhile
            said = f"the phantom cannot be written ({error.strerror or error})"
            raise LitsexpError(f"{directory}: {said}; expected a folder to write in; name one") from None
    return directory


def _is_there(directory: Path, config: PhantomConfig) -> bool:
    """Whether this phantom is complete in ``directory``; LitsexpError where something else is."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    found = "other files" if directory.is_dir() else "a file"
    try:
        content = json.loads((directory / PHANTOM_FILE).read_text(encoding="utf-8"))
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


def _write_case(directory: Path, config: PhantomConfig, number: int) -> dict[str, Any]:
    """Write one case in its storage orientation; its entry in ``phantom.json``."""
    case = make_case(config, number)
    ras = np.diag([*case.spacing_mm, 1.0])
    ras[:3, 3] = -(np.array(case.hu.shape) - 1) / 2 * case.spacing_mm  # the grid's centre is the world's origin
    from_ras = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(case.orientation))
    affine = ras @ inv_ornt_aff(from_ras, case.hu.shape)
    for kind, array in (("volume", case.hu), ("segmentation", case.labels)):
        image = nib.Nifti1Image(apply_orientation(array, from_ras), affine)
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
        image.header.set_xyzt_units("mm")
        buffer = io.BytesIO()  # no name and no time in the gzip header: the same case, the same bytes
        with gzip.GzipFile(filename="", mode="wb", compresslevel=3, fileobj=buffer, mtime=0) as file:
            file.write(image.to_bytes())
        (directory / f"{kind}-{number}.nii.gz").write_bytes(buffer.getvalue())
    liver_ml = float((case.labels > 0).sum() * math.prod(case.spacing_mm) / 1000)
    return {
        "case": number,
        "orientation": case.orientation,
        "spacing_mm": case.spacing_mm,
        "liver_ml": round(liver_ml, 1),
        "lesions": len(case.lesions),
        "diameters_mm": [round(lesion.diameter_mm, 1) for lesion in case.lesions],
        "contrasts_hu": [round(lesion.look.contrast_hu, 1) for lesion in case.lesions],
        "rims": sum(lesion.look.rim_hu is not None for lesion in case.lesions),
        "necrotic": sum(lesion.look.core_hu is not None for lesion in case.lesions),
    }
