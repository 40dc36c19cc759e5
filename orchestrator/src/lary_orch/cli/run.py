"""`lary-orch run`: the whole way from a request to the table."""

import signal
import sys

import click

from lary_orch.catalog.cards import Catalog
from lary_orch.cli.config import config_option
from lary_orch.cli.options import (
    attempts_option,
    catalog_options,
    json_option,
    option,
    request_options,
    runtime_options,
    workspace_options,
)
from lary_orch.plan.jobs import Request
from lary_orch.runtimes.plugins import Wanted
from lary_orch.workspace import Workspace


@click.command()
@request_options
@catalog_options
@workspace_options
@runtime_options
@attempts_option
@config_option
@option("--dry-run", is_flag=True, help="Show the jobs, as `plan` does, and run none of them.")
@option("--detach", is_flag=True, help="Of a runtime with a queue (slurm): submit, and do not wait.")
@json_option
def command(
    request: Request,
    catalog: Catalog,
    workspace: Workspace,
    wanted: Wanted,
    attempts: int,
    detach: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run the plan: extract latents, probe them, print the table.

    Does only what is not done yet: the same command goes on after a fault or Ctrl-C, and does
    nothing the second time. With --json, stdout carries events and, last, the scores.

    \b
    lary-orch run -m frame-diff -d demo_motion --protocol smoke
    lary-orch run -m vjepa2 -m dinov3-origin -d calvin --runtime docker
    lary-orch run -m frame-diff -d my_set --catalog my_cards --data-dir /data
    lary-orch run --config asked.yaml
    lary-orch run -m vjepa2 -d calvin --runtime slurm --profile cluster.yaml --detach
    """
    from lary_orch.cli.plan import show_plan
    from lary_orch.run.run import run
    from lary_orch.runtimes.signals import exit_at_sigterm

    exit_at_sigterm()
    if dry_run:
        sys.exit(show_plan(request, catalog, workspace, wanted, as_json=as_json))
    try:
        code = run(
            request, catalog, workspace, wanted, attempts=attempts, as_json=as_json, out=sys.stdout, detach=detach
        )
    except KeyboardInterrupt:
        click.echo("stopped", err=True)
        code = 128 + signal.SIGINT
    sys.exit(code)
