"""Averaged weights: less of what a run ends with is the luck of its last steps."""

import copy
from typing import Any

from fastai.callback.core import Callback
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Averaged(Callback):  # type: ignore[misc]  # fastai has no types
    """Validates, and so keeps, an exponential moving average of weights and BatchNorm statistics.

    torch's average, over lists of tensors that are gathered once: its ``AveragedModel`` gathers them at every step,
    which took 3 to 8 ms of a step of 100.
    """

    order = 70  # after Watch, which reads the averaged weights when validation ends

    def __init__(self, net: nn.Module, decay: float):
        self.net, self.average = net, copy.deepcopy(net)
        self.mean: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch has no types here
        self.steps = 0

    def before_fit(self) -> None:
        """Gather the tensors, which a phase of training does not replace."""
        self.means, self.values = numbers(self.average), numbers(self.net)

    def after_step(self) -> None:
        """Take the step's weights into the average, which begins with those of the first step."""
        if self.steps:
            self.mean(self.means, self.values, self.steps)
        else:
            self.average.load_state_dict(self.net.state_dict())
        self.steps += 1

    def before_validate(self) -> None:
        """Put the average in the network's place."""
        self.trained = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.net.load_state_dict(self.average.state_dict())

    def after_validate(self) -> None:
        """Go on from the weights that were trained."""
        self.net.load_state_dict(self.trained)


def numbers(net: nn.Module) -> list[Tensor]:
    """Weights and statistics; the counters of batches, which are whole numbers, are none."""
    return [value for value in net.state_dict().values() if value.is_floating_point()]
