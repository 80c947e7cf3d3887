"""nnU-Net's folders: labels, regions, NaN, what is left out, and what is no result of nnU-Net's."""

import json
import math

import pytest

from litsexp.evidence.foreign.judged import judged
from litsexp.evidence.foreign.nnunet import default_claims, read_nnunet, with_columns
from litsexp.spec.errors import LitsexpError
from litsexp.spec.reading import as_claims

PLAIN, DA5 = "nnUNetTrainer__nnUNetPlans__3d_fullres", "nnUNetTrainerDA5__nnUNetPlans__3d_fullres"


def test_every_case_of_every_fold_is_a_row(trainers):
    folders = read_nnunet(trainers)
    table = folders.table
    assert folders.arms == [DA5, PLAIN]
    assert len(table) == 2 * 5 * 6
    assert set(table["fold"]) == set(range(5))
    assert set(table["seed"]) == {0}
    assert {"liver_0", "liver_29"} <= set(table["case"])
    assert list(folders.columns) == [
        f"{s}_{label}" for s in ("dice", "iou", "fp", "fn") for label in ("liver", "tumor")
    ]
    assert folders.columns["dice_tumor"].words == "tumor Dice"
    assert not folders.columns["fp_tumor"].higher_is_better
    assert folders.notes == []


def test_scores_are_those_of_the_file(tmp_path, nnunet_writer):
    scores = nnunet_writer["scores"]
    cases = {"a.b_7": {"1": scores(3, 1, 0), "2": scores(0, 0, 0)}, "c": {"1": scores(0, 0, 5), "2": scores(4, 0, 0)}}
    nnunet_writer["summary"](tmp_path / "T__p__2d", 3, cases)
    folders = read_nnunet(tmp_path)
    rows = folders.table.set_index("case")
    assert rows.loc["a.b_7", ["fold", "dice_1", "iou_1", "fp_1", "fn_1"]].tolist() == [3, 6 / 7, 3 / 4, 1, 0]
    assert math.isnan(rows.loc["a.b_7", "dice_2"])
    assert rows.loc["c", ["dice_1", "dice_2"]].tolist() == [0, 1]
    assert folders.columns["dice_2"].words == "Dice of label 2"
    assert folders.columns["dice_2"].undefined == "neither in the reference nor predicted"


def test_regions(tmp_path, nnunet_writer):
    trainer, scores = tmp_path / "T__p__2d", nnunet_writer["scores"]
    case = {"(1, 2)": scores(3, 1, 0), "(1, 3)": scores(2, 0, 0), "2": scores(1, 0, 0), "(3,)": scores(1, 1, 1)}
    nnunet_writer["summary"](trainer, 0, {"a": case})
    labels = {"background": 0, "whole tumor": [1, 2], "core": 2, "ignore": 4}
    (trainer / "dataset.json").write_text(json.dumps({"labels": labels}))
    folders = read_nnunet(tmp_path)
    dices = {name: column.words for name, column in folders.columns.items() if name.startswith("dice")}
    assert dices == {
        "dice_whole_tumor": "whole tumor Dice",
        "dice_1_3": "Dice of label 1 + 3",
        "dice_core": "core Dice",
        "dice_3": "Dice of label 3",
    }
    assert folders.table["dice_whole_tumor"].tolist() == [6 / 7]


def test_version_1_too(tmp_path):
    trainer = tmp_path / "nnUNetTrainerV2__nnUNetPlansv2.1"
    file = trainer / "fold_0" / "validation_raw" / "summary.json"
    file.parent.mkdir(parents=True)
    case = {
        "0": {"Dice": 0.99},
        "1": {"Dice": 0.8, "Jaccard": 0.7},
        "test": "/a/la_003.nii.gz",
        "reference": "C:\\\\b\\\\la_003.nii.gz",
    }
    file.write_text(json.dumps({"name": "", "results": {"all": [case], "mean": {}}, "task": "Task002_Heart"}))
    (trainer / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "left atrium"}}))
    (row,) = read_nnunet(tmp_path).table.to_dict("records")
    assert row == {"arm": trainer.name, "fold": 0, "seed": 0, "case": "la_003", "dice_left_atrium": 0.8}


