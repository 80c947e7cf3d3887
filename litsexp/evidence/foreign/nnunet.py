"""nnU-Net's results as a table of cases: a row a validation case, read from the summary that every fold leaves.

``DIR/<trainer>__<plans>__<configuration>/fold_N/validation/summary.json`` (nnU-Net v2; in v1 ``fold_N/validation_raw``)
holds Dice, IoU, FP, FN ... per case and label, or region. Dice is NaN where reference and prediction are both empty.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from litsexp.spec.errors import LitsexpError, one_line
from litsexp.spec.reading import as_claims
from litsexp.spec.table_claims import Column, TableClaims

FOLD = re.compile(r"fold_(\d+)")
SUMMARIES = ("validation/summary.json", "validation_raw/summary.json")  # v2, v1
EMPTY = "neither in the reference nor predicted"
SCORES = {  # nnU-Net's name, ours in lower case -> what it is of any label
    "Dice": Column(words="Dice", undefined=EMPTY),
    "IoU": Column(words="IoU", undefined=EMPTY),
    "FP": Column(words="false-positive voxels", higher_is_better=False, unit="a case"),
    "FN": Column(words="false-negative voxels", higher_is_better=False, unit="a case"),
}
Labels = tuple[int, ...]  # one, or those of a region
Score = tuple[str, Labels]


@dataclass(frozen=True)
class Folders:
    """What lies in the folder of a data set's trainers."""

    table: pd.DataFrame  # arm (the trainer's folder), fold, seed (0), case, a column a score and label: dice_tumor ...
    columns: Mapping[str, Column]  # what each of these is
    notes: Sequence[str]  # what was left out

    @property
    def arms(self) -> list[str]:
        """The trainers' folders."""
        return sorted(self.table["arm"].unique())


def read_nnunet(directory: Path) -> Folders:
    """Every finished fold of every trainer in a folder; LitsexpError where there is none, or a file is something else.

    Labels are called by their names in ``dataset.json``, where a trainer's folder has one: ``dice_tumor``, else
    ``dice_2``, and ``dice_1_2`` of a region.
    """
    if not directory.is_dir():
        raise LitsexpError(f"{directory}: found no folder; expected one with nnU-Net's trainers, as Dataset003_Liver")
    if any(directory.glob("fold_*")):
        raise LitsexpError(f"{directory}: found one trainer's folds; expected the folder above, with several trainers")
    trainers = [path for path in sorted(directory.iterdir()) if any(path.glob("fold_*"))]
    rows: list[dict[Any, Any]] = []
    notes: list[str] = []
    for trainer in trainers:
        for fold in sorted(path for path in trainer.glob("fold_*") if path.is_dir()):
            number, file = FOLD.fullmatch(fold.name), _summary(fold)
            if number is None:  # fold_all
                notes.append(f"Left out: {trainer.name}/{fold.name}, which is validated on what it was trained on.")
            elif file is None:
                notes.append(f"Left out: {trainer.name}/{fold.name}, which has no validation/summary.json yet.")
            else:
                run = {"arm": trainer.name, "fold": int(number[1]), "seed": 0}
                rows += [{**run, "case": case, **scores} for case, scores in _cases(file)]
    if not rows:
        expected = "expected TRAINER__PLANS__CONFIGURATION/fold_N/validation/summary.json"
        raise LitsexpError(f"{directory}: found no finished fold of a trainer; {expected}; name the data set's folder")
    names = _label_names(trainers)
    found = {key for row in rows for key in row if isinstance(key, tuple)}
    columns = {
        key: _column(key[0], key[1], names)
        for key in sorted(found, key=lambda key: (list(SCORES).index(key[0]), key[1]))
    }
    ordered = [{columns[key][0] if key in columns else key: value for key, value in row.items()} for row in rows]
    return Folders(pd.DataFrame(ordered), dict(columns.values()), notes)


def with_columns(claims: TableClaims, folders: Folders) -> TableClaims:
    """The claims, their metrics explained by nnU-Net where the claims file does not."""
    return claims.model_copy(update={"metrics": {**folders.columns, **claims.metrics}})


