"""`lary-orch images export`."""

from pathlib import Path

import click
from lary_orch.catalog.cards import Catalog
from lary_orch.cli.options import FOLDER, catalog_options, option
from lary_schema.base import ContractError


@click.command("export")
@click.argument("names", nargs=-1)
@option("--to", "folder", type=FOLDER, required=True, help="Folder on the cluster's shared volume.")
@catalog_options
def command(catalog: Catalog, names: tuple[str, ...], folder: Path) -> None:
    """Write images to files, for a cluster that reaches no registry.

    An OCI archive per image, which Podman loads; also Apptainer's and Enroot's image where `apptainer`
    or `enroot` is on this machine. NAMES are images; without any, all that the catalog has.
    """
    from lary_orch.runtimes.docker import connect
    from lary_terminal.tables import size_text

    from lary_slurm.export import export

    client, sources = connect(), {source.card.name: source for _, source in catalog.images}
    unknown = [name for name in names if name not in sources]
    if unknown:
        raise ContractError(f"no image {', '.join(unknown)}; there are {', '.join(sorted(sources))}")
    for name in names or sorted(sources):
        exported = export(client, sources[name], folder, _log)
        archive = folder / f"{name}.tar"
        click.echo(f"{archive}  {exported.ref}  {exported.id[7:19]}  {size_text(archive.stat().st_size)}")


def _log(line: str) -> None:
    click.echo(f"    {line}", err=True)
