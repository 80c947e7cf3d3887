"""Averaged weights: less of what a run ends with is the luck of its last steps."""

from typing import Any

from fastai.callback.core import Callback
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Averaged(Callback):  # type: ignore[misc]  # fastai has no types
    """Validates, and so keeps, an exponential moving average of weights and BatchNorm statistics."""

    order = 70  # after Watch, which reads the averaged weights when validation ends

    def __init__(self, net: nn.Module, decay: float):
        self.net = net
        mean: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch has no types here
        self.average = AveragedModel(net, multi_avg_fn=mean, use_buffers=True)

    def after_step(self) -> None:
        """Take the step's weights into the average."""
        self.average.update_parameters(self.net)

    def before_validate(self) -> None:
        """Put the average in the network's place."""
        self.trained = {name: value.clone() for name, value in self.net.state_dict().items()}
        self.net.load_state_dict(self.average.module.state_dict())

    def after_validate(self) -> None:
        """Go on from the weights that were trained."""
        self.net.load_state_dict(self.trained)
