"""`lary-orch results`: the leaderboard."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from lary_schema.base import ExitCode

from lary_orch.cli.options import json_option, option, workspace_options
from lary_orch.workspace import Workspace

if TYPE_CHECKING:
    from lary_results.scores import Score

OUTSIDE = 6
"""Exit code of `--against` where a comparable score is further off than the tolerance."""


@click.command()
@workspace_options
@option("--run", default="*", help="One run's results alone; * stands for all.")
@option("--protocol", help="Results of one protocol alone [all, a table each].")
@option("--csv", "as_csv", is_flag=True, help="CSV, one line a score, instead of text for people.")
@option(
    "--against",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Compare with FILE: published tables, or what --json printed earlier. Exit code 6 where a score is outside.",
)
@option(
    "--tolerance",
    type=click.FloatRange(0),
    default=0.01,
    help="Of --against: largest difference, in MSE and in top-1 as a share (0.01: one percentage point).",
)
@json_option
def command(
    workspace: Workspace,
    run: str,
    protocol: str | None,
    as_csv: bool,
    against: Path | None,
    tolerance: float,
    as_json: bool,
) -> None:
    """Print the table of results.

    Of several results for one cell the newest is shown. Published scores stand beside ours where
    model, dataset, rows, variant and protocol make them comparable; footnotes say why elsewhere.

    \b
    lary-orch results
    lary-orch results --run smoke-1a2b3c4d
    lary-orch results --csv > scores.csv
    lary-orch results --json > before.json
    lary-orch results --against before.json --tolerance 0.005
    """
    from lary_results import leaderboard, scores
    from lary_results.files import read_results

    from lary_orch.catalog.protocol_cards import protocol_titles

    broken: list[str] = []
    results = read_results(workspace.results, run, broken)
    found = [score for score in scores.collect(results) if protocol in (None, score.protocol)]
    for message in broken:
        click.echo(f"error: {message}", err=True)
    if against is not None:
        _compare(found, against, tolerance, as_json=as_json)
    elif as_json:
        click.echo(json.dumps(scores.as_json(found), indent=2, ensure_ascii=False))
    elif as_csv:
        click.echo(scores.as_csv(found), nl=False)
    elif found:
        leaderboard.show_all(found, sys.stdout, protocol_titles())
    else:
        click.echo(f"no such results in {workspace.results}; `lary-orch run` makes them")
    if broken:
        sys.exit(ExitCode.BAD_JOB)


def _compare(found: Sequence["Score"], against: Path, tolerance: float, *, as_json: bool) -> None:
    from lary_results.against import compare, comparison_json, comparison_table
    from lary_results.tables import show

    made = compare(found, against, tolerance)
    if as_json:
        click.echo(json.dumps(comparison_json(made), indent=2, ensure_ascii=False))
    else:
        show(comparison_table(made), sys.stdout)
    if made.outside:
        sys.exit(OUTSIDE)
