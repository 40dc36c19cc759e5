"""`act`: the baselines that fit every simulator (`lary_policy`)."""

import sys

import click


@click.command()
@click.option("--job", required=True)
def command(job: str) -> None:
    """Answer a simulator's observations with actions."""
    from lary_policy.__main__ import main

    sys.exit(main(["act", "--job", job]))
