"""`ambience fsck`: compare a collection with the store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.console import Config, Json, default_config, err, out, print_json
from cluster.jobs.sources import IGNORED, Ids
from cluster.service import environment
from deployments.settings import address, data_folder

if TYPE_CHECKING:
    from cluster.jobs.fsck import Report

app = typer.Typer()

EXIT_WRONG = 1
SHOWN = 20


@app.command(
    epilog="**Examples**\n\n    ambience fsck ~/Pictures\n\n"
    "    ambience fsck /srv/gallery --ids filename --heal"
)
def fsck(
    source: Annotated[
        str, typer.Argument(help="A folder, a list or a Parquet file of paths, or a URI.")
    ],
    ids: Annotated[
        Ids, typer.Option(help="Ids from `{id}.jpg`, or those under which the files are stored.")
    ] = "sequential",
    heal: Annotated[
        bool,
        typer.Option(
            help="Index what is missing or differs, and delete images whose file is gone."
        ),
    ] = False,
    ignore: Annotated[
        list[str],
        typer.Option(help="Names to leave out (repeat), instead of these; '' for none."),
    ] = list(IGNORED),  # noqa: B006
    listed: Annotated[
        Path | None,
        typer.Option("--list", help="Where to list all findings; default: in the data folder."),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check that the store and a collection agree. It takes as long as a backfill.

    Every file is read and extracted anew, except by networks, and compared with what is stored;
    then every stored image is checked. Exit status 1 if anything is wrong and was not healed.
    """
    environment.prepare(data_folder(), *address())
    from cluster.jobs import runner

    chosen = config or default_config()
    report = runner.fsck(source, ids, chosen, data_folder(), heal, as_json, ignore)
    listed = listed or data_folder() / "fsck-findings.tsv"
    write_findings(listed, report)
    if as_json:
        print_json(
            {"files": report.files, "images": report.images, "healed": report.healed}
            | {"counts": report.counts, "findings": [asdict(one) for one in report.findings]}
            | {"left": len(report.left)}
        )
    else:
        for one in report.findings[:SHOWN]:
            name = one.path or (one.kind if one.image_id is None else f"image {one.image_id}")
            said = ", ".join(filter(None, (one.what, one.kind, one.detail)))
            err.print(f"{name}: {said}", soft_wrap=True)
        out.print(_summary(report, listed), soft_wrap=True)
    if report.left:
        raise typer.Exit(EXIT_WRONG)


def write_findings(path: Path, report: Report) -> None:
    """Write a line for each finding: what, image id, retriever, path, detail, between tabs."""
    lines = [
        "\t".join(
            " ".join(str("" if value is None else value).split())
            for value in (one.what, one.image_id, one.kind, one.path, one.detail)
        )
        for one in report.findings
    ]
    path.write_text("".join(f"{line}\n" for line in lines), errors="surrogateescape")


def _summary(report: Report, listed: Path) -> str:
    looked = f"{report.files} files and {report.images} images"
    if not report.findings:
        return f"{looked}: all is well."
    found = ", ".join(f"{count} {what}" for what, count in report.counts.items())
    if not report.healed:
        ending = "`--heal` puts right what can be"
    elif report.left:
        ending = f"healed, but for {len(report.left)}"
    else:
        ending = "healed"
    return f"{looked}: {found}; {ending}. All are listed in {listed}."
