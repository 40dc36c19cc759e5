"""`check`: read every file of datasets to its end."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError
from lary_schema.datasets import DatasetFiles
from lary_schema.printable import printable

from lary_data.datasets import find_dataset, known_datasets
from lary_data.options import timeout_option, workers_option
from lary_data.progress import notify
from lary_data.row_facts import DatasetReport

if TYPE_CHECKING:
    from lary_data.integrity import SplitReport

SHOWN = 10
"""Bad files and rows of a split that are named on the terminal; the JSON report has all."""


@click.command()
@click.option("-d", "--dataset", "keys", metavar="KEY", multiple=True, help="Repeat it; default: all that have a CSV.")
@click.option("--split", "splits", metavar="SPLIT", multiple=True, help="Only these splits.")
@click.option("--sample", type=click.IntRange(min=1), help="Look at this many rows of each split, always the same.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Write the full report there; go on from it.")
@click.option(
    "--allow-shared-groups",
    is_flag=True,
    help="A group (an episode, a video) in train and in an evaluated split is recorded and no fault.",
)
@workers_option
@timeout_option(120)
@click.pass_context
def command(
    ctx: click.Context, keys: tuple[str, ...], splits: tuple[str, ...], sample: int | None, report: Path | None,
    allow_shared_groups: bool, workers: int, timeout: float,
) -> None:  # fmt: skip
    """Read every file that datasets' CSVs name, to its end.

    Labels and groups of all rows are held against the card and against those of train.

    Clips are decoded whole and compared with the sampled frames, images decoded, files of actions and nuisance
    compared with the card.
    The exit code is 1 when something is wrong. With --json a killed check goes on where it was, and a second one
    looks only at files that changed or were bad.

    \b
    lary-orch data check -d calvin --json calvin.check.json
    lary-orch data check --sample 500
    """
    from lary_data.integrity import Checker, check_splits

    wanted = _wanted(keys, splits)
    log = report.with_name(report.name + ".answers") if report else None
    found = check_splits(wanted, Checker(sample, workers, timeout, log, allow_shared_groups))
    if report is not None:
        publish_text(report, found.to_json())
    lines = [line for split in found.splits for line in summary(split)]
    lines += [line for dataset in found.datasets for line in dataset_summary(dataset)]
    for line in lines:
        click.echo(line)
    ctx.exit(0 if found.good else 1)


def _wanted(keys: tuple[str, ...], splits: tuple[str, ...]) -> list[tuple[DatasetFiles, str]]:
    """(dataset, split) of what is to be read; without `keys` all that has a CSV here. Raises ContractError for none."""
    found = [
        (files, split)
        for files in (map(find_dataset, keys) if keys else known_datasets())
        for split, csv in files.csv.items()
        if (not splits or split in splits) and (keys or csv.is_file())
    ]
    if not keys:
        _say_without_csv(splits)
    if not found:
        raise ContractError("no CSV of any dataset is there; name a dataset by -d, or its data by --data-dir")
    return found


def _say_without_csv(splits: tuple[str, ...]) -> None:
    """Name what is not looked at where no dataset was named."""
    names = [
        f"{files.card.key}/{split}"
        for files in known_datasets()
        for split, csv in files.csv.items()
        if (not splits or split in splits) and not csv.is_file()
    ]
    if names:
        notify(f"{len(names)} splits have no CSV here and are not looked at: {', '.join(names)}")


def summary(split: "SplitReport") -> list[str]:
    """What the terminal shows of a split."""
    name = f"{split.dataset}/{split.split}"
    if split.state == "no csv":
        return [f"{name}: no CSV at {split.csv}"]
    if split.state != "checked":
        return [f"{name}: {split.detail}"]
    total = sum(split.counts.values())
    said = ", ".join(f"{count:,} {status}" for status, count in sorted(split.counts.items()))
    bad_rows = (
        f", {len(split.bad_rows):,} rows name no file, or have no label, group or instruction" if split.bad_rows else ""
    )
    lines = [f"{name}: {split.rows:,} rows, {total:,} files: {said or 'none'}{bad_rows}"]
    lines += [f"  {bad.status:8} {bad.detail} ({_rows(bad.rows, bad.references)})" for bad in split.bad_files[:SHOWN]]
    lines += [f"  row {bad.row}: {bad.detail}" for bad in split.bad_rows[:SHOWN]]
    more = max(0, len(split.bad_files) - SHOWN) + split.unlisted + max(0, len(split.bad_rows) - SHOWN)
    return lines + ([f"  and {more:,} more; --json FILE lists all"] if more else [])


def dataset_summary(report: DatasetReport) -> list[str]:
    """What the terminal shows of a dataset as a whole: nothing where nothing is wrong."""
    lines = [f"{report.dataset}: {text}" for text in (*report.contradictions, *report.notes)]
    for shared in report.shared_groups:
        allowed = "allowed" if report.shared_groups_allowed else "split by group, or give --allow-shared-groups"
        more = ", ..." if shared.count > len(shared.groups) else ""
        lines.append(
            f"{report.dataset}: {shared.count:,} groups are in train and in {shared.split}: "
            f"{', '.join(map(printable, shared.groups))}{more}; {allowed}"
        )
    return lines


def _rows(rows: tuple[int, ...], count: int) -> str:
    named = ", ".join(map(str, rows[:3]))
    return f"row {named}" if count == 1 else f"rows {named}{', ...' if count > 3 else ''}: {count} in all"
