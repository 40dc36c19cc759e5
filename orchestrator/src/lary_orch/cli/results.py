"""`lary-orch results`: the leaderboard."""

import json
import sys

import click

from lary_orch.cli.options import json_option, option, workspace_options
from lary_orch.workspace import Workspace


@click.command()
@workspace_options
@option("--run", default="*", help="One run's results alone; * stands for all.")
@option("--protocol", help="Results of one protocol alone [all, a table each].")
@option("--csv", "as_csv", is_flag=True, help="CSV, one line a score, instead of text for people.")
@json_option
def command(workspace: Workspace, run: str, protocol: str | None, as_csv: bool, as_json: bool) -> None:
    """Print the table of results.

    Of several results for one cell the newest is shown. Published scores stand beside ours where
    protocol and variant are lary-v1.

    \b
    lary-orch results
    lary-orch results --run smoke-1a2b3c4d
    lary-orch results --csv > scores.csv
    """
    from lary_orch import leaderboard
    from lary_orch.finished import read_results

    found = leaderboard.collect(read_results(workspace.results, run))
    scores = [score for score in found if protocol in (None, score.protocol)]
    if as_json:
        click.echo(json.dumps(leaderboard.as_json(scores), indent=2, ensure_ascii=False))
    elif as_csv:
        click.echo(leaderboard.as_csv(scores), nl=False)
    elif scores:
        leaderboard.show_all(scores, sys.stdout)
    else:
        click.echo(f"no such results in {workspace.results}; `lary-orch run` makes them")
