"""The ledger: which cells exist, which are done, which are left. Only the driver asks and tells.

Optuna keeps one trial a cell, found by the ``run_key`` among its user attributes. With fixed designs every trial is
enqueued; a search lets the sampler fill them in. A trial left RUNNING belongs to a driver that was killed, because one
lock a study admits one driver at a time.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from litsexp.interrupts import unbroken_methods
from litsexp.spec.base import Level
from litsexp.spec.design import Cell, arm_of, arms
from litsexp.spec.study import StudyConfig
from litsexp.study.addresses import CONNECT_S, KEEPALIVES, database_url, is_postgres
from litsexp.study.locks import Lock, Taken, no_database
from litsexp.study.outages import Away, Patience, patient_methods

PRUNE_AFTER_TRIALS = 4
PRUNE_AFTER_EPOCHS = 1


@dataclass(frozen=True)
class Ticket:
    """A trial that was asked for: run this, then tell."""

    number: int
    params: dict[str, Level]
    run_key: str  # empty for a search's fresh sample, whose key follows from its params


@patient_methods
@unbroken_methods
class Ledger:
    """One Optuna study. Where its database goes away and comes back, a method is called again: see ``ask``, ``tell``.

    ``lock`` is the driver's; without one nothing is checked before it is written.
    """

    def __init__(self, storage_url: str, name: str, study: StudyConfig, lock: Lock | None = None):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage_url = database_url(storage_url)
        self.patience, self._lock, self._asking = Patience("--storage", storage_url), lock, False
        try:
            storage = optuna.storages.RDBStorage(storage_url, engine_kwargs=_engine_options(storage_url))
            pruner = optuna.pruners.MedianPruner(PRUNE_AFTER_TRIALS, PRUNE_AFTER_EPOCHS)
            self.study = optuna.create_study(
                storage=storage, study_name=name, direction="maximize", load_if_exists=True, pruner=pruner
            )
        except (SQLAlchemyError, ImportError, ValueError, RuntimeError, StorageInternalError) as error:
            raise no_database(storage_url, error) from None
        started = len(self.study.get_trials(deepcopy=False))  # a resumed search would draw its first samples again
        self.study.sampler = optuna.samplers.TPESampler(seed=study.seeds[0] * 100_003 + started)
        self.space = distributions(study)
        self._asked: dict[int, optuna.trial.Trial] = {}

    def ours(self) -> bool:
        """Whether the study is still this driver's; where nothing answers nobody else can have taken it."""
        try:
            self.hold()
        except Away as error:
            return not isinstance(error, Taken)
        return True

    def hold(self) -> None:
        """Make sure of the driver's lock, which a database that was restarted has forgotten; Taken: another has it."""
        if self._lock is not None:
            self._lock.check()

    def close_interrupted(self, finished: Mapping[str, float]) -> None:
        """End the trials that a killed driver left RUNNING: complete where the run had finished, else failed."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            value = finished.get(_key(trial))
            self._tell(trial.number, TrialState.FAIL if value is None else TrialState.COMPLETE, value)

    def running(self) -> set[str]:
        """Run keys of the trials that run."""
        return {_key(trial) for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))}

    def complete(self) -> set[str]:
        """Run keys of the complete trials."""
        return {_key(trial) for trial in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))}

    def enqueue(self, params: Mapping[str, Level], run_key: str) -> None:
        """Put a cell in the queue, unless it already waits there."""
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if run_key not in {_key(trial) for trial in waiting}:
            self.study.enqueue_trial(dict(params), user_attrs={"run_key": run_key})

    def enqueue_interrupted_samples(self) -> None:
        """Queue a search's failed or interrupted samples again, as they were, unless a later trial has settled them."""
        trials = self.study.get_trials(deepcopy=False)
        settled = [trial.params for trial in trials if trial.state != TrialState.FAIL]
        queued = [trial.system_attrs.get("fixed_params") for trial in trials if trial.state == TrialState.WAITING]
        for trial in trials:
            if trial.state == TrialState.FAIL and trial.params and trial.params not in [*settled, *queued]:
                self.study.enqueue_trial(dict(trial.params))
                queued.append(dict(trial.params))

    def ask(self) -> Ticket:
        """The next queued cell, or in a search a fresh sample.

        Where an earlier call was cut after Optuna had taken the trial, that cell is queued again first.
        """
        if self._asking:
            self._requeue_lost()
        self._asking = True
        trial = self.study.ask(self.space)
        self._asked[trial.number] = trial
        self._asking = False
        return Ticket(trial.number, dict(trial.params), trial.user_attrs.get("run_key", ""))

    def again(self, ticket: Ticket, run_key: str) -> Ticket:
        """A failed trial's params once more, as a trial of its own."""
        self.study.enqueue_trial(dict(ticket.params), user_attrs={"run_key": run_key})
        while (found := self.ask()).run_key != run_key:
            self.tell_failed(found.number)  # it waited before this one; the next driver queues it again
        return found

    def waiting(self) -> int:
        """How many trials are queued."""
        return len(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def settled(self) -> int:
        """How many trials have a result: complete or pruned."""
        return len(self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))

    def name(self, number: int, run_key: str) -> None:
        """Write a sampled cell's key to its trial."""
        self._asked[number].set_user_attr("run_key", run_key)

    def should_prune(self, number: int, epoch: int, score: float) -> bool:
        """Report an epoch's validation score; True when the median pruner gives the trial up."""
        trial = self._asked[number]
        trial.report(score, epoch)
        return trial.should_prune()

    def tell(self, number: int, value: float) -> None:
        """The cell is done."""
        self._tell(number, TrialState.COMPLETE, value)

    def tell_pruned(self, number: int) -> None:
        """The cell was stopped early by the pruner; Optuna keeps its last reported score."""
        self._tell(number, TrialState.PRUNED)

    def tell_failed(self, number: int) -> None:
        """The cell failed or was interrupted; the next driver runs it again."""
        self._tell(number, TrialState.FAIL)

    def trials(self) -> list[FrozenTrial]:
        """Every trial, for the report of a search."""
        return self.study.get_trials(deepcopy=False)

    def importances(self) -> dict[str, float]:
        """Each sampled setting's part of the importance (PED-ANOVA); empty where the finished trials do not tell."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            try:
                found = optuna.importance.get_param_importances(self.study, evaluator=evaluator)
            except (ValueError, RuntimeError):  # fewer than two trials, or all alike
                return {}
        return found if sum(found.values()) > 0 else {}

    def _tell(self, number: int, state: TrialState, value: float | None = None) -> None:
        """Tell Optuna, by whom the lock allows it. To have told the same already is no error: the answer was lost."""
        self.hold()
        try:
            self.study.tell(number, value, None if state == TrialState.COMPLETE else state)
        except ValueError:
            told = self.study.get_trials(deepcopy=False)[number]
            if (told.state, told.value if state == TrialState.COMPLETE else value) != (state, value):
                raise

    def _requeue_lost(self) -> None:
        """Fail the trials that run for Optuna and that this driver knows nothing of; their cells wait again."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in self._asked:
                self._tell(trial.number, TrialState.FAIL)
                if (params := trial.system_attrs.get("fixed_params")) is not None:
                    self.study.enqueue_trial(params, user_attrs={"run_key": _key(trial)} if _key(trial) else None)


