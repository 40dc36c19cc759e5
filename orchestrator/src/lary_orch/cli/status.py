"""`lary-orch status`: how far a run is, read from done markers and results."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from lary_schema.printable import json_text
from lary_schema.runs import RunPaths

from lary_orch.cli import completing
from lary_orch.cli.options import json_option, option, workspace_options
from lary_orch.workspace import Workspace

if TYPE_CHECKING:
    from lary_orch.runtimes.plugins import Detached


@click.command()
@click.argument("run", required=False, shell_complete=completing.runs)
@workspace_options
@option("--failures", is_flag=True, help="List every failed row or episode with its reason.")
@json_option
def command(run: str | None, workspace: Workspace, failures: bool, as_json: bool) -> None:
    """Show how far a run is.

    RUN is a run's name; without it, the latest one. What runs just now is shown with its rate and the time that
    is left, whoever started it, here or on another host that shares the workspace.

    \b
    lary-orch runs                      their names
    lary-orch status
    lary-orch status smoke-1a2b3c4d --failures
    """
    from lary_results.run_state import DiskState, failure_tables, find_plan, run_state, state_tables
    from lary_results.run_state import failures as found_failures
    from lary_results.running import is_worked_on, running_jobs, running_table
    from lary_terminal.tables import show

    plan = find_plan(workspace.runs, run)
    disk = DiskState()
    state = run_state(plan, disk)
    paths = workspace.run(plan.run)
    state |= {"running": is_worked_on(paths), "jobs": running_jobs(paths)}
    listed = found_failures(plan, disk) if failures else {}
    detached = list(_detached(paths))
    for known, found in detached:
        state[known.key] = found
    if as_json:
        click.echo(json_text(state | listed, indent=2))
        return
    running = [running_table(state["jobs"])] if state["jobs"] else []
    for table in [*running, *state_tables(state), *(failure_tables(listed, plan) if listed else [])]:
        show(table, sys.stdout)
        click.echo()
    for known, found in detached:
        show(known.table(found), sys.stdout)


def _detached(run: RunPaths) -> Iterator[tuple["Detached", dict[str, Any]]]:
    """What runtimes know of a run whose jobs may go on by themselves."""
    from lary_orch.runtimes.plugins import plugins

    for plugin in plugins().values():
        if plugin.detached is not None:
            known = plugin.detached()
            if (found := known.state(run)) is not None:
                yield known, found
