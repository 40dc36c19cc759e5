"""`lary-orch data relative`: relative actions and their statistics."""

from pathlib import Path

import click

from lary_data.options import action_options


@click.command()
@action_options
@click.option(
    "--output-root", type=click.Path(file_okay=False, path_type=Path),
    help="Where regression_relative/ is made [the data root].",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Compute files anew that are there already.")
def command(
    dataset: str,
    splits: tuple[str, ...],
    csvs: tuple[Path, ...],
    max_missing: float,
    workers: int,
    output_root: Path | None,
    overwrite: bool,
) -> None:
    """Compute relative actions (last step minus first) and their statistics.

    Each row's goes to regression_relative/ under the path of its absolute one, float32; one that is there already
    and has the right shape is kept. The statistics are those of all train rows together. LARYBench needs both for
    its relative mode; this bench computes them by itself.

    \b
    lary-orch data relative -d calvin
    lary-orch data relative -d calvin --split train --csv part1.csv --csv part2.csv
    """
    import json

    from lary_schema.atomic import publish_text

    from lary_data.actions import tables
    from lary_data.datasets import find_dataset
    from lary_data.progress import progress
    from lary_data.relative import Relatives, statistics_json, statistics_path

    files = find_dataset(dataset)
    found = tables(files, splits or files.card.splits.all, csvs)
    root = output_root or files.data
    work = Relatives(found, root, overwrite=overwrite)
    with progress(f"relative actions of {dataset}", sum(table.count() for table in found), "files") as tick:
        train = work.run(workers, tick)
    work.missing.check(work.total, max_missing)
    done = ", ".join(f"{count} {outcome}" for outcome, count in sorted(work.outcomes.items()))
    click.echo(f"{work.total} rows: {done}, {work.missing.count} missing")
    if train.total:
        path = statistics_path(found, root)
        publish_text(path, json.dumps(statistics_json(train, found), indent=2) + "\n")
        click.echo(f"{path}: {train.everything().count} train rows")
