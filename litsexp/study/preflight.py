"""What a design needs, asked before its first run: weights, memory, disk. Hours later is too late."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from litsexp.data.store import Store
from litsexp.spec.design import Cell
from litsexp.spec.errors import LitsexpError
from litsexp.study.places import Places

COPIES = 5  # of a network's weights in a run's memory: itself, gradients, two moments of Adam, the best checkpoint


def check_needs(to_train: Sequence[Cell], store: Store, places: Places) -> None:
    """LitsexpError where a cell cannot have its weights, or memory or disk are too small for what is planned."""
    if not to_train:
        return
    from litsexp.training.architectures import build_network  # imports torch: only when something is to be trained
    from litsexp.training.init import check_initialisation

    runs = {cell.arm.run: None for cell in to_train}
    for run in {(run.encoder, run.init): run for run in runs}.values():
        check_initialisation(run)
    network_bytes = {}
    for run in runs:
        kind = (run.architecture, run.encoder)
        if kind not in network_bytes:
            network, _ = build_network(run, store.size, seed=0, initialise=False)
            network_bytes[kind] = sum(value.nbytes for value in network.state_dict().values())
    kept = sum(network_bytes[cell.arm.run.architecture, cell.arm.run.encoder] for cell in to_train)
    _check_disk(kept, len(to_train), places)
    _check_memory(COPIES * max(network_bytes.values()) + store.labels.nbytes)


def _check_disk(needed: int, runs: int, places: Places) -> None:
    """Room for every run's weights; only where artifacts lie on this machine."""
    if not places.tracking_uri.startswith("sqlite"):
        return
    free = shutil.disk_usage(next(folder for folder in (places.root, *places.root.parents) if folder.is_dir())).free
    if needed > free:
        raise LitsexpError(
            f"{places.root}: {free / 1e9:.1f} GB free; expected about {needed / 1e9:.1f} GB for the weights of {runs} "
            "runs; free space, or name another folder with --mlruns"
        )


def _check_memory(needed: int) -> None:
    """Room for one run; only where the system tells."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return
    if needed > total:
        raise LitsexpError(
            f"one run needs about {needed / 1e9:.1f} GB of memory; this machine has {total / 1e9:.1f} GB; "
            "choose a smaller encoder or data.size"
        )
