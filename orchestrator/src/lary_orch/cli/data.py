"""`lary-orch data`: the data tools."""

import sys

import click

from lary_orch.catalog.cards import Catalog
from lary_orch.cli.options import catalog_options, environment_option, workspace_options
from lary_orch.workspace import Workspace


@click.command(context_settings={"allow_interspersed_args": False})
@workspace_options
@catalog_options
@environment_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="TOOL [OPTIONS]...")
def command(workspace: Workspace, catalog: Catalog, environment: str, arguments: tuple[str, ...]) -> None:
    """Prepare data for the bench, and look at it.

    The tools run in an environment of their own. Options of this command stand before the tool's name.

    \b
    lary-orch data                          list the tools
    lary-orch data TOOL --help              what one does
    lary-orch data generate libero --help   make a data set by a simulator
    """
    from lary_orch.runtimes.tools import run_tool

    def notify(line: str) -> None:
        click.echo(line, err=True)

    sys.exit(run_tool(catalog, workspace, environment, arguments or ("--help",), notify))
