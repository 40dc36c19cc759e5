"""`lary-orch images`: build, list and prune container images."""

import click

from lary_orch.catalog.cards import Catalog, repository
from lary_orch.cli.contributed import group_of
from lary_orch.cli.options import catalog_options, json_option, option


@click.group(cls=group_of("images"))
def command() -> None:
    """Build, list, export and prune container images.

    \b
    lary-orch images build
    lary-orch images build --base-image python:3.12-slim      without CUDA
    lary-orch images build --torch cu126                      an older CUDA, for an older driver
    lary-orch images build --catalog ./my-lam my-lam
    lary-orch images export --to /shared/images baseline probe
    """


@command.command()
@click.argument("names", nargs=-1)
@option("--base-image", envvar="LARY_BASE_IMAGE", help="Parent of the base [LARY_BASE_IMAGE, else CUDA's].")
@option("--torch", metavar="BUILD", help="For an older driver: cu126, cu128, cpu, or an index's URL.")
@option("--no-cache", is_flag=True, help="Build every layer anew.")
@option("--quiet", is_flag=True, help="Show no build log.")
@catalog_options
def build(
    catalog: Catalog, names: tuple[str, ...], base_image: str | None, torch: str | None, no_cache: bool, quiet: bool
) -> None:
    """Build the named images, or the base and all others.

    NAMES without `base` leave the base as it is, unless --base-image or --torch is given or it is missing.
    """
    from lary_terminal.tables import size_text

    from lary_orch.runtimes.docker import connect
    from lary_orch.runtimes.image_builder import build as build_one
    from lary_orch.runtimes.image_builder import built
    from lary_orch.runtimes.images import BASE, Recipes, choose, tag

    client, recipes = connect(), Recipes(repository())
    chosen = choose(catalog, names, recipes, base_image, torch)
    if chosen[0].name != BASE and not any(tag(BASE) in image.tags for image in built(client)):
        chosen.insert(0, recipes.base(None))
    for recipe in chosen:
        click.echo(f"building {recipe.ref} from {recipe.context}", err=True)
        report = build_one(client, recipe, _nothing if quiet else _log, no_cache=no_cache)
        click.echo(f"{report.ref}  {report.id[7:19]}  {size_text(report.size)}  {report.seconds:.0f} s")


def _log(line: str) -> None:
    click.echo(f"    {line}", err=True)


def _nothing(line: str) -> None:
    """`--quiet`: the log is shown where the build fails."""


@command.command()
@catalog_options
@json_option
def ls(catalog: Catalog, as_json: bool) -> None:
    """List our images on this engine, and whether they are what the sources say."""
    import sys
    from dataclasses import asdict

    from lary_schema.printable import json_text
    from lary_terminal.tables import Table, show, size_text

    from lary_orch.runtimes.docker import connect
    from lary_orch.runtimes.image_builder import built
    from lary_orch.runtimes.images import Recipes, ordered, sources_of, state

    sources = sources_of(catalog, Recipes(repository()))
    found = [(image, state(image, sources)) for image in ordered(built(connect()))]
    if as_json:
        click.echo(json_text([asdict(image) | {"state": text} for image, text in found]))
        return
    rows = [(i.tags[0] if i.tags else f"({i.name})", i.id[7:19], size_text(i.size), text) for i, text in found]
    show(Table("Images", ("image", "id", "size", "state"), rows, right=frozenset({2})), sys.stdout)


@command.command()
def prune() -> None:
    """Remove our images that a newer build or version replaced. Others' images are never touched."""
    from lary_orch.runtimes.docker import connect
    from lary_orch.runtimes.image_builder import prune as prune_all

    count = 0
    for image, what in prune_all(connect()):
        click.echo(f"{what}: {image.tags[0] if image.tags else image.id[7:19]} ({image.name} {image.version})")
        count += what == "removed"
    click.echo(f"{count} images removed")
