"""`video`: videos of episodes that were run (`lary_policy`)."""

import sys

import click


@click.command()
@click.option("--job", required=True)
def command(job: str) -> None:
    """Make videos of episodes that were run."""
    from lary_policy.__main__ import main

    sys.exit(main(["video", "--job", job]))
