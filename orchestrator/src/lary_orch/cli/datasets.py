"""`lary-orch datasets`: what the catalog has, and what of it is on this disk."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from lary_schema import commands
from lary_schema.base import ContractError
from lary_schema.cards import DatasetCard
from lary_schema.printable import json_text

from lary_orch.catalog.cards import Catalog
from lary_orch.cli import completing
from lary_orch.cli.options import catalog_options, json_option, workspace_options
from lary_orch.workspace import Workspace

if TYPE_CHECKING:
    from lary_schema.presence import SplitSource


@click.command()
@click.argument("key", required=False, shell_complete=completing.datasets)
@workspace_options
@catalog_options
@json_option
def command(key: str | None, workspace: Workspace, catalog: Catalog, as_json: bool) -> None:
    """List the datasets and what is on this disk.

    With KEY, all about that one. A split is complete when its CSV can be used, the first rows' media and actions
    are there, and so are the statistics that its card names; `lary-orch data check` opens every file. Demo sets
    are made at first use.

    \b
    lary-orch datasets
    lary-orch datasets calvin
    lary-orch datasets --catalog ~/my-data --data-dir /mnt/data
    """
    from lary_results.listings import dataset_page, datasets_table
    from lary_terminal.tables import show

    wanted = None if key is None else catalog.dataset(key)
    found = [row(card, file, workspace) for file, card in catalog.datasets if wanted in (None, card)]
    if as_json:
        click.echo(json_text(found if wanted is None else found[0], indent=2))
    else:
        show(datasets_table(found) if wanted is None else dataset_page(found[0]), sys.stdout)


def row(card: DatasetCard, file: Path, workspace: Workspace) -> dict[str, Any]:
    """One record per dataset card."""
    from lary_results.listings import target_of

    from lary_orch.catalog.splits import csv_path, data_root

    return {
        "key": card.key,
        "title": card.title,
        "task": card.task,
        "input": card.columns.input,
        "card": str(file),
        "license": card.license,
        "source": card.source,
        "columns": card.columns.model_dump(exclude={"input", "implied_folder"}),
        "target": target_of(card),
        "group": None if card.group is None else card.group.column,
        "media": str(data_root(card, workspace) / card.media),
        "splits": [
            {
                "split": split,
                "trains": split == card.splits.train,
                "csv": str(csv_path(card, split, workspace)),
                **_count(card, split, workspace),
            }
            for split in card.splits.all
        ],
    }


def _count(card: DatasetCard, split: str, workspace: Workspace) -> dict[str, Any]:
    from lary_orch.catalog.splits import csv_path, find_split

    csv = csv_path(card, split, workspace)
    if not csv.is_file():
        absent = "made at first use" if card.generator is not None else f"no CSV: {csv}"
        return {"rows": None, "complete": False, "problem": absent}
    try:
        source = find_split(card, split, workspace)
    except ContractError as error:
        return {"rows": None, "complete": False, "problem": str(error)}
    problem = _missing(card, source)
    return {"rows": source.rows, "complete": problem is None, "problem": problem}


def _missing(card: DatasetCard, source: "SplitSource") -> str | None:
    """The first thing that is not there."""
    from lary_schema.presence import LOOKED_AT, lost_rows, missing_stats

    if lost := lost_rows(card, source):
        return f"{len(lost)} of the first {min(LOOKED_AT, source.rows)} rows have no file, {lost[0]}"
    if stats := missing_stats(card, source.data):
        return f"no statistics: {stats[0]} (`{commands.command('data', 'stats', '-d', card.key)}`)"
    return None
