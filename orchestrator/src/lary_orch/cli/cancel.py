"""`lary-orch cancel`: take a run off the cluster."""

import click

from lary_orch.cli import completing
from lary_orch.cli.options import workspace_options
from lary_orch.workspace import Workspace


@click.command()
@click.argument("run", required=False, shell_complete=completing.runs)
@workspace_options
def command(run: str | None, workspace: Workspace) -> None:
    """Take a run of the slurm runtime off the cluster.

    RUN is a run's name; without it, the latest one. Returns when none of its tasks is in the queue any
    more. What is done stays done: the same `run` goes on from there. Works on any login node.

    \b
    lary-orch cancel
    lary-orch cancel clean-1a2b3c4d
    """
    from lary_results.run_state import find_plan

    from lary_orch.runtimes.plugins import plugins

    name = find_plan(workspace.runs, run).run
    for plugin in plugins().values():
        if plugin.detached is not None and (done := plugin.detached().cancel(workspace.run(name), _notify)):
            click.echo(f"run {name}: {done}")
            return
    click.echo(f"run {name}: nothing of it was ever on a cluster")


def _notify(line: str) -> None:
    click.echo(line, err=True)
