"""`python -m lary_data TOOL ...`: the tools' command line. `describe` prints the image card as JSON."""

import click
from lary_schema import commands
from lary_schema.lazy_group import LazyGroup, import_command, run_group

TOOLS: dict[str, str] = {
    "describe": "Print the image card as JSON.",
    "check": "Read every file of datasets to its end.",
    "cut-clips": "Cut the clips of SSv2 and EgoDex by ffmpeg.",
    "manifest": "Make a dataset from clips or a robot dataset on disk.",
    "sample-frames": "Choose the frames of every clip of a CSV.",
    "stats": "Compute the mean and spread of actions, per robot.",
    "relative": "Compute relative actions (last step minus first) and their statistics.",
    "split": "Split a metadata CSV into train and val.",
    "latents-import": "Take LARYBench's latents into stores.",
    "latents-export": "Write stores as LARYBench's latents.",
    "annotate": "Write latents into trajectories.",
    "tokenize-actions": "Write codes of action chunks into trajectories.",
}
"""Tool -> the line of help it has in its own module, `lary_data.tools.NAME`."""


def _load(name: str) -> click.Command:
    return import_command("lary_data.tools", name)


@click.group(
    cls=LazyGroup,
    lazy=TOOLS,
    load=_load,
    heading="Tools",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def cli() -> None:
    """Prepare data for the bench, and look at it."""


def main() -> None:
    """Run the command that was asked for, and exit."""
    run_group(cli, f"{commands.program()} data")


if __name__ == "__main__":
    main()
