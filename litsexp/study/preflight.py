"""What a design needs, asked before its first run: weights, memory, disk. Hours later is too late."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress

from litsexp.data.store import Store
from litsexp.spec.design import Cell
from litsexp.spec.errors import LitsexpError
from litsexp.spec.run import RunConfig
from litsexp.study.places import Places

COPIES = 7  # of a network's weights in a run's memory: itself, gradients, two moments of Adam, the best checkpoint;
# where weights are averaged their average, and those that were trained while the average is validated


def check_needs(to_train: Sequence[Cell], store: Store, places: Places, keeps: Callable[[Cell], bool]) -> None:
    """LitsexpError where a cell cannot have its weights, or memory or disk are too small for what is planned.

    ``keeps`` says whether a cell's trained weights are put among its artifacts.
    """
    if not to_train:
        return
    from litsexp.training.architectures import build_network  # imports torch: only when something is to be trained
    from litsexp.training.init import check_initialisation

    runs = {cell.arm.run: None for cell in to_train}
    for run in {(run.encoder, run.init): run for run in runs}.values():
        check_initialisation(run)
    network_bytes = {}
    for run in {_network(run): run for run in runs}.values():
        network, _ = build_network(run, store.size, seed=0, initialise=False)
        network_bytes[_network(run)] = sum(value.nbytes for value in network.state_dict().values())
    if places.tracking_uri.startswith("sqlite"):  # artifacts lie on this machine
        kept = [network_bytes[_network(cell.arm.run)] for cell in to_train if keeps(cell)]
        home = next(folder for folder in (places.root, *places.root.parents) if folder.is_dir())
        _check_room(
            sum(kept),
            shutil.disk_usage(home).free,
            f"{places.root}: ",
            " free",
            f"for the weights of {len(kept)} runs; free space, name another folder with --mlruns, or keep fewer with "
            "--keep-weights",
        )
    with suppress(AttributeError, OSError, ValueError):  # where the system does not tell, nothing is known
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        needed = COPIES * max(network_bytes.values()) + store.labels.nbytes
        _check_room(needed, memory, "this machine: ", " of memory", "for one run; use a smaller encoder or data.size")


def _network(run: RunConfig) -> tuple[str, str, int | None, int | None]:
    """The settings that decide how many weights a run has."""
    return run.architecture, run.encoder, run.encoder_depth, run.decoder_width


def _check_room(needed: int, there: int, where: str, state: str, what: str) -> None:
    if needed > there:
        raise LitsexpError(f"{where}{there / 1e9:.1f} GB{state}; expected about {needed / 1e9:.1f} GB {what}")
