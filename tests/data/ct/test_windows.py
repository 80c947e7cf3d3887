"""The one definition of a window: values by hand, and the same from numpy and torch."""

import numpy as np
import pytest
import torch

from litsexp.data.ct.windows import windowed


def test_windows_by_hand() -> None:
    hu = np.array([-46, -45, 30, 105, 106], np.float32)
    shown = windowed(hu, 150, 30)  # W150 L30: -45 .. 105 HU
    assert shown.dtype == np.float32
    assert shown.tolist() == [0, 0, 0.5, 1, 1]
    with pytest.raises(ValueError, match="width_hu"):
        windowed(hu, 0, 40)


@pytest.mark.parametrize("window", [(150.0, 30.0), (200.0, 60.0), (400.0, 40.0), (333.3, -17.7), (7, 1.1)])
def test_a_tensor_gives_the_bits_of_an_array(window: tuple[float, float]) -> None:
    hu = np.concatenate([np.arange(-1024, 3072), np.random.default_rng(0).uniform(-200, 300, 5000)]).astype(np.float32)
    found = windowed(torch.from_numpy(hu), *window)
    assert isinstance(found, torch.Tensor) and found.dtype == torch.float32
    width_hu, level_hu = window
    assert torch.equal(found, ((torch.from_numpy(hu) - (level_hu - width_hu / 2)) / width_hu).clamp(0, 1))
    np.testing.assert_array_equal(found.numpy(), windowed(hu, *window))
