"""Are the chosen datasets here, their first media included?"""

from lary_orch.catalog.splits import csv_path, data_root, find_split
from lary_orch.workspace import Workspace
from lary_schema import commands
from lary_schema.base import ContractError
from lary_schema.cards import DatasetCard
from lary_schema.presence import LOOKED_AT, lost_rows, missing_stats

from lary_doctor.check import Context, Finding, worst

NAME = "datasets"


def run(context: Context) -> Finding:
    cards = [context.catalog.dataset(key) for key in context.datasets]
    if not cards:
        return Finding("skip", f"none was named; `{commands.command('datasets')}` lists them")
    splits = [_split(card, split, context.workspace) for card in cards for split in card.splits.all]
    return worst([*splits, *(finding for card in cards for finding in _stats(card, context.workspace))])


def _split(card: DatasetCard, split: str, workspace: Workspace) -> Finding:
    what = f"{card.key}/{split}"
    if card.generator is not None and not csv_path(card, split, workspace).is_file():
        return Finding("ok", f"{what} is made at first use")
    try:
        source = find_split(card, split, workspace)
    except ContractError as error:
        return Finding("fail", str(error))
    lost = lost_rows(card, source)
    if lost:
        remedy = "correct media: in the dataset card, the CSV's paths, or --data-dir"
        return Finding("fail", f"{what}: {len(lost)} of the first {LOOKED_AT} rows have no file, {lost[0]}", remedy)
    return Finding("ok", f"{what}: {source.rows} rows")


def _stats(card: DatasetCard, workspace: Workspace) -> list[Finding]:
    remedy = f"make it: {commands.command('data', 'stats', '-d', card.key)}"
    missing = missing_stats(card, data_root(card, workspace))
    return [Finding("fail", f"{card.key}: {path} is missing", remedy) for path in missing]
