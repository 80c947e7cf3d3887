"""Cross entropy against torch's, soft Dice against sums done by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from litsexp.training.losses import SMOOTH_PIXELS, CrossEntropyDice, soft_dice


@pytest.fixture
def logits() -> Tensor:
    return torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.fixture
def labels() -> Tensor:
    return torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(1))


def dice_in_numpy(logits: Tensor, labels: Tensor) -> np.ndarray:
    raw = logits.detach().double().numpy()
    probability = np.exp(raw) / np.exp(raw).sum(1, keepdims=True)
    scores = []
    for label in range(raw.shape[1]):
        p, t = probability[:, label], labels.numpy() == label
        scores.append((2 * (p * t).sum() + SMOOTH_PIXELS) / (p.sum() + t.sum() + SMOOTH_PIXELS))
    return np.array(scores)


def test_weight_zero_is_torchs_cross_entropy(logits: Tensor, labels: Tensor) -> None:
    torch.testing.assert_close(CrossEntropyDice(0.0)(logits, labels), cross_entropy(logits, labels))


def test_weight_one_is_one_minus_the_mean_dice_of_liver_and_tumor(logits: Tensor, labels: Tensor) -> None:
    expected = 1 - dice_in_numpy(logits, labels)[1:].mean()
    assert CrossEntropyDice(1.0)(logits, labels).item() == pytest.approx(expected, abs=1e-6)


def test_between_them_it_is_the_weighted_sum(logits: Tensor, labels: Tensor) -> None:
    ce, dice = (CrossEntropyDice(weight)(logits, labels).item() for weight in (0.0, 1.0))
    assert CrossEntropyDice(0.25)(logits, labels).item() == pytest.approx(0.75 * ce + 0.25 * dice, abs=1e-6)


def test_soft_dice_by_hand() -> None:
    """Two pixels, labels 0 and 1, probabilities (0.75, 0.25, 0) and (0.5, 0.5, 0): with 1 pixel of smoothing."""
    probability = torch.tensor([[0.75, 0.25, 0.0], [0.5, 0.5, 0.0]]).T.reshape(1, 3, 1, 2)
    truth = one_hot(torch.tensor([[[0, 1]]]), 3).movedim(-1, 1)
    expected = [(2 * 0.75 + 1) / (1.25 + 1 + 1), (2 * 0.5 + 1) / (0.75 + 1 + 1), 1 / 1]
    torch.testing.assert_close(soft_dice(probability, truth), torch.tensor(expected))


def test_dice_pools_the_batch_and_not_each_image() -> None:
    """One tumor pixel found, and none in the other image: pooled it is whole."""
    labels = torch.zeros((2, 4, 4), dtype=torch.long)
    labels[0, 0, 0] = 2
    probability = one_hot(labels, 3).movedim(-1, 1).float()
    torch.testing.assert_close(soft_dice(probability, one_hot(labels, 3).movedim(-1, 1)), torch.ones(3))


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_gradient_reaches_every_logit_and_a_step_downhill_lowers_the_loss(
    logits: Tensor, labels: Tensor, weight: float
) -> None:
    loss_of = CrossEntropyDice(weight)
    loss = loss_of(logits, labels)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient != 0).all()
    assert loss_of(logits - gradient, labels) < loss


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("highest", [0, 1, 2])
def test_right_is_near_zero_and_wrong_is_not_whatever_labels_a_batch_shows(weight: float, highest: int) -> None:
    """Batches without tumor, and without liver: finite, and nothing to lose."""
    labels = torch.arange(128).reshape(2, 8, 8) % (highest + 1)
    right = 50.0 * one_hot(labels, 3).movedim(-1, 1)
    right.requires_grad_()
    loss = CrossEntropyDice(weight)(right, labels)
    assert 0 <= loss.item() < 1e-5
    assert torch.autograd.grad(loss, right)[0].isfinite().all()
    assert CrossEntropyDice(weight)(right.roll(1, dims=1), labels).item() > 0.4


def test_bf16_logits_give_a_float32_loss(logits: Tensor, labels: Tensor) -> None:
    loss = CrossEntropyDice(0.5)(logits.bfloat16(), labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, CrossEntropyDice(0.5)(logits, labels), rtol=1e-2, atol=1e-2)
