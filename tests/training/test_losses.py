"""Cross entropy against torch's, soft Dice, focal and Tversky against sums done by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from litsexp.spec.catalog import LOSSES
from litsexp.spec.run import RunConfig
from litsexp.spec.tables import resolve
from litsexp.training.losses import CrossEntropyDice, soft_dice, soft_tversky


@pytest.fixture
def logits() -> Tensor:
    return torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.fixture
def labels() -> Tensor:
    return torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(1))


def dice_in_numpy(logits: Tensor, labels: Tensor, smooth: float) -> np.ndarray:
    raw = logits.detach().double().numpy()
    probability = np.exp(raw) / np.exp(raw).sum(1, keepdims=True)
    scores = []
    for label in range(raw.shape[1]):
        p, t = probability[:, label], labels.numpy() == label
        scores.append((2 * (p * t).sum() + smooth) / (p.sum() + t.sum() + smooth))
    return np.array(scores)


def test_weight_zero_is_torchs_cross_entropy(logits: Tensor, labels: Tensor) -> None:
    torch.testing.assert_close(CrossEntropyDice(0.0)(logits, labels), cross_entropy(logits, labels))


@pytest.mark.parametrize("smooth", [1e-5, 1.0, 50.0])
def test_weight_one_is_one_minus_the_mean_dice_of_liver_and_tumor(
    logits: Tensor, labels: Tensor, smooth: float
) -> None:
    expected = 1 - dice_in_numpy(logits, labels, smooth)[1:].mean()
    assert of_arm(dice_weight=1, dice_smooth=smooth)(logits, labels).item() == pytest.approx(expected, abs=1e-6)


def test_between_them_it_is_the_weighted_sum(logits: Tensor, labels: Tensor) -> None:
    ce, dice = (CrossEntropyDice(weight)(logits, labels).item() for weight in (0.0, 1.0))
    assert CrossEntropyDice(0.25)(logits, labels).item() == pytest.approx(0.75 * ce + 0.25 * dice, abs=1e-6)


def test_soft_dice_by_hand() -> None:
    """Two pixels, labels 0 and 1, probabilities (0.75, 0.25, 0) and (0.5, 0.5, 0): with 1 pixel of smoothing."""
    probability = torch.tensor([[0.75, 0.25, 0.0], [0.5, 0.5, 0.0]]).T.reshape(1, 3, 1, 2)
    truth = one_hot(torch.tensor([[[0, 1]]]), 3).movedim(-1, 1)
    expected = [(2 * 0.75 + 1) / (1.25 + 1 + 1), (2 * 0.5 + 1) / (0.75 + 1 + 1), 1 / 1]
    torch.testing.assert_close(soft_dice(probability, truth), torch.tensor(expected))


@pytest.mark.parametrize("loss", ["ce_dice", "tversky"])
def test_with_next_to_no_smoothing_an_absent_structure_has_no_part_in_dice(
    logits: Tensor, labels: Tensor, loss: str
) -> None:
    without_tumor = labels.clamp(max=1)
    truth = one_hot(without_tumor, 3).movedim(-1, 1)

    def gradient(value: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(value, logits)
        return found

    liver_alone = gradient(-soft_dice(logits.softmax(1), truth, 1e-9)[1] / 2)
    with_next_to_none = of_arm(loss=loss, dice_weight=1, dice_smooth=1e-9)(logits, without_tumor)
    torch.testing.assert_close(gradient(with_next_to_none), liver_alone)
    pixel = gradient(-soft_dice(logits.softmax(1), truth, 1.0)[2])
    assert (pixel[:, 2] > 0).all()  # a pixel of smoothing pulls every tumor logit down


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


# focal, Tversky, class weights


def of_arm(**settings: object) -> CrossEntropyDice:
    run = RunConfig.model_validate(settings)
    loss: CrossEntropyDice = resolve(LOSSES[run.loss].make)(run)
    return loss


def two_pixels(liver: float = 0.5, tumor: float = 0.8) -> tuple[Tensor, Tensor]:
    """A liver pixel that is given ``liver`` to be it, and a tumor pixel ``tumor``; the rest goes to background."""
    probability = torch.tensor([[1 - liver, liver, 0.0], [1 - tumor, 0.0, tumor]], dtype=torch.float64)
    return (probability + 1e-300).log().T.reshape(1, 3, 1, 2), torch.tensor([[[1, 2]]])


def test_focal_by_hand() -> None:
    """Lin 2017, equation 4, with gamma 2: a pixel that is 0.8 right counts 0.04, one that is 0.5 right 0.25."""
    expected = -(0.5**2 * math.log(0.5) + 0.2**2 * math.log(0.8)) / 2
    assert of_arm(loss="focal", dice_weight=0)(*two_pixels()).item() == pytest.approx(expected)
    expected = -(0.5**0.5 * math.log(0.5) + 0.2**0.5 * math.log(0.8)) / 2
    assert of_arm(loss="focal", dice_weight=0, focal_gamma=0.5)(*two_pixels()).item() == pytest.approx(expected)


def test_class_weights_by_hand() -> None:
    """The liver pixel counts 3, the tumor pixel 5, of 8 together; in focal the same."""
    loss = of_arm(dice_weight=0, liver_weight=3, tumor_weight=5)(*two_pixels())
    assert loss.item() == pytest.approx(-(3 * math.log(0.5) + 5 * math.log(0.8)) / 8)
    loss = of_arm(loss="focal", dice_weight=0, liver_weight=3, tumor_weight=5)(*two_pixels())
    assert loss.item() == pytest.approx(-(3 * 0.25 * math.log(0.5) + 5 * 0.04 * math.log(0.8)) / 8)


def test_class_weights_are_torchs(logits: Tensor, labels: Tensor) -> None:
    expected = cross_entropy(logits, labels, weight=torch.tensor([1.0, 2.0, 7.0]))
    torch.testing.assert_close(of_arm(dice_weight=0, liver_weight=2, tumor_weight=7)(logits, labels), expected)


def test_tversky_by_hand() -> None:
    """Tumor: TP 0.8, FP 0, FN 0.2, of which beta 0.7 counts; liver's Dice 2 * 0.5 of 0.5 + 1; a pixel smooths."""
    liver, tumor = (2 * 0.5 + 1) / (1.5 + 1), (2 * 0.8 + 1) / (2 * 0.8 + 2 * 0.7 * 0.2 + 1)
    loss = of_arm(loss="tversky", dice_weight=1)(*two_pixels())
    assert loss.item() == pytest.approx(1 - (liver + tumor) / 2)


