"""`python -m lary_demo KEY FOLDER`: a demo world by other settings than the built-in ones."""

import sys
from pathlib import Path

import click
from lary_schema.base import ContractError

from lary_demo import KEYS, Settings, ensure


@click.command()
@click.argument("key", type=click.Choice(KEYS))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@click.option("--distractor", type=click.IntRange(0, 100), help="Strength in percent [default: the set's].")
def main(key: str, folder: Path, seed: int, distractor: int | None) -> None:
    """Make the demo set KEY in FOLDER/KEY."""
    try:
        ensure(key, folder, click.echo, Settings.of(key, seed, distractor))
    except ContractError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
