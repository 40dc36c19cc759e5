"""`evaluate`: a policy's episodes in the simulator (`lary_policy`)."""

import sys

import click


@click.command()
@click.option("--job", required=True)
def command(job: str) -> None:
    """Run a policy's episodes."""
    from lary_policy.__main__ import main

    sys.exit(main(["evaluate", "--job", job]))