def params_of(cell: Cell, study: StudyConfig) -> dict[str, Level]:
    """A cell as Optuna's params: the factors' levels, fold and seed; the arm's name where the study names arms."""
    if study.arms:
        return {"arm": cell.arm.name, "fold": cell.fold, "seed": cell.seed}
    return {**{name: getattr(cell.arm.run, name) for name in study.factors}, "fold": cell.fold, "seed": cell.seed}


def sampled_cells(study: StudyConfig, ledger: Ledger) -> list[Cell]:
    """The cells that a search has completed so far."""
    done = [trial.params for trial in ledger.trials() if trial.state.name == "COMPLETE"]
    return [Cell(arm_of(study, params), 0, study.seeds[0]) for params in done]


def distributions(study: StudyConfig) -> dict[str, BaseDistribution]:
    """What a trial's params may be: the factors' levels, and fold and seed, or a search's learning rate.

    Where arms have names of their own they are told apart by these: they change what no factor does.
    """
    space: dict[str, BaseDistribution] = {name: CategoricalDistribution(study.levels(name)) for name in study.factors}
    if study.arms:
        space = {"arm": CategoricalDistribution([arm.name for arm in arms(study)])}
    if study.search is not None:
        return {**space, "lr": FloatDistribution(*study.search.lr, log=True)}
    fold = CategoricalDistribution(list(range(study.split.n_folds)))
    return {**space, "fold": fold, "seed": CategoricalDistribution(list(study.seeds))}


def _engine_options(storage_url: str) -> dict[str, Any]:
    """Of SQLAlchemy: connections are tried before use, and one to a machine that is gone is noticed."""
    if not is_postgres(storage_url):
        return {}
    return {"pool_pre_ping": True, "connect_args": {"connect_timeout": CONNECT_S, **KEEPALIVES}}


def _key(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("run_key", ""))
