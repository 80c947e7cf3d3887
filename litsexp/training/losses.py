"""Losses: a mix of cross entropy and soft Dice."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from litsexp.spec.run import RunConfig

SMOOTH_PIXELS = 1.0  # keeps the Dice of a structure that a batch does not show defined


def ce_dice(run: RunConfig) -> CrossEntropyDice:
    """The loss ``ce_dice`` of an arm."""
    return CrossEntropyDice(run.dice_weight)


class CrossEntropyDice:
    """``(1 - dice_weight) * CE + dice_weight * (1 - soft Dice)``, both over the whole batch.

    Soft Dice is the mean over liver and tumor, each pooled over the batch (Milletari 2016, with the sum in the
    denominator); background, which any model gets right, has no part in it. Both terms use the one-hot truth, so that
    the backward pass has no scatter and repeats bit for bit on a GPU too.
    """

    def __init__(self, dice_weight: float):
        self.dice_weight = dice_weight

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of logits (B, C, H, W) against labels (B, H, W) with values 0 .. C-1."""
        log_probability = log_softmax(logits.float(), dim=1)
        truth = one_hot(labels, logits.shape[1]).movedim(-1, 1)
        loss = log_probability.new_zeros(())
        if self.dice_weight < 1:
            loss = loss - (1 - self.dice_weight) * (truth * log_probability).sum(1).mean()
        if self.dice_weight > 0:
            loss = loss + self.dice_weight * (1 - soft_dice(log_probability.exp(), truth)[1:].mean())
        return loss


def soft_dice(probability: Tensor, truth: Tensor) -> Tensor:
    """Soft Dice per label, (C,), of probabilities and one-hot truth, both (B, C, H, W)."""
    over = (0, 2, 3)
    both = (probability * truth).sum(over)
    return (2 * both + SMOOTH_PIXELS) / (probability.sum(over) + truth.sum(over) + SMOOTH_PIXELS)
