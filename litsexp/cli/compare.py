"""``litsexp report --compare``: two studies side by side, and an exit code for a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from litsexp.display import console
from litsexp.spec.errors import LitsexpError

if TYPE_CHECKING:
    from litsexp.evidence.compare.changes import Change
    from litsexp.evidence.compare.comparison import ClaimChange, Comparison
    from litsexp.evidence.compare.sides import Side
    from litsexp.study.kept import KeptStudy

Two = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--compare",
        metavar="STUDY_A STUDY_B",
        help="Compare two finished studies instead: each a --mlruns folder, FOLDER:NAME, a report, a parent run's id.",
    ),
]
Margin = Annotated[
    float | None,
    typer.Option("--margin", min=0, help="With --compare: smallest difference that matters, where no claim says so."),
]
Strict = Annotated[bool, typer.Option("--strict", help="With --compare: exit code 1 also where anything is unclear.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="With --compare: folder for the report; new, or empty.")
]
Json = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="With --compare: all of it as JSON, too; - is stdout.")
]
STYLES = {"identical": "green", "same": "green", "better": "blue", "worse": "red", "unclear": "yellow"}


def compare_studies(
    two: tuple[str, str],
    name: str,
    mlruns: Path,
    uri: str | None,
    margin: float | None,
    strict: bool,
    out: Path | None,
    json_file: str | None,
) -> NoReturn:
    """Read both, tell what changed, write the report, and end with the exit code."""
    from litsexp.cli.findings import refuse_to_overwrite, write_new
    from litsexp.evidence.compare.comparison import MARGIN, compare
    from litsexp.evidence.compare.tables import as_json
    from litsexp.study.kept import find_study

    if json_file not in (None, "-"):
        refuse_to_overwrite(Path(str(json_file)))
    kept = [find_study(words, mlruns, uri, name) for words in two]
    if kept[0].run_id == kept[1].run_id and kept[0].root == kept[1].root:
        raise LitsexpError(
            f"--compare {two[0]} {two[1]}: found one study twice ({kept[0].name}, run {kept[0].run_id}); expected two; "
            "name each by its parent run's id, or by the folder of its report"
        )
    found = compare(side_of(kept[0]), side_of(kept[1]), MARGIN if margin is None else margin)
    shown = Console(stderr=True) if json_file == "-" else console  # stdout is the JSON's alone
    tell(shown, found)
    _say(shown, f"report: {_write(found, out, kept, mlruns)}")
    if json_file == "-":
        typer.echo(as_json(found, strict), nl=False)
    elif json_file:
        write_new(Path(json_file), as_json(found, strict).encode())
    raise typer.Exit(found.exit_code(strict))


def side_of(kept: KeptStudy) -> Side:
    """What the evidence is shown of a study that MLflow keeps."""
    from litsexp.evidence.compare.sides import Side
    from litsexp.evidence.kinds import Tables

    tables = kept.tables
    return Side(
        name=kept.name,
        run_id=kept.run_id,
        study=kept.study,
        tables=Tables(tables["test"], tables.get("train"), tables.get("epochs"), native=tables.get("native")),
        planned=kept.planned,
        finished=kept.finished,
        cohort=kept.cohort,
        phantom=kept.phantom,
        fingerprint=kept.fingerprint,
        preregistered=kept.preregistered,
        rulings=kept.rulings,
        effects=kept.effects,
        facts=kept.facts,
    )


def tell(shown: Console, found: Comparison) -> None:
    """What differs, what changed, and the answer, which stands last."""
    for mark, side in (("A", found.a), ("B", found.b)):
        _say(shown, f"{mark}: {side.name} ({side.cohort}), {side.finished} runs, parent run {side.run_id}", "bold")
    for note in found.notes:
        _say(shown, f"! {note}", "magenta" if note.startswith("Phantom") else "yellow")
    if len(found.differences):
        shown.print(_differences(found))
    else:
        _say(shown, "Nothing differs that is recorded: the same settings, claims, versions, machine and data.")
    _say(shown, found.pairing.words, "dim")
    shown.print(_arms(found))
    for reason in dict.fromkeys(change.reason for change in found.arms if change.reason):
        _say(shown, f"  · unclear: {reason}")
    if found.claims:
        shown.print(_claims(found))
    for claim in found.claims:
        if claim.note:
            _say(shown, f"  · {claim.claim.id}: {claim.note}")
    if found.unclear:
        _say(shown, f"not shown to be as good as before: {'; '.join(found.unclear)}", "yellow")
    _say(shown, found.conclusion, "red" if found.worse else "bold")


def _say(shown: Console, text: str, style: str = "") -> None:
    shown.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _table(first: str, found: Comparison, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column(f"{'phantom ' * found.phantom}{first}", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold", min_width=len("substantially"))
    return table


def _differences(found: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for name in ("differs", "A", "B"):
        table.add_column(name, overflow="fold")
    for row in found.differences.itertuples(index=False):
        table.add_row(*map(escape, (f"{row.about}: {row.what}", str(row.a), str(row.b))))
    return table


def _arms(found: Comparison) -> Table:
    """A row an arm and measure."""
    table = _table("arm: measure", found, "A", "B", "B − A", "adj. p", "n", "runs")
    for change in found.arms:
        first = escape(f"{change.what}: {change.measure.title}")
        counts = str(change.n_patients), str(change.n_runs)
        table.add_row(first, *_means(change.a, change.b, change), *counts, _verdict(change))
    return table


def _claims(found: Comparison) -> Table:
    """A row a claim."""
    table = _table("claim", found, "effect A", "effect B", "B − A", "adj. p")
    for claim in found.claims:
        means = _means(claim.then_effect, claim.now_effect, claim.change, claim.claim.margin)
        table.add_row(escape(claim.claim.id), *means, _claim_verdict(claim))
    return table


def _means(a: float, b: float, change: Change | None, margin: float = 0.0) -> list[str]:
    from litsexp.evidence.compare.tables import number, p_value

    least = change.margin if change else margin
    told = [change.found or "–", p_value(change)] if change else ["–", "–"]
    return [escape(text.replace("--", "–")) for text in (number(a, least), number(b, least), *told)]


def _verdict(change: Change) -> str:
    return f"[{STYLES[change.verdict]}]{change.verdict}{', substantially' * change.substantial}[/]"


def _claim_verdict(claim: ClaimChange) -> str:
    style = "red" if claim.worse else "yellow" if claim.fell else "default"
    return f"[{style}]{escape(claim.words)}[/]"


def _write(found: Comparison, out: Path | None, kept: list[KeptStudy], mlruns: Path) -> Path:
    """The report, in ``--out`` or else beside B's own; LitsexpError where it cannot be written."""
    from litsexp.evidence.compare.report import write_all
    from litsexp.files import whole_folder

    try:
        if out is not None:
            with whole_folder(out) as folder:
                write_all(found, folder)
            return out / "report.html"
        pair = f"compare-{found.a.run_id[:8]}-{found.b.run_id[:8]}"
        folder = (kept[1].root or mlruns.resolve()) / "reports" / pair
        folder.mkdir(parents=True, exist_ok=True)
        return write_all(found, folder)
    except FileExistsError:
        raise LitsexpError(f"--out {out}: is there already; expected a new or empty folder; name another one") from None
    except OSError as error:
        place = f"--out {out}" if out else str(folder)
        reason = error.strerror or error
        raise LitsexpError(f"{place}: cannot be written ({reason}); expected a folder to write in; see --out") from None
