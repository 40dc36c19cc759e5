"""`python -m lary_libero describe | tasks | selftest | generate ...`: the simulator's command line."""

import click
from lary_schema.lazy_group import LazyGroup, import_command, run_group

COMMANDS: dict[str, str] = {
    "describe": "Print the image card as JSON.",
    "tasks": "List suites and tasks.",
    "evaluate": "Run a policy's episodes.",
    "act": "Answer a simulator's observations with actions.",
    "video": "Make videos of episodes that were run.",
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
    """Run the command that was asked for, and exit."""
    run_group(cli, "lary_libero")


if __name__ == "__main__":
    main()