def test_folds_that_tell_nothing_are_left_out_and_named(trainers, nnunet_writer):
    nnunet_writer["summary"](trainers / PLAIN, "all", {"liver_0": {"1": nnunet_writer["scores"](1, 1, 1)}})
    (trainers / DA5 / "fold_4" / "validation" / "summary.json").unlink()
    folders = read_nnunet(trainers)
    assert folders.notes == [
        f"Left out: {DA5}/fold_4, which has no validation/summary.json yet.",
        f"Left out: {PLAIN}/fold_all, which is validated on what it was trained on.",
    ]
    found = judged(folders.table, default_claims(folders, trainers), str(trainers), folders.notes)
    assert "Left out: 6 rows of nnUNetTrainer without a partner in nnUNetTrainerDA5 (same fold, seed and case)." in (
        found.notes
    )


def test_without_claims_two_trainers_are_compared_in_every_labels_dice(trainers):
    folders = read_nnunet(trainers)
    claims = default_claims(folders, trainers)
    assert [claim.metric for claim in claims.claims] == ["dice_liver", "dice_tumor"]
    assert {(claim.better, claim.than) for claim in claims.claims} == {("nnUNetTrainerDA5", "nnUNetTrainer")}
    assert claims.claims[1].says == "Exploratory: nnUNetTrainerDA5 has the higher tumor Dice."
    liver, tumor = judged(folders.table, claims, str(trainers), exploratory=True).verdicts
    assert (liver.verdict, tumor.verdict) == ("equivalent", "supported")
    assert (tumor.n_patients, tumor.n_undefined, tumor.n_run_pairs) == (25, 5, 5)


def test_folders_of_one_training_are_its_seeds(trainers, nnunet_writer):
    nnunet_writer["trainer"](trainers, "nnUNetTrainer_seed1", seed=3)
    nnunet_writer["trainer"](trainers, "nnUNetTrainerDA5_seed1", gain=12, seed=4)
    arms = {"plain": [PLAIN, PLAIN.replace("__", "_seed1__", 1)], "DA5": [DA5, DA5.replace("__", "_seed1__", 1)]}
    claim = {"id": "da5", "says": "It helps.", "metric": "dice_tumor", "better": "DA5", "than": "plain", "margin": 0.02}
    folders = read_nnunet(trainers)
    claims = with_columns(as_claims({"claims": [claim], "arms": arms}), folders)
    found = judged(folders.table, claims, str(trainers))
    assert found.verdicts[0].n_run_pairs == 10
    assert found.verdicts[0].measure.words == "tumor Dice"
    assert found.notes == []


def test_more_than_two_trainers_need_claims(trainers, nnunet_writer):
    nnunet_writer["trainer"](trainers, "nnUNetTrainerBN", folds=1)
    with pytest.raises(LitsexpError, match=r"found 3 trainers \(.*\); expected two, or a claims file"):
        default_claims(read_nnunet(trainers), trainers)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"metric_per_case"', "cannot be read (JSONDecodeError"),
        (
            '{"mean": {}}',
            "found no scores per case (KeyError: 'results'); expected nnU-Net's own, with metric_per_case",
        ),
        ("[]", "found no scores per case (TypeError"),
        ('{"metric_per_case": [{"metrics": {}}]}', "found no scores per case (KeyError: 'reference_file')"),
    ],
)
def test_a_file_that_nnunet_did_not_write_is_named(trainers, text, said):
    file = trainers / DA5 / "fold_2" / "validation" / "summary.json"
    file.write_text(text)
    with pytest.raises(LitsexpError) as caught:
        read_nnunet(trainers)
    assert str(caught.value).startswith(f"{file}: {said}")
    assert "\n" not in str(caught.value)


def test_a_folder_without_results_says_which_is_meant(trainers, tmp_path):
    with pytest.raises(
        LitsexpError, match="found no finished fold of a trainer; expected TRAINER__PLANS__CONFIGURATION"
    ):
        read_nnunet(tmp_path)
    with pytest.raises(LitsexpError, match="found one trainer's folds; expected the folder above"):
        read_nnunet(trainers / PLAIN)
    with pytest.raises(LitsexpError, match="found no folder"):
        read_nnunet(tmp_path / "nowhere")


def test_trainers_of_two_data_sets_are_refused(trainers):
    (trainers / DA5 / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "cyst": 2}}))
    with pytest.raises(
        LitsexpError, match=r"dataset\.json: labels: label 2 is called 'tumor' here and 'cyst' in another"
    ):
        read_nnunet(trainers)
