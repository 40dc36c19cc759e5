"""`lary-orch latents`: LARYBench's latents in and out, by the data tools."""

import sys
from collections.abc import Callable

import click

from lary_orch.catalog.cards import Catalog
from lary_orch.cli.options import catalog_options, environment_option, workspace_options
from lary_orch.workspace import Workspace


@click.group()
def command() -> None:
    """Import LARYBench's latents into stores, and export stores to it.

    \b
    lary-orch latents import -m dinov2 -d calvin
    lary-orch run -m dinov2 -d calvin --variant imported
    lary-orch latents export -m vjepa2 -d calvin --to /data/latent_actions

    Both verbs also take the folders: --workspace, --data-dir, --metadata-dir, --latents, --catalog, --env
    (`lary-orch data --help` describes them).
    """


def _verb(name: str, help_line: str) -> Callable[..., None]:
    """A subcommand that keeps the options of folders for itself and leaves all others to the tool `latents-NAME`."""

    @command.command(name, help=help_line, add_help_option=False, context_settings={"ignore_unknown_options": True})
    @workspace_options
    @catalog_options
    @environment_option
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def verb(workspace: Workspace, catalog: Catalog, environment: str, arguments: tuple[str, ...]) -> None:
        from lary_orch.runtimes.tools import run_tool

        def notify(line: str) -> None:
            click.echo(line, err=True)

        sys.exit(run_tool(catalog, workspace, environment, (f"latents-{name}", *arguments), notify))

    return verb


_verb("import", "Take LARYBench's latents (CSV and .npz files) into stores; --help lists its options.")
_verb("export", "Write stores as LARYBench's latents; --help lists its options.")