def default_claims(folders: Folders, directory: Path, margin: float = 0.02) -> TableClaims:
    """The Dice of each label, of two trainers: questions that nobody asked before the results were there.

    LitsexpError where there are not exactly two: which of them to compare is somebody's to say.
    """
    if len(folders.arms) != 2:
        found = f"found {len(folders.arms)} trainer{'s' * (len(folders.arms) != 1)} ({', '.join(folders.arms)})"
        raise LitsexpError(f"{directory}: {found}; expected two, or a claims file that says which to compare")
    arms = dict(sorted(zip(_short(folders.arms), folders.arms, strict=True)))  # plain nnUNetTrainer first
    than, better = arms
    dices = [name for name in folders.columns if name.startswith("dice_")]
    claims = [
        {
            "id": re.sub(r"[^a-z0-9_-]", "-", name.lower()),
            "says": f"Exploratory: {better} has the higher {folders.columns[name].words}.",
            "metric": name,
            **{"better": better, "than": than, "margin": margin},
        }
        for name in dices
    ]
    content = {"claims": claims, "arms": {name: [folder] for name, folder in arms.items()}}
    return with_columns(as_claims(content, str(directory)), folders)


def _short(folders: Sequence[str]) -> list[str]:
    """Of ``trainer__plans__configuration`` the parts in which the folders differ."""
    parts = [name.split("__") for name in folders]
    if len({len(part) for part in parts}) > 1:
        return list(folders)
    differing = [i for i, values in enumerate(zip(*parts, strict=True)) if len(set(values)) > 1]
    return ["__".join(part[i] for i in differing) for part in parts]


def _summary(fold: Path) -> Path | None:
    return next((fold / name for name in SUMMARIES if (fold / name).is_file()), None)


def _cases(file: Path) -> Iterator[tuple[str, dict[Score, float]]]:
    """Every case of one summary with its scores by label."""
    content = _json(file)
    try:
        if "metric_per_case" in content:
            found = [(case["reference_file"], case["metrics"]) for case in content["metric_per_case"]]
        else:  # v1: the labels stand beside the file names
            found = [(case["reference"], case) for case in content["results"]["all"]]
        for path, metrics in found:
            by_label = {_labels(key): scores for key, scores in metrics.items() if isinstance(scores, dict)}
            wanted = [(name, labels) for labels in by_label if labels for name in SCORES if name in by_label[labels]]
            yield _case_name(path), {(name, labels): by_label[labels][name] for name, labels in wanted}
    except (KeyError, TypeError, AttributeError) as error:
        expected = "expected nnU-Net's own, with metric_per_case; validate that fold again"
        raise LitsexpError(f"{file}: found no scores per case ({one_line(error)}); {expected}") from None


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = f"cannot be read ({one_line(error)})"
        raise LitsexpError(f"{file}: {found}; expected JSON as nnU-Net writes it") from None


def _labels(key: str) -> Labels:
    """``1`` and ``(1, 2)`` as numbers; empty for the background."""
    return tuple(number for number in map(int, re.findall(r"\d+", key)) if number)


def _label_names(trainers: Sequence[Path]) -> dict[Labels, str]:
    """Labels' names from the ``dataset.json`` beside the folds; LitsexpError where two of them do not agree."""
    names: dict[Labels, str] = {}
    for file in (trainer / "dataset.json" for trainer in trainers):
        if not file.is_file():
            continue
        content = _json(file)
        labels = content.get("labels") if isinstance(content, dict) else None
        for name, value in (labels or {}).items():
            if str(name).isdigit():  # v1 has them the other way around
                name, value = value, name
            key = _labels(str(value))
            if name != "ignore" and names.setdefault(key, str(name)) != name:
                found = f"label {value} is called {name!r} here and {names[key]!r} in another trainer's folder"
                raise LitsexpError(f"{file}: labels: {found}; expected trainers of one data set")
    return names


def _case_name(path: str) -> str:
    """The file's name without folders and endings, on whatever system it was written."""
    name = re.split(r"[/\\]", path)[-1].removesuffix(".gz")
    return name.rpartition(".")[0] or name


def _column(score: str, labels: Labels, names: Mapping[Labels, str]) -> tuple[str, Column]:
    """The column's name, and what it is: ``dice_tumor``, tumor Dice."""
    numbers, meant = [str(label) for label in labels], SCORES[score]
    name = names.get(labels, "_".join(numbers))
    words = f"{name} {meant.words}" if labels in names else f"{meant.words} of label {' + '.join(numbers)}"
    slug = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_") or "_".join(numbers)
    return f"{score.lower()}_{slug}", meant.model_copy(update={"words": words})
