"""How a driver leaves a study that it does not finish: nothing RUNNING behind it, where that is its own to say."""

from litsexp.study.ledger import Ledger
from litsexp.study.outages import leaving
from litsexp.study.results import Parent
from litsexp.study.tracking import Tracking, value_of


def close_interrupted(tracking: Tracking, ledger: Ledger, parent: Parent) -> None:
    """End the runs and trials that run; what cannot be reached, the next driver puts right."""
    with leaving():
        if ledger.ours():
            tracking.close_interrupted(parent)
            finished = tracking.finished_among(ledger.running())
            ledger.close_interrupted({key: value_of(run) for key, run in finished.items()})


def end_study(tracking: Tracking, ledger: Ledger, parent: Parent, error: BaseException) -> None:
    """End the parent run with the reason."""
    interrupted = isinstance(error, KeyboardInterrupt)
    reason = "the study was interrupted" if interrupted else " ".join(str(error).split())
    with leaving():
        if ledger.ours():
            tracking.end(parent.run_id, "KILLED" if interrupted else "FAILED", reason)
