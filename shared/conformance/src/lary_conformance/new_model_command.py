"""`lary-orch new-model`: a folder to start from."""

from pathlib import Path

import click
from lary_orch.catalog.cards import Catalog, repository
from lary_orch.cli.options import FOLDER, catalog_options, option
from lary_schema import commands


@click.command()
@click.argument("name")
@option("--to", "target", type=FOLDER, help="The folder to make [./NAME].")
@option("--train", is_flag=True, help="One that is trained here: a trainee, a recipe, and the model that reads it.")
@catalog_options
def command(name: str, target: Path | None, train: bool, catalog: Catalog) -> None:
    """Make a folder for a new model.

    NAME becomes the model's key, its image and its package. The folder may be anywhere: `--catalog`
    names it to the other commands, and no other file has to be touched.

    \b
    lary-orch new-model my-lam
    lary-orch run --catalog ./my-lam -m my-lam -d demo_motion
    lary-orch new-model my-lam --train
    """
    from lary_conformance.new_model import make_model_folder

    folder = target or Path(name)
    taken = {source.card.name for _, source in catalog.images} | {card.key for _, card in catalog.models()}
    files = make_model_folder(name, folder, repository() / "images" / "baseline", taken, train=train)
    for file in sorted(files):
        click.echo(folder / file)
    trained: tuple[str | Path, ...] = ("train", "--catalog", folder, "-r", f"{name}-small", "-d", "demo_arm")
    run: tuple[str | Path, ...] = ("run", "--catalog", folder, "-m", name, "-d", "demo_motion", "--protocol", "smoke")
    click.echo(f"\nIt works as it is:\n  {commands.command(*(trained if train else run))}")
