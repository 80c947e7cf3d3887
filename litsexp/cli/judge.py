"""The command on somebody's results: judge."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from litsexp.cli.answer import BADGES
from litsexp.cli.options import BELIEVE
from litsexp.display import console
from litsexp.spec.errors import LitsexpError
from litsexp.spec.reading import load_claims

if TYPE_CHECKING:
    from litsexp.evidence.foreign.judged import Judged
    from litsexp.evidence.judge import Verdict

commands = typer.Typer()


@commands.command(rich_help_panel=BELIEVE)
def judge(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="TABLE CLAIMS.yaml", help="A table (CSV, parquet) and what is claimed of it."),
    ] = None,
    nnunet: Annotated[
        Path | None,
        typer.Option("--from-nnunet", metavar="DIR", help="nnU-Net's folder of a data set's trainers, as the table."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for report and tables; new, or empty.")
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the verdicts as JSON, too; - is stdout.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 unless every claim is supported.")] = False,
) -> None:
    """Judge claims on anybody's results: nnU-Net's, MONAI's, a spreadsheet's.

    The table has a row a case and run: columns `arm`, `case`, a column a score (empty where undefined), and `fold` and
    `seed` where there were several. The same judge as a study's: a claim about training needs 5 pairs of runs, and its
    interval covers new patients and new runs.

    Example: `litsexp judge results.csv claims.yaml --out verdicts`

    Example: `litsexp judge --from-nnunet nnUNet_results/Dataset003_Liver`

    claims.yaml:

        claims:

        - {id: da5, says: DA5 helps., metric: dice_tumor, better: DA5, than: plain, margin: 0.02}

        metrics: {assd_tumor: {words: tumor ASSD, higher_is_better: false, unit: mm}}

        arms: {plain: [nnUNetTrainer__nnUNetPlans__2d, nnUNetTrainer_seed1__nnUNetPlans__2d]}

    `metrics` says what a column is that litsexp does not know (else: higher is better); `arms` makes several names
    the seeds of one arm. nnU-Net's columns are dice, iou, fp, fn with the label's name: dice_tumor. Without claims, two
    trainers are compared in every label's Dice, which is exploratory.

    Exit code 0: no claim is contradicted; 1: one is (--strict: or is not supported); 2: the input is wrong.
    Exploratory comparisons claim nothing and end with 0.
    """
    from litsexp.cli.findings import refuse_to_overwrite, write_new

    if json_file not in (None, "-"):
        refuse_to_overwrite(Path(str(json_file)))
    found = _judged(files or [], nnunet, strict)
    shown = Console(stderr=True) if json_file == "-" else console  # stdout is the JSON's alone
    tell(shown, found)
    if out:
        _write(found, out)
        shown.print(f"report: {out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    if json_file == "-":
        typer.echo(as_json(found), nl=False)
    elif json_file:
        write_new(Path(json_file), as_json(found).encode())
    raise typer.Exit(exit_code([verdict.verdict for verdict in found.verdicts], strict, found.exploratory))


def exit_code(rulings: list[str], strict: bool, exploratory: bool) -> int:
    """0 where nothing is contradicted (``strict``: where everything is supported), else 1."""
    if exploratory:
        return 0
    return int("contradicted" in rulings or (strict and set(rulings) != {"supported"}))


def tell(shown: Console, found: Judged) -> None:
    """The verdicts as a table and in words, and what cannot be said."""
    from litsexp.evidence.words import cautions

    def say(text: str, style: str = "") -> None:
        shown.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    for note in found.notes:
        say(f"! {note}", "yellow")
    shown.print(_table(found))
    for v in found.verdicts:
        say(f"{v.claim.id}: {v.sentence}")
        if v.n_patients > 1:
            say(f"  {_models(v)}")
        for caution in cautions(v):
            say(f"  · {caution}")
    if found.exploratory:
        say("Exploratory: nobody claimed this before the results; write a claims file before the next runs.", "yellow")


def as_json(found: Judged) -> str:
    """Verdicts and notes; what is unknown or undefined is null."""
    from litsexp.evidence.tables import verdict_table

    rows = verdict_table(found.verdicts).to_dict("records")
    verdicts = [{str(k): None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
    content = {"table": found.name, "exploratory": found.exploratory, "notes": list(found.notes), "verdicts": verdicts}
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _judged(files: list[Path], nnunet: Path | None, strict: bool) -> Judged:
    """The verdicts on what the command line names."""
    from litsexp.evidence.foreign.files import read_table
    from litsexp.evidence.foreign.judged import judged
    from litsexp.evidence.foreign.nnunet import default_claims, read_nnunet, with_columns

    expected = 1 if nnunet else 2
    if len(files) > expected or (not nnunet and len(files) < expected):
        wanted = (
            "--from-nnunet DIR and at most CLAIMS.yaml" if nnunet else "TABLE and CLAIMS.yaml, or --from-nnunet DIR"
        )
        named = ", ".join(map(str, files)) or "no file"
        raise LitsexpError(f"judge: found {named}; expected {wanted}; see litsexp judge --help")
    if nnunet is None:
        claims = load_claims(files[1])
        return judged(read_table(files[0]), claims, str(files[0]))
    if strict and not files:
        raise LitsexpError(
            "--strict: found no claims file; expected CLAIMS.yaml: what nobody claims cannot be supported"
        )
    asked = load_claims(files[0]) if files else None
    folders = read_nnunet(nnunet)
    claims = with_columns(asked, folders) if asked else default_claims(folders, nnunet)
    return judged(folders.table, claims, str(nnunet), folders.notes, exploratory=not files)


def _write(found: Judged, out: Path) -> None:
    """The folder whole or not at all; LitsexpError where something is there already."""
    from litsexp.evidence.foreign.report import write_all
    from litsexp.files import whole_folder

    try:
        with whole_folder(out) as folder:
            write_all(found, folder)
    except FileExistsError:
        raise LitsexpError(f"--out {out}: is there already; expected a new or empty folder; name another one") from None
    except OSError as error:
        reason = error.strerror or error
        raise LitsexpError(f"--out {out}: cannot be written ({reason}); expected a folder to write in") from None


def _table(found: Judged) -> Table:
    """A row a claim."""
    from litsexp.evidence.foreign.report import percent

    table = Table(box=None, pad_edge=False)
    table.add_column("exploratory" if found.exploratory else "claim", no_wrap=True)
    for name in ("effect", "95 % interval", "adjusted p", "false claim", "n", "runs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for v in found.verdicts:
        interval = "–" if math.isnan(v.low) else f"[{v.low:.3f}, {v.high:.3f}]"
        p = "–" if math.isnan(v.p) else f"{v.p_adjusted:.3g}"
        false = "–" if math.isnan(v.false_claim) else percent(v.false_claim)
        effect = "–" if math.isnan(v.effect) else f"{v.effect:+.3f}"
        ruling = f"[{BADGES[v.verdict]}]{v.verdict}[/]" + (", substantially" if v.substantial else "")
        table.add_row(
            v.claim.id,
            effect,
            escape(interval),
            p,
            false,
            str(v.n_patients),
            f"{v.n_run_pairs} pair{'s' * (v.n_run_pairs != 1)}",
            ruling,
        )
    return table


def _models(v: Verdict) -> str:
    """What the patients alone say: another interval under its own name, and the probability of a false claim."""
    from litsexp.evidence.foreign.report import percent
    from litsexp.evidence.words import digits_for, interval, plain

    digits = digits_for(v.claim.margin) + 1
    models = f"{plain(v.effect, digits)}{v.measure.per}{interval(v.models_low, v.models_high, digits)}"
    false = f"probability of a false claim {percent(v.false_claim)} (Claims Reloaded), which knows no noise of runs"
    return f"these trained models, new patients: {models}; {false}"
