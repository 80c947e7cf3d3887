"""Prediction: a function of weights and slices."""

import numpy as np
import torch

from litsexp.data.splits import Split
from litsexp.data.store import Store
from litsexp.training.loaders import EvalLoader, Slices
from litsexp.training.loop import build_learner
from litsexp.training.predict import predict

from .conftest import BASE, Train, arm

CPU = torch.device("cpu")


def test_predictions_are_the_likeliest_labels_in_the_order_of_the_rows(
    tiny: None, phantom_store: Store, phantom_split: Split
) -> None:
    model = build_learner(BASE, Slices(phantom_store, CPU), phantom_split, 0).model
    rows = phantom_store.rows_of([3, 5])[::-1].copy()
    together = predict(BASE, model.net.state_dict(), phantom_store, rows)
    assert together.dtype == np.uint8 and set(np.unique(together)) <= {0, 1, 2}
    for row, labels in zip(rows, together, strict=True):
        ((image, _),) = EvalLoader(Slices(phantom_store, CPU), np.array([row]), BASE)
        with torch.inference_mode():
            probability = model.eval()(image)[0].softmax(0)
        assert (probability.max(0).values - probability.gather(0, torch.from_numpy(labels)[None].long())).max() < 1e-5


def test_weights_decide_and_the_arms_initialisation_does_not(
    run_arm: Train, phantom_store: Store, external_store: Store
) -> None:
    trained = run_arm(arm(epochs=1, steps_per_epoch=4))
    rows = np.arange(len(external_store.index))
    first, gone = (
        predict(arm(init=init), trained.weights, external_store, rows) for init in ("scratch", "file:gone.safetensors")
    )
    np.testing.assert_array_equal(first, gone)
    other = run_arm(arm(epochs=1, steps_per_epoch=4), seed=1)
    assert not np.array_equal(first, predict(arm(), other.weights, external_store, rows))


def test_no_rows_give_no_labels(run_arm: Train, phantom_store: Store) -> None:
    trained = run_arm(arm(epochs=1))
    assert predict(BASE, trained.weights, phantom_store, np.empty(0, np.int64)).shape == (0, 64, 64)
