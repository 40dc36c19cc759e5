"""`python -m lary_libero describe | tasks | selftest | generate ...`: the simulator's command line."""

import sys

import click
from lary_schema.base import ContractError, ExitCode
from lary_schema.lazy_group import LazyGroup, import_command
from lary_schema.terminal import safe_output

COMMANDS: dict[str, str] = {
    "describe": "Print the image card as JSON.",
    "tasks": "List suites and tasks.",
    "evaluate": "Run a policy's episodes.",
    "act": "Answer a simulator's observations with actions.",
    "generate": "Make a data set of episodes.",
    "selftest": "Make a task, draw it, and do the same episode twice.",
}
"""Command -> the line of help it has in its own module, `lary_libero.commands.NAME`."""


def _load(name: str) -> click.Command:
    return import_command("lary_libero.commands", name)


@click.group(cls=LazyGroup, lazy=COMMANDS, load=_load, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """A simulated robot arm: LIBERO's tasks, and data made of them."""


def main() -> None:
    """A ContractError is one readable message and its exit code, not a traceback; so is a disk that refuses."""
    safe_output()
    try:
        cli(prog_name="lary_libero")
    except ContractError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        click.echo(f"error: {error.filename or 'a file'}: {error.strerror or error}", err=True)
        sys.exit(ExitCode.BAD_JOB)


if __name__ == "__main__":
    main()
