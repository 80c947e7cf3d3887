"""Losses: a mix of cross entropy and soft Dice, and variants that change one of its two terms each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from litsexp.spec.run import RunConfig

LIVER, TUMOR = 1, 2


def ce_dice(run: RunConfig) -> CrossEntropyDice:
    """The loss ``ce_dice`` of an arm."""
    return _loss(run)


def focal(run: RunConfig) -> CrossEntropyDice:
    """The loss ``focal`` of an arm: ``ce_dice`` but for its cross entropy; with ``dice_weight`` 0, that alone."""
    return _loss(run, gamma=run.focal_gamma)


def tversky(run: RunConfig) -> CrossEntropyDice:
    """The loss ``tversky`` of an arm: ``ce_dice`` but for the tumor's Dice; with ``dice_weight`` 1, overlap alone."""
    return _loss(run, beta=run.tversky_beta)


def _loss(run: RunConfig, **term: float) -> CrossEntropyDice:
    return CrossEntropyDice(run.dice_weight, run.liver_weight, run.tumor_weight, smooth=run.dice_smooth, **term)


class CrossEntropyDice:
    """``(1 - dice_weight) * CE + dice_weight * (1 - overlap)``, both over the whole batch.

    CE is the mean over pixels, each weighted by its true label (the sum of weights is 1, as in torch), and by
    ``(1 - p) ** gamma`` where it is focal. Overlap is the mean over liver and tumor of soft Dice, each pooled over the
    batch (Milletari 2016, with the sum in the denominator); background, which any model gets right, has no part in it.
    With ``beta`` the tumor's is Tversky's index. ``smooth`` pixels keep the Dice of a structure that a batch does not
    show defined, and pull its probabilities down; near 0 they leave that to the cross entropy. All terms use the
    one-hot truth, so that the backward pass has no scatter and repeats bit for bit on a GPU too.
    """

    def __init__(
        self,
        dice_weight: float,
        liver_weight: float = 1.0,
        tumor_weight: float = 1.0,
        gamma: float = 0.0,
        beta: float = 0.5,
        smooth: float = 1.0,
    ):
        self.dice_weight, self.liver_weight, self.tumor_weight = dice_weight, liver_weight, tumor_weight
        self.gamma, self.beta, self.smooth = gamma, beta, smooth

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss, float32 or better, of logits (B, C, H, W) against labels (B, H, W) with values 0 .. C-1."""
        log_probability = log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)
        truth = one_hot(labels, logits.shape[1]).movedim(-1, 1)
        loss = log_probability.new_zeros(())
        if self.dice_weight < 1:
            loss = loss - (1 - self.dice_weight) * self._log_likelihood(log_probability, truth)
        if self.dice_weight > 0:
            loss = loss + self.dice_weight * (1 - self._overlap(log_probability.exp(), truth))
        return loss

    def _log_likelihood(self, log_probability: Tensor, truth: Tensor) -> Tensor:
        """Scalar: the mean over pixels of the true label's log probability, weighted and focal as the loss is."""
        of_truth = (truth * log_probability).sum(1)
        if self.gamma:
            of_truth = of_truth * focus(of_truth, self.gamma)
        if self.liver_weight == self.tumor_weight == 1:
            return of_truth.mean()
        heavier = (self.liver_weight - 1) * truth[:, LIVER] + (self.tumor_weight - 1) * truth[:, TUMOR]
        weight = 1 + heavier.to(of_truth.dtype)
        return (weight * of_truth).sum() / weight.sum()

    def _overlap(self, probability: Tensor, truth: Tensor) -> Tensor:
        """Scalar: the mean over liver and tumor."""
        per_label = soft_dice(probability, truth, self.smooth)[1:]
        if self.beta == 0.5:
            return per_label.mean()
        tumor = soft_tversky(probability[:, TUMOR], truth[:, TUMOR], self.beta, self.smooth)
        return (per_label[LIVER - 1] + tumor) / 2


def focus(log_probability: Tensor, gamma: float) -> Tensor:
    """``(1 - p) ** gamma`` (Lin 2017), of log probabilities: pixels that are right already count less.

    Held above the last bit of a probability: the gradient of a power below 1 is infinite at ``p = 1``.
    """
    wrong = -torch.expm1(log_probability)
    return wrong.clamp(min=torch.finfo(wrong.dtype).eps) ** gamma


def soft_dice(probability: Tensor, truth: Tensor, smooth: float = 1.0) -> Tensor:
    """Soft Dice per label, (C,), of probabilities and one-hot truth, both (B, C, H, W); ``smooth`` in pixels."""
    over = (0, 2, 3)
    both = (probability * truth).sum(over)
    return (2 * both + smooth) / (probability.sum(over) + truth.sum(over) + smooth)


def soft_tversky(probability: Tensor, truth: Tensor, beta: float, smooth: float = 1.0) -> Tensor:
    """Tversky's index ``TP / (TP + (1 - beta) FP + beta FN)`` (Salehi 2017), a scalar, smoothed as Dice is.

    ``probability`` of one label and its truth, both (B, H, W). At ``beta`` 0.5 it is soft Dice; above, what is missed
    costs more than what is painted in vain. Salehi's two weights add up to 1 as well, so one number is enough.
    """
    both, false = (probability * truth).sum(), (probability * (1 - truth)).sum()
    missed = ((1 - probability) * truth).sum()
    wrong = 2 * (1 - beta) * false + 2 * beta * missed
    return (2 * both + smooth) / (2 * both + wrong + smooth)
