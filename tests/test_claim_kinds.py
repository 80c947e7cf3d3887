"""Every kind of claim on tiny real runs: named arms, epochs and images to a share, a gain that grows, a gap."""

from pathlib import Path
from typing import Any

import pytest
import torch

from litsexp.data.splits import limit_training, make_splits
from litsexp.data.store import Store
from litsexp.pipeline import Conclusion, run_study
from litsexp.plan import NOT_PLANNED, plan_study
from litsexp.spec.design import cells
from litsexp.spec.study import StudyConfig
from litsexp.study.places import Places
from litsexp.study.tracking import Tracking
from litsexp.training import architectures

WINDOW = {"says": "It helps.", "factor": "window", "better": "wide", "than": "liver"}
CLAIMS: list[dict[str, Any]] = [
    {"id": "named", "says": "It helps.", "factor": "arm", "better": "half", "than": "baseline", "metric": "dice_liver"},
    {**WINDOW, "id": "sooner", "metric": "epochs_to:dice_liver", "margin": 1},
    {**WINDOW, "id": "images", "metric": "images_to:dice_liver", "margin": 8, "share": 0.5},
    {**WINDOW, "id": "grows", "metric": "dice_liver", "grows": {"train_fraction": [1.0, 0.5]}},
]
GAP = {**WINDOW, "id": "gap", "metric": "gap:dice_liver"}
STUDY: dict[str, Any] = {
    "question": "Does every kind of claim get its answer?",
    "split": {"folds": 2, "valid": 0.3, "seed": 0},
    "run": {"encoder": "resnet18", "init": "scratch", "window": "wide", "augment": "none"},
    "factors": {"window": ["liver"], "train_fraction": [0.5]},
    "arms": {"half": {"window": "liver", "train_fraction": 0.5}},
}
SHORT = {"epochs": 3, "steps_per_epoch": 2, "batch_size": 4, "lr": 0.01}


def small_encoder(_: str = "") -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, 2, 1))


@pytest.fixture
def ran(new_places: Any, tmp_path: Path, phantom_store: Store, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``ran(*claims)``: the study with these claims, run to its conclusion, in one place."""
    monkeypatch.setattr(architectures, "random_encoder", small_encoder)
    new_places(tmp_path)
    root = phantom_store.directory.parents[1]
    places = Places.below(tmp_path / "mlruns", stores=root)

    def run(*claims: dict[str, Any]) -> tuple[StudyConfig, Conclusion, Places]:
        content = {**STUDY, "run": {**STUDY["run"], **SHORT}, "data": {"cohort": str(root / "ct")}}
        study = StudyConfig.model_validate(content | {"claims": claims})
        return study, run_study(study, places, name="kinds", workers=1), places

    return run


def test_every_kind_is_answered_and_a_gap_asked_later_trains_nothing(ran: Any, phantom_store: Store) -> None:
    _, first, places = ran(*CLAIMS)
    assert (len(first.trained_s), first.failures) == (8, {})
    found = {verdict.claim.id: verdict for verdict in first.verdicts}
    assert [verdict.n_run_pairs for verdict in found.values()] == [2] * 4
    assert not any(verdict.post_hoc for verdict in found.values())
    means = first.results.cases.groupby(["arm", "case"])["dice_liver"].mean().groupby("arm").mean()
    assert found["named"].effect == pytest.approx(means["half"] - means["baseline"])
    gains = means["train_fraction=0.5"] - means["half"], means["baseline"] - means["window=liver"]
    assert found["grows"].effect == pytest.approx(gains[0] - gains[1])
    settings = "arm half (window=liver, train_fraction=0.5)", "arm baseline (window=wide, train_fraction=1)"
    assert found["named"].comparison == settings
    assert set(found["sooner"].pairs[["better", "than"]].stack()) <= {1.0, 2.0, 3.0, 4.0}
    assert set(found["images"].pairs[["better", "than"]].stack()) <= {8.0, 16.0, 24.0, 32.0}
    assert first.results.train.empty
    told = first.report.read_text()
    assert settings[0] in told and "half (window=liver, train_fraction=0.5)" in told
    _told_in_mlflow(places, settings)

    asked, second, _ = ran(*CLAIMS, GAP)
    assert (second.trained_s, second.failures) == ([], {})
    (gap,) = (verdict for verdict in second.verdicts if verdict.claim.id == "gap")
    assert gap.post_hoc and gap.n_run_pairs == 2
    arm = second.results.train.query("arm == 'baseline'").groupby("case")["dice_liver"].mean().mean()
    assert gap.better_mean == pytest.approx(arm - means["baseline"])
    _only_who_was_trained_on(asked, second, phantom_store)

    plan = {one.claim.id: one.source for one in plan_study(asked, places, "kinds", hours=False).claims}
    assert [name for name, source in plan.items() if source == NOT_PLANNED] == ["sooner", "images", "gap"]


def _told_in_mlflow(places: Places, settings: tuple[str, str]) -> None:
    (parent,) = (run for run in _runs(places) if "study_digest" in run.data.tags and "run_key" not in run.data.tags)
    assert parent.data.tags["compared.named"] == " against ".join(settings)
    assert settings[0] in parent.data.tags["mlflow.note.content"]
    assert {name for name in parent.data.metrics if name.startswith("effect/")} >= {"effect/named", "effect/grows"}
    arms = [run.data.params["arm"] for run in _runs(places) if "run_key" in run.data.tags]
    assert sorted(set(arms)) == ["baseline", "half", "train_fraction=0.5", "window=liver"]


def _runs(places: Places) -> list[Any]:
    return Tracking(places.tracking_uri, "kinds", places.root / "artifacts").runs()


def _only_who_was_trained_on(study: StudyConfig, conclusion: Conclusion, store: Store) -> None:
    """With a part of the training patients these count, and no other."""
    splits, train = make_splits(store.has_tumor, study.split), conclusion.results.train
    for cell in cells(study):
        limited = limit_training(splits[cell.fold], cell.arm.run.train_fraction, cell.random_seed, store.has_tumor)
        own = train[(train["arm"] == cell.arm.name) & (train["fold"] == cell.fold)]
        assert tuple(sorted(own["case"])) == limited.train
    sizes = train.groupby("arm")["case"].size()
    assert sizes["half"] < sizes["baseline"]
