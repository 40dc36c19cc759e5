"""`describe`: what the image says of itself."""

from pathlib import Path

import click
from lary_schema.cards import ImageCard


@click.command()
def command() -> None:
    """Print the image card as JSON."""
    click.echo(ImageCard.load(Path(__file__).parents[1] / "image.yaml").to_json(), nl=False)
