"""Labels into the trajectories that a command names, and what came of it."""

from pathlib import Path

import click

from lary_data.annotating import Annotation, write_npz
from lary_data.progress import notify, progress


def check_source(into: str, source: Path | None) -> None:
    """Raises UsageError where the trajectories are not given, not there, or given in vain."""
    if (source is None) != (into == "npz"):
        raise click.UsageError(f"--into {into} {'takes no' if into == 'npz' else 'needs'} --from")
    if source is not None and not source.is_dir():
        raise click.UsageError(f"--from {source}: is no folder")


def write_labels(annotation: Annotation, title: str, into: str, source: Path | None) -> None:
    """Write them, and say how many steps have one."""
    with progress(title, 0, "files") as tick:
        if source is None:
            counts = write_npz(annotation, tick)
        elif into == "lerobot":
            from lary_data.annotating_lerobot import write_lerobot

            counts = write_lerobot(annotation, source, tick)
        else:
            from lary_data.annotating_tfrecord import write_tfrecords

            counts = write_tfrecords(annotation, source, tick)
    notify(f"{annotation.out}: {counts.said(annotation.any.row)}")
