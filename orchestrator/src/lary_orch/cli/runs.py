"""`lary-orch runs`: the runs of a workspace."""

import sys

import click
from lary_schema import commands
from lary_schema.printable import json_text

from lary_orch.cli.options import json_option, workspace_options
from lary_orch.workspace import Workspace


@click.command()
@workspace_options
@json_option
def command(workspace: Workspace, as_json: bool) -> None:
    """List the runs, newest first.

    \b
    lary-orch runs
    lary-orch runs --json
    """
    from lary_results.run_list import run_records, run_table
    from lary_terminal.tables import show

    found = list(run_records(workspace.runs, workspace.results))
    if as_json:
        click.echo(json_text(found, indent=2))
    elif found:
        show(run_table(found, workspace.runs), sys.stdout)
    else:
        click.echo(f"{workspace.runs}: no run there yet; start one by `{commands.first_run()}`")