def test_a_larger_beta_minds_missed_tumor_more_and_false_tumor_less() -> None:
    truth, half = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]]), torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    missed = [soft_tversky(half, truth, beta).item() for beta in (0.3, 0.5, 0.9)]
    false = [soft_tversky(truth, half, beta).item() for beta in (0.3, 0.5, 0.9)]
    assert missed == sorted(missed, reverse=True) and len(set(missed)) == 3
    assert false == sorted(false) and len(set(false)) == 3
    assert missed[2] == pytest.approx((2 + 1) / (2 + 2 * 0.9 + 1))


def test_their_neutral_settings_are_ce_dice(logits: Tensor, labels: Tensor) -> None:
    expected = of_arm()(logits, labels)
    assert torch.equal(of_arm(loss="focal", focal_gamma=0)(logits, labels), expected)
    assert torch.equal(of_arm(loss="tversky", tversky_beta=0.5)(logits, labels), expected)
    tumor = one_hot(labels, 3).movedim(-1, 1)[:, 2]
    dice = soft_dice(logits.softmax(1), one_hot(labels, 3).movedim(-1, 1))[2]
    torch.testing.assert_close(soft_tversky(logits.softmax(1)[:, 2], tumor, 0.5), dice)


VARIANTS = [
    {"loss": "focal"},
    {"loss": "focal", "focal_gamma": 0.5, "dice_weight": 0},
    {"loss": "focal", "focal_gamma": 5, "dice_weight": 0, "tumor_weight": 20},
    {"loss": "tversky"},
    {"loss": "tversky", "tversky_beta": 0.9, "dice_weight": 1},
    {"liver_weight": 2, "tumor_weight": 10},
]
SHOWN = [(0, 1, 2), (0, 1), (0, 2), (0,), (2,)]  # the labels that a batch has


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_gradients_are_right_whatever_labels_a_batch_shows(settings: dict[str, object], shown: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor(shown)[torch.randint(len(shown), (2, 3, 3), generator=generator)]
    logits = torch.randn((2, 3, 3, 3), generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda one: of_arm(**settings)(one, labels), (logits,))


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
@pytest.mark.parametrize("shown", SHOWN, ids=str)
def test_a_sure_network_is_finite_right_or_wrong(settings: dict[str, object], shown: tuple[int, ...]) -> None:
    """Probabilities of exactly 1 and 0 in float32: no loss and no gradient may be other than a number."""
    labels = torch.tensor(shown)[torch.arange(128) % len(shown)].reshape(2, 8, 8)
    right = 200.0 * one_hot(labels, 3).movedim(-1, 1)
    for logits in (right, right.roll(1, dims=1), torch.zeros_like(right)):
        logits.requires_grad_()
        loss = of_arm(**settings)(logits, labels)
        assert loss.isfinite()
        assert torch.autograd.grad(loss, logits)[0].isfinite().all()
    assert of_arm(**settings)(right, labels).item() == pytest.approx(0, abs=1e-5)
    assert of_arm(**settings)(right.roll(1, dims=1), labels).item() > 0.4


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_no_backward_pass_scatters(settings: dict[str, object], logits: Tensor, labels: Tensor) -> None:
    """The kernels that need not repeat on a GPU: gather's, index's and nll_loss's gradients."""
    seen, stack = set(), [of_arm(**settings)(logits, labels).grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [parent for parent, _ in node.next_functions]
    names = {node.name() for node in seen}
    assert "LogSoftmaxBackward0" in names
    assert not any(word in name for name in names for word in ("Gather", "Index", "Scatter", "NllLoss", "Put"))
