"""`ambience evaluate`: how well the running service finds altered copies of its own pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import track
from rich.table import Table

from cluster.cli.console import Json, err, open_client, out, print_json, print_table
from deployments.ingress.defaults import FusedDefaults, write_defaults
from deployments.jobs import RunningJob, running_job
from deployments.settings import data_folder, store_url
from indexes.store.url import open_store
from models.errors import InvalidInput

if TYPE_CHECKING:
    from cluster.jobs.evaluation.asking import Answer
    from cluster.jobs.evaluation.figures import Figures
    from cluster.jobs.evaluation.proposals import Proposal

app = typer.Typer()


@app.command(
    epilog="**Examples**\n\n    ambience evaluate ~/Pictures\n\n"
    "    ambience evaluate ~/Pictures --apply"
)
def evaluate(
    source: Annotated[
        str | None,
        typer.Argument(help="Where the pictures' files are; default: the stored previews."),
    ] = None,
    pictures: Annotated[int, typer.Option(min=2, help="Number of pictures to alter.")] = 100,
    folder: Annotated[
        Path | None,
        typer.Option("--to", help="Folder of the report; default: in the data folder."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Use what is proposed as defaults of searches.")
    ] = False,
    reset: Annotated[
        bool, typer.Option("--reset", help="Only go back to the defaults as shipped.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Alter some of the stored pictures, search for them, and report what is found.

    The report has recall, false hits, calibration and times, by alteration and by retriever, and
    proposes a least confidence and weights. An interrupted run resumes; nothing is stored.
    """
    if reset:
        _store(None)
        out.print("Searches use the defaults as shipped.")
        return
    from cluster.jobs.evaluation.figures import figures
    from cluster.jobs.evaluation.proposals import propose
    from cluster.jobs.evaluation.report import write_report

    folder = folder or data_folder() / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    with running_job("evaluate", source) as job:
        answers = _asked(source, pictures, folder, job, quiet=as_json)
        found, proposal = figures(answers), propose(answers)
        page = write_report(folder, found, proposal)
        job.report({"pictures": found.pictures, "page": str(page)})
    if apply:
        _store(
            FusedDefaults(min_confidence=proposal.min_confidence, weights=dict(proposal.weights))
        )
    if as_json:
        shown = {"figures": asdict(found), "proposal": asdict(proposal), "applied": apply}
        print_json(shown | {"report": str(page)})
    else:
        _print(found, proposal, apply)
        out.print(f"The report is {page}.", soft_wrap=True)


def _asked(
    source: str | None, pictures: int, folder: Path, job: RunningJob, quiet: bool
) -> list[Answer]:
    """All answers, those of an interrupted run among them. Raises InvalidInput without any."""
    from cluster.jobs.evaluation.alterations import ALTERATIONS
    from cluster.jobs.evaluation.asking import ask_all, read_answers, sample

    with open_client() as client:
        # Answers of another state of the collection say nothing of this one.
        kept = folder / f"answers-{client.changes()['head']}.jsonl"
        for earlier in set(folder.glob("answers-*.jsonl")) - {kept}:
            earlier.unlink()
        chosen = sample(client, source, pictures)
        wanted = {one.sha256 for one in chosen}
        answers = [one for one in read_answers(kept) if one.sha256 in wanted]
        left = len(chosen) * len(ALTERATIONS) - len(answers)
        job.begin("searching", left)
        asked = track(
            ask_all(client, chosen, answers), "evaluating", left, console=err, disable=quiet
        )
        with kept.open("ab", buffering=0) as lines:
            for done, answer in enumerate(asked, 1):
                lines.write(answer.line())
                answers.append(answer)
                job.update(done)
    if not answers:
        raise InvalidInput("none of these pictures can be read any more")
    return answers


def _store(defaults: FusedDefaults | None) -> None:
    store = open_store(store_url(None))
    try:
        write_defaults(store, defaults)
    finally:
        store.close()


def _print(found: Figures, proposal: Proposal, applied: bool) -> None:
    names = ("fused", *found.retrievers)
    table = Table("copy", *names, "false", title=f"recall@1 of {found.pictures} pictures")
    for alteration, row in found.recall.items():
        shares = [f"{row[name].at_1:.2f}" for name in names]
        table.add_row(alteration, *shares, f"{found.false_hits[alteration]:.2f}")
    print_table(table)
    weights = ", ".join(f"{name} {weight:g}" for name, weight in proposal.weights.items()) or "1"
    before, after = proposal.before, proposal.after
    out.print(
        f"Proposed: min_confidence {proposal.min_confidence:g}, weights {weights}. "
        f"Copies found {before.found:.3f} → {after.found:.3f}, searches with a wrong hit "
        f"{before.wrong:.3f} → {after.wrong:.3f}. "
        + ("It is in use." if applied else "`--apply` puts it to use."),
        soft_wrap=True,
    )
