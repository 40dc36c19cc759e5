"""`lary-orch data stats`: mean and spread of absolute actions."""

from pathlib import Path

import click

from lary_data.options import action_options


@click.command()
@action_options
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path),
    help="JSON file [where the dataset's card names it, else SET_FOLDER/DATASET_stats.json].",
)  # fmt: skip
def command(
    dataset: str,
    splits: tuple[str, ...],
    csvs: tuple[Path, ...],
    max_missing: float,
    workers: int,
    output: Path | None,
) -> None:
    """Compute the mean and spread of actions, per robot.

    Over every step of every chunk of the train split (or of --split; several are pooled), in float64, with the
    population's standard deviation, below 1e-6 counted as 1. Per robot type where the dataset is normalised so; an
    empty type is `nan`. The JSON is LARYBench's.

    \b
    lary-orch data stats -d agibotbeta
    lary-orch data stats -d robocoin --csv part1.csv --csv part2.csv --output stats.json
    """
    import json

    from lary_schema.atomic import publish_text

    from lary_data.actions import tables
    from lary_data.datasets import find_dataset
    from lary_data.progress import progress
    from lary_data.statistics import absolute, absolute_json, absolute_path

    files = find_dataset(dataset)
    found = tables(files, splits or (files.card.splits.train,), csvs)
    with progress(f"actions of {dataset}", sum(table.count() for table in found), "files") as tick:
        pooled = absolute(found, workers, tick)
    pooled.missing.check(pooled.total, max_missing)
    path = output or absolute_path(found)
    publish_text(path, json.dumps(absolute_json(pooled, found), indent=2) + "\n")
    click.echo(f"{path}: {pooled.everything().count} steps of {pooled.total - pooled.missing.count} chunks")
    for robot, moments in sorted(pooled.robots.items()):
        click.echo(f"  {robot}: {moments.count} steps")
    if pooled.missing.count:
        click.echo(f"{pooled.missing.count} files are missing, the first {pooled.missing.examples[0]}", err=True)
