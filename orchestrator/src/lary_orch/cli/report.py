"""`lary-orch report`: all results as one HTML page."""

from pathlib import Path

import click
from lary_schema.option_types import FiniteRange

from lary_orch.cli.options import max_failed_option, option, workspace_options
from lary_orch.workspace import Workspace


@click.command()
@workspace_options
@option("--out", type=click.Path(dir_okay=False, path_type=Path), help="The page [WORKSPACE/report.html].")
@option("--run", default="*", help="One run's results alone; * stands for all.")
@option("--protocol", help="Results of one protocol alone [all].")
@option(
    "--pictures-mib",
    type=FiniteRange(0),
    default=6.0,
    help="How much of the trajectories' pictures goes into the page, the best and the worst rows first; and of videos.",
)
@max_failed_option
def command(
    workspace: Workspace, out: Path | None, run: str, protocol: str | None, pictures_mib: float, max_failed: float
) -> None:
    """Write one HTML page of all results.

    It holds everything (styles, script, pictures) and needs no network: mail it, print it. Where nothing is found an
    existing page stays.

    \b
    lary-orch report
    lary-orch report --run smoke-1a2b3c4d --out smoke.html
    """
    from datetime import UTC, datetime

    from lary_results.files import nothing_found
    from lary_results.report.evidence import gather
    from lary_results.report.page import page
    from lary_results.study.loading import load_studies
    from lary_schema.atomic import publish_bytes
    from lary_schema.base import ContractError
    from lary_schema.printable import printable
    from lary_terminal.tables import size_text

    from lary_orch.catalog.protocol_cards import protocol_titles

    target = (out or workspace.root / "report.html").absolute()
    evidence = gather(workspace.results, workspace.runs, run, protocol, protocol_titles(), max_failed)
    if evidence.empty and (run != "*" or protocol is not None or target.exists()):
        stays = f"; {target} stays as it is" if target.exists() else ""
        raise ContractError(nothing_found(workspace.results, run, protocol) + stays)
    studied = load_studies(workspace.root) if run == "*" and protocol is None else []
    content = page(evidence, pictures_mib, datetime.now(UTC), studied)
    try:
        publish_bytes(target, content)
    except OSError as error:
        raise ContractError(f"{target}: cannot be written: {error.strerror}; give another file by --out") from None
    click.echo(printable(f"{target}: {size_text(len(content))}"))
    if evidence.unreadable:
        click.echo(f"{len(evidence.unreadable)} files could not be read; the page names them", err=True)
