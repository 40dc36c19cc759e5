"""The command line. A command's module is imported when it is called, so that `--help` stays fast."""

import click
from lary_schema import commands
from lary_schema.lazy_group import LazyGroup, import_command

COMMANDS = {
    "run": "Run the plan: extract latents, probe them, print the table.",
    "train": "Train one model from a recipe; print its key.",
    "study": "Train, extract and probe all arms of a study, then print its table.",
    "evaluate": "Run policies against a simulator, each in its own container, and print how often they succeed.",
    "plan": "Show the jobs that `run` would launch, and their JSON.",
    "status": "Show how far a run is.",
    "runs": "List the runs, newest first.",
    "cancel": "Take a run of the slurm runtime off the cluster.",
    "results": "Print the table of results.",
    "report": "Write one HTML page of all results.",
    "models": "List the models and what they need.",
    "datasets": "List the datasets and what is on this disk.",
    "data": "Prepare data for the bench, and look at it.",
    "latents": "Import LARYBench's latents into stores, and export stores to it.",
    "doctor": "Check this machine, with a remedy for each fault.",
    "images": "Build, list, export and prune container images.",
    "conformance": "Check any image against the contract.",
    "new-model": "Make a folder for a new model.",
    "weights": "List, verify and fetch weights.",
    "clean": "Remove what the bench left behind.",
}
"""Command -> the line of help it has in its own module (a test compares them)."""


CONTRIBUTED = {
    "doctor": "lary-doctor",
    **dict.fromkeys(("conformance", "new-model"), "lary-conformance"),
    **dict.fromkeys(("train", "study"), "lary-study"),
    "evaluate": "lary-evaluate",
}
"""Command -> the package that has it, by the entry point group `lary.commands`."""


def _load(name: str) -> click.Command:
    return _contributed(name) if name in CONTRIBUTED else import_command(__name__, name)


def _contributed(name: str) -> click.Command:
    from lary_orch.cli.contributed import find

    if (command := find(name)) is not None:
        return command
    package = CONTRIBUTED[name]
    raise click.ClickException(
        f"`{commands.command(name)}` comes with {package}, which is not installed here: `pip install {package}`, or "
        f"`pip install -e shared/{package.removeprefix('lary-')}` in a checkout"
    )


@click.group(cls=LazyGroup, lazy=COMMANDS, load=_load, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lary-orch")
def cli() -> None:
    """Benchmark latent action models: extract, probe, compare.

    \b
    lary-orch run -m frame-diff -d demo_motion      a first table, no weights needed
    lary-orch doctor                                is this machine ready?
    lary-orch results                               the table so far
    """
