"""Which mask belongs to which truth, and what is said of files that belong to none."""

from pathlib import Path

import pytest

from litsexp.data.ct.pairs import pair_masks
from litsexp.spec.errors import LitsexpError


@pytest.fixture
def folders(tmp_path):
    """``folders(truth=[...], predictions=[...])``: empty files of these names, as two folders."""

    def make(**names):
        for folder, files in names.items():
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            for name in files:
                path = tmp_path / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return tmp_path / "predictions", tmp_path / "truth"

    return make


def names(pairing):
    return [(pair.case, pair.truth.name, pair.prediction.name) for pair in pairing.pairs]


@pytest.mark.parametrize(
    ("truth", "prediction"),
    [
        ("segmentation-12.nii", "liver_12.nii.gz"),
        ("segmentation-12.nii.gz", "test-segmentation-12.nii"),
        ("labelsTr/liver_12.nii.gz", "fold/validation/liver_12.nii.gz"),
        ("hospital 012.nii.gz", "012.nii"),
        ("deep/er/case12.nii", "segmentation-12.nii"),
    ],
)
def test_layouts_are_paired_by_number(folders, truth, prediction):
    found = pair_masks(*folders(truth=[truth], predictions=[prediction, "plans.json"]))
    assert names(found) == [(12, Path(truth).name, Path(prediction).name)]
    assert found.problems == found.left_out == []


def test_volumes_are_no_masks_wherever_they_lie(folders):
    lits = ["volume-3.nii", "segmentation-3.nii", "test-volume-3.nii", "scout.nii", "other-4.nii"]
    beside = ["volume-3.nii", "imagesTs/liver_3.nii.gz", "._liver_3.nii.gz", "imagesTs/ours/liver_3.nii.gz"]
    found = pair_masks(*folders(truth=lits, predictions=beside))
    assert names(found) == [(3, "segmentation-3.nii", "liver_3.nii.gz")]
    assert [pair.volume.name for pair in found.pairs] == ["volume-3.nii"]
    assert found.problems == []


@pytest.mark.parametrize("beside", ["volume-3.nii", "volume_pt1/volume-3.nii", "imagesTr/liver_3.nii.gz"])
def test_volumes_beside_the_truth_are_found(folders, tmp_path, beside):
    predictions, truth = folders(truth=["3.nii"], predictions=["3.nii"])
    folders(**{str(Path(beside).parent): [Path(beside).name]})
    assert [pair.volume for pair in pair_masks(predictions, truth).pairs] == [tmp_path / beside]


def test_folds_are_read_from_the_folders(folders):
    truth = [f"segmentation-{n}.nii" for n in range(3)]
    split = ["fold_0/validation/liver_0.nii.gz", "fold_1/validation/liver_1.nii.gz", "liver_2.nii.gz"]
    predictions, truth_folder = folders(truth=truth, predictions=split)
    assert [pair.fold for pair in pair_masks(predictions, truth_folder).pairs] == [0, 1, None]
    inside = pair_masks(predictions / "fold_1" / "validation", truth_folder, partial=True)
    assert [(pair.case, pair.fold) for pair in inside.pairs] == [(1, 1)]


def test_every_file_that_belongs_to_none_is_named(folders):
    truth = ["segmentation-1.nii", "segmentation-2.nii", "deep/segmentation-2.nii"]
    predictions = ["liver_1.nii.gz", "liver_7.nii.gz", "mask_one.nii.gz", "late/liver_1.nii"]
    found = pair_masks(*folders(truth=truth, predictions=predictions))
    said = [problem.replace(str(found.pairs[0].truth.parents[1]), "") for problem in found.problems]
    assert all("\n" not in problem and "; expected " in problem for problem in said)
    assert [problem.split(":")[0].split("/")[-1] for problem in said] == [
        "segmentation-2.nii",
        "mask_one.nii.gz",
        "liver_1.nii",
        "segmentation-2.nii",
        "liver_7.nii.gz",
    ]
    for words in ("truth 2 is there twice", "no number in the prediction's name", "no prediction with number 2"):
        assert any(words in problem for problem in said)
    assert any("no truth with number 7" in problem for problem in said)


def test_partial_leaves_out_what_has_no_partner_and_says_so(folders):
    predictions, truth = folders(truth=["segmentation-1.nii", "segmentation-2.nii"], predictions=["1.nii", "9.nii"])
    found = pair_masks(predictions, truth, partial=True)
    assert (len(found.pairs), found.problems) == (1, [])
    assert [line.split(" of ")[0] + line.split(" cases")[0][-2:] for line in found.left_out[:1]] == ["1 2"]
    assert "1 of 2 predictions" in found.left_out[1]


def test_empty_folders_and_none(folders, tmp_path):
    predictions, truth = folders(truth=[], predictions=[])
    found = pair_masks(predictions, truth)
    assert [problem.split(": found no mask; expected ")[0] for problem in found.problems] == [
        str(truth),
        str(predictions),
    ]
    with pytest.raises(LitsexpError, match=r"nowhere: found nothing; expected a folder with masks"):
        pair_masks(tmp_path / "nowhere", truth)
