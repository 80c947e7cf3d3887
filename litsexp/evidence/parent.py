"""What a study's parent run in MLflow says of its evidence: metrics, tags, a note."""

import math

from litsexp.evidence.failed import reasons
from litsexp.evidence.judge import Verdict
from litsexp.evidence.material import Evidence
from litsexp.evidence.words import COVERED


def failed_runs(evidence: Evidence) -> dict[str, str]:
    """MLflow's id of each run that failed to learn -> why it counts as one."""
    runs, why = evidence.runs, reasons(evidence.failed)
    if not why:
        return {}
    cells = zip(runs["arm"], runs["fold"], runs["seed"], strict=True)
    return {run_id: why[cell] for run_id, cell in zip(runs["run_id"], cells, strict=True) if cell in why}


def scalars(evidence: Evidence) -> dict[str, float]:
    """The effects and the noise of training, as metrics of the parent run."""
    found = {f"effect{cohort}/{verdict.claim.id}": verdict.effect for cohort, verdict in _everywhere(evidence)}
    for cohort, noise in (("", evidence.noise), ("_external", evidence.external_noise)):
        found |= {f"noise{cohort}/run_sd/{each.metric}": each.run_sd for each in noise}
        found |= {f"noise{cohort}/halves/{each.metric}": each.halves for each in noise}
    return {name: value for name, value in found.items() if not math.isnan(value)}


def verdict_tags(evidence: Evidence) -> dict[str, str]:
    """The verdicts, as tags of the parent run; and of named arms what differs."""
    found = {f"verdict{cohort}.{verdict.claim.id}": verdict.verdict for cohort, verdict in _everywhere(evidence)}
    named = [verdict for verdict in evidence.verdicts if verdict.claim.compares]
    return found | {f"compared.{verdict.claim.id}": " against ".join(verdict.comparison) for verdict in named}


def _everywhere(evidence: Evidence) -> list[tuple[str, Verdict]]:
    there = evidence.external.verdicts if evidence.external else ()
    return [*(("", verdict) for verdict in evidence.verdicts), *(("_external", verdict) for verdict in there)]


def note(evidence: Evidence, report: str = "report.html") -> str:
    """Question and answer in Markdown, for the parent run's page; ``report`` is the report's path there."""
    lines = [f"- **{verdict.claim.id}**: {verdict.sentence}" for verdict in evidence.verdicts]
    search = evidence.study.search is not None
    none = "A search tests no claim: see the trials in the report." if search else "This study makes no claims."
    covered = f"95 % intervals: {COVERED}." if lines else ""
    paragraphs = [
        f"**{evidence.study.question}**",
        evidence.warning,
        evidence.leak_warning,
        "\n".join(lines) or none,
        covered,
    ]
    if evidence.external:
        pairs = "\n".join(f"- **{pair.here.claim.id}**: {pair.words}" for pair in evidence.replications)
        paragraphs += [f"On the external cohort ({evidence.external.cohort}), from which nothing was learned:", pairs]
    return "\n\n".join(part for part in [*paragraphs, f"{report} stands among the artifacts."] if part)
