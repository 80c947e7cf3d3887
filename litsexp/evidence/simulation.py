"""How often verdicts are right where the truth is known: simulated studies, judged as real ones are.

A simulated family is four claims, each of another arm against the same baseline: they share the baseline's runs and the
patients. Of claim c, the difference of patient p under run pair r is::

    effect + patient[c, p] + run[c, r] + residual[c, p, r]

each part half the baseline's (the same for all four claims) and half the arm's own: patients of SD 0.15, skewed (sums
of exponentials), residuals of SD 0.08, runs of SD ``run_sd``, normal. In 10 % of the patients neither arm ever finds
anything and every difference is 0; the others' effect is larger, so that the mean over patients is ``effect``. Where
runs collapse, that share of the compared arm's runs loses 0.3, the baseline's never; what this costs on average is no
part of ``effect``.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litsexp.evidence import stats
from litsexp.evidence.planning import MIN_RUN_PAIRS

Floats = NDArray[np.float64]
Progress = Callable[[int, int], None]

CLAIMS, ALPHA = 4, 0.05
EFFECT = 0.10  # of real differences, up in every other claim and down in the rest; also the margin of equivalence
PATIENT_SD, RESIDUAL_SD, TIED = 0.15, 0.08, 0.10
COLLAPSED, LOSS = 1 / 12, 0.3  # share of an arm's runs, and what each of them loses
CALM_RUN_SD = 0.10  # up to here, and without collapses, the procedure promises what ``misses`` asks
LEAST_COVERAGE, MOST_FALSE, MOST_WRONG = 0.94, 0.055, 0.05  # what is asked: of intervals, families, equivalence
FLIPS = 499  # random signs of the earlier procedure's test
CHUNK = 4_000_000  # differences held at once

PATIENTS = (12, 20, 36, 118)
RUNS = ((3, 1), (5, 1), (3, 2), (3, 3), (5, 2), (3, 5), (5, 3), (5, 5))  # folds x seeds
NOISE = ((0.0, 0.0), (0.02, 0.0), (0.05, 0.0), (0.10, 0.0), (0.16, 0.0), (0.05, COLLAPSED))  # run SD, share collapsed


@dataclass(frozen=True)
class Setting:
    """A design and the noise that it meets: one row of the table."""

    patients: int
    folds: int
    seeds: int
    run_sd: float  # of a pair of runs: what the difference of its two runs has in common over all patients
    collapses: float = 0.0  # share of the compared arm's runs
    crossed: bool = False  # every run meets every patient, as on an external cohort; else the patients of its fold

    @property
    def run_pairs(self) -> int:
        """Of each claim."""
        return self.folds * self.seeds

    @property
    def promised(self) -> bool:
        """Whether the procedure claims to be right here: enough run pairs, noise as calm runs have."""
        return self.run_pairs >= MIN_RUN_PAIRS and self.run_sd <= CALM_RUN_SD and not self.collapses


@dataclass(frozen=True)
class Row:
    """What came out, as shares of the simulated studies or claims. A verdict is false where no effect is real."""

    setting: Setting
    studies: int
    coverage: float  # of the 95 % interval, at a real effect
    false_single: float  # of one claim
    false_family: float  # at least one of four claims, after Holm
    wrong_equivalence: float  # at a real effect of the margin's size
    power: float  # at a real effect, of one claim
    power_family: float  # of the only real one of four claims, after Holm
    half_width: float  # median
    patients_only_single: float  # false verdicts of the earlier procedure: sign flips over patients' means
    patients_only_family: float

    @property
    def misses(self) -> list[str]:
        """What is worse than asked of the procedure, whatever the setting."""
        return [f"{what} {found:.3f}, asked {asked:.3f}" for what, found, asked, by in self._compared() if by > 0]

    @property
    def by_chance(self) -> bool:
        """Whether all that is worse than asked is so by less than two Monte Carlo standard errors."""
        return all(by <= 2 * standard_error(asked, self.studies) for _, _, asked, by in self._compared())

    def _compared(self) -> list[tuple[str, float, float, float]]:
        """What, found, asked, and by how much it is worse."""
        return [
            ("coverage", self.coverage, LEAST_COVERAGE, LEAST_COVERAGE - self.coverage),
            ("false in a family", self.false_family, MOST_FALSE, self.false_family - MOST_FALSE),
            ("wrong equivalence", self.wrong_equivalence, MOST_WRONG, self.wrong_equivalence - MOST_WRONG),
        ]


def settings(crossed: Sequence[bool] = (False, True)) -> list[Setting]:
    """The whole table's rows."""
    return [
        Setting(n, folds, seeds, run_sd, collapses, cross)
        for cross in crossed
        for n in PATIENTS
        for folds, seeds in RUNS
        for run_sd, collapses in NOISE
    ]


