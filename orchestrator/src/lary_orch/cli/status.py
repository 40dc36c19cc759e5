"""`lary-orch status`: how far a run is, read from done markers and results."""

import json
import sys
from typing import Any

import click

from lary_orch.cli.options import json_option, option, workspace_options
from lary_orch.workspace import Workspace


@click.command()
@click.argument("run", required=False)
@workspace_options
@option("--failures", is_flag=True, help="List every failed row with its file and reason.")
@json_option
def command(run: str | None, workspace: Workspace, failures: bool, as_json: bool) -> None:
    """Show how far a run is.

    RUN is a run's name; without it, the latest one. A run that is under way may be asked.

    \b
    lary-orch status
    lary-orch status smoke-1a2b3c4d --failures
    """
    from lary_results.run_state import failed_rows, failure_table, find_plan, run_state, state_tables
    from lary_results.tables import show

    plan = find_plan(workspace.runs, run)
    state = run_state(plan)
    rows = list(failed_rows(plan)) if failures else []
    cluster = _cluster_state(workspace, plan.run)
    if cluster is not None:
        state["cluster"] = cluster
    if as_json:
        listed = {"failures": rows} if failures else {}
        click.echo(json.dumps(state | listed, indent=2, ensure_ascii=False))
        return
    for table in [*state_tables(state), *([failure_table(rows)] if failures else [])]:
        show(table, sys.stdout)
        click.echo()
    if cluster is not None:
        from lary_slurm.report import cluster_table

        show(cluster_table(cluster), sys.stdout)


def _cluster_state(workspace: Workspace, run: str) -> dict[str, Any] | None:
    """Of a run of the slurm runtime: its tasks."""
    if not (workspace.run(run).root / "slurm").is_dir():
        return None
    from lary_slurm.client import Slurm
    from lary_slurm.report import cluster_state

    return cluster_state(workspace.run(run), Slurm())