def selection(crossed: Sequence[bool] = (False, True)) -> list[Setting]:
    """A dozen rows that tell the story."""
    nested = [Setting(12, 3, 3, 0.05)]
    nested += [Setting(36, folds, seeds, 0.05) for folds, seeds in ((3, 1), (5, 1), (3, 2), (3, 5))]
    nested += [Setting(36, 3, 3, run_sd, collapses) for run_sd, collapses in NOISE]
    others = [Setting(118, 5, 3, 0.05), Setting(12, 3, 3, 0.05, crossed=True), Setting(36, 3, 3, 0.10, crossed=True)]
    return [setting for setting in [*nested, *others] if setting.crossed in crossed]


def simulate(
    rows: Sequence[Setting], studies: int = 2000, seed: int = 0, progress: Progress | None = None
) -> Iterator[Row]:
    """One row a setting, of so many simulated families each; ``progress(done, all)`` after each row.

    A row depends on the seed and its own setting alone, not on the other rows; rows of one design share their draws.
    """
    for done, setting in enumerate(rows, 1):
        yield simulate_row(setting, studies, seed)
        if progress is not None:
            progress(done, len(rows))


def simulate_row(setting: Setting, studies: int = 2000, seed: int = 0) -> Row:
    """Draw, judge and count the studies of one setting."""
    rng = np.random.default_rng([seed, setting.patients, setting.folds, setting.seeds, int(setting.crossed)])
    patients, runs = layout(setting)
    size = max(1, CHUNK // (CLAIMS * len(patients)))
    parts = []
    for start in range(0, studies, size):
        null, real = differences(setting, min(size, studies - start), rng)
        parts.append(_judged(null, real, patients, runs, rng))
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    means = {name: float(values.mean()) for name, values in found.items() if name != "half_width"}
    return Row(setting, studies, half_width=float(np.median(found["half_width"])), **means)


def standard_error(share: float, studies: int) -> float:
    """Monte Carlo standard error of a share of so many independent studies."""
    return math.sqrt(share * (1 - share) / studies)


def layout(setting: Setting) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(m,) patient and (m,) run pair of every difference; patients are dealt to the folds one by one."""
    patient, run = (grid.ravel() for grid in np.indices((setting.patients, setting.run_pairs)))
    tested = np.full(len(patient), True) if setting.crossed else run // setting.seeds == patient % setting.folds
    return patient[tested], run[tested]


def differences(setting: Setting, studies: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """(studies, claims, m) differences without an effect, and the same with one: +, -, +, - over the claims."""
    patients, runs = layout(setting)

    def halves(draw: Callable[[tuple[int, int, int]], Floats], size: int) -> Floats:
        """(studies, claims, size) of variance 1: the baseline's part, the same in all claims, and the arms' own."""
        return (draw((studies, 1, size)) + draw((studies, CLAIMS, size))) / math.sqrt(2)

    def skewed(shape: tuple[int, int, int]) -> Floats:
        return rng.standard_exponential(shape) - 1

    values = halves(rng.standard_normal, len(patients))
    values *= RESIDUAL_SD
    values += PATIENT_SD * halves(skewed, setting.patients)[..., patients]
    of_run = setting.run_sd * halves(rng.standard_normal, setting.run_pairs)
    if setting.collapses:
        of_run += LOSS * ((rng.random(of_run.shape) < setting.collapses) - setting.collapses)
    values += of_run[..., runs]
    finds = (rng.random((studies, 1, setting.patients)) >= TIED)[..., patients]
    values *= finds
    signs = np.array([1.0, -1.0] * (CLAIMS // 2))[:, None]
    return values, values + finds * (signs * EFFECT / (1 - TIED))


def _judged(
    null: Floats, real: Floats, patients: NDArray[np.int64], runs: NDArray[np.int64], rng: np.random.Generator
) -> dict[str, Floats]:
    """Of each study and claim (or study) what was right and wrong, as 0 and 1."""
    calm, moved = _estimate(null, patients, runs), _estimate(real, patients, runs)
    truth = EFFECT * np.array([1.0, -1.0] * (CLAIMS // 2))
    earlier = _sign_flip_p(null, patients, rng)
    return {
        "coverage": ((moved.low <= truth) & (truth <= moved.high)).astype(float),
        "false_single": (calm.p < ALPHA).astype(float),
        "false_family": (calm.p.min(-1) < ALPHA / CLAIMS).astype(float),  # Holm's first step decides whether any is
        "wrong_equivalence": ((moved.low > -EFFECT) & (moved.high < EFFECT)).astype(float),
        "power": (_toward(truth, moved) & (moved.p < ALPHA)).astype(float),
        "power_family": (_toward(truth, moved) & (_only_real(calm.p, moved.p) < ALPHA)).astype(float),
        "half_width": (calm.high - calm.low) / 2,
        "patients_only_single": (earlier < ALPHA).astype(float),
        "patients_only_family": (earlier.min(-1) < ALPHA / CLAIMS).astype(float),
    }


def _estimate(values: Floats, patients: NDArray[np.int64], runs: NDArray[np.int64]) -> stats.Estimate:
    """``stats.paired`` of (studies, claims, m), as one large matrix: that is many times faster than a stack of them."""
    found = stats.paired(values.reshape(-1, values.shape[-1]), patients, runs)
    return stats.Estimate(*(part.reshape(values.shape[:-1]) for part in found))


def _toward(truth: Floats, found: stats.Estimate) -> NDArray[np.bool_]:
    """Whether the effect that was found has the true one's sign."""
    right: NDArray[np.bool_] = np.sign(found.effect) == np.sign(truth)
    return right


def _only_real(null: Floats, real: Floats) -> Floats:
    """(studies, claims) adjusted p of each claim where it alone is real and the other three are not."""
    adjusted = [holm(np.where(np.arange(CLAIMS) == claim, real, null))[:, claim] for claim in range(CLAIMS)]
    return np.stack(adjusted, -1)


def holm(p: Floats) -> Floats:
    """``stats.holm`` of each row of (studies, claims)."""
    order = np.argsort(p, -1)
    steps = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(1.0, np.maximum.accumulate(steps, -1)), -1)
    return adjusted


def _sign_flip_p(values: Floats, patients: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Two-sided p of (..., m) over patients alone: how often random signs move the mean of their means as far."""
    member = np.eye(patients.max() + 1)[patients]
    means = (values.reshape(-1, values.shape[-1]) @ (member / member.sum(0))).reshape(*values.shape[:-1], -1)
    signs = rng.choice([-1.0, 1.0], (means.shape[-1], FLIPS))
    reached = np.abs(means @ signs) >= np.abs(means.sum(-1, keepdims=True)) - stats.TIE
    found: Floats = (1 + reached.sum(-1)) / (1 + FLIPS)
    return found
