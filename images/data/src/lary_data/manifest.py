"""What every manifest has: a split, a CSV for each half, and the card that lets `lary-orch run` take the set."""

import random
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from lary_schema import commands
from lary_schema.atomic import publish_text
from lary_schema.base import ContractError, Document
from lary_schema.cards import DatasetCard, Key
from lary_schema.groups import Grouping
from lary_schema.printable import printable

from lary_data.sample_frames import csv_text

Item = TypeVar("Item", bound=Hashable)
TRAIN, VAL = "train", "val"
NAMED = 10
"""Files or episodes that a message names; all are counted."""
GROUP_COLUMN = "group"
"""Column that the tools write where no column of the data is the group."""


class SetFacts(Document):
    """What the user says of a new set."""

    key: Key
    title: str
    license: str
    val: float
    seed: int
    group: Literal["episode", "task"] = "episode"
    """Of trajectories: what goes to one split as a whole."""


def held_out(items: Sequence[Item], share: float, seed: int | str) -> set[Item]:
    """The part of `items` that is val: `share` of them by a draw that depends on the items and the seed alone.

    Of two and more items at least one is held out and at least one is not; of fewer none is.
    """
    if len(items) < 2:
        return set()
    count = min(max(1, round(share * len(items))), len(items) - 1)
    return set(random.Random(f"{seed}").sample(list(items), count))


def held_out_episodes(tasks: Mapping[Item, str], facts: SetFacts) -> set[Item]:
    """Of episodes with their tasks those of val: a share of the episodes, or those of a share of the tasks.

    Raises ContractError for `group: task` where an episode has none.
    """
    if facts.group == "episode":
        return held_out(list(tasks), facts.val, facts.seed)
    without = [str(episode) for episode, task in tasks.items() if not task.strip()]
    if without:
        raise ContractError(f"--group task: episodes {', '.join(without[:NAMED])} have no task")
    held = held_out(sorted(set(tasks.values())), facts.val, facts.seed)
    return {episode for episode, task in tasks.items() if task in held}


def grouping(facts: SetFacts) -> Grouping:
    """Of the rows of trajectories, for their card."""
    return Grouping(column="task" if facts.group == "task" else "episode_id")


def metadata_name(key: str) -> str:
    """The name of a set's CSVs, as LARYBench has them; `{split}` stands for the split."""
    return f"{key}_metadata_{{split}}.csv"


def write_splits(
    folder: Path, key: str, header: Sequence[str], rows: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, Path]:
    """The CSV of every split. Raises ContractError, and writes none, where one would have no row."""
    for split, lines in rows.items():
        if not lines:
            raise ContractError(f"{key}: no row for {split}: too few episodes or clips, or they failed; see above")
    paths = {split: folder / metadata_name(key).replace("{split}", split) for split in rows}
    for split, path in paths.items():
        publish_text(path, csv_text([header, *rows[split]]))
    return paths


def retract(folder: Path, key: str) -> None:
    """Remove the CSVs and the card of an earlier call: what they name is about to change."""
    for name in (f"{key}.yaml", *(metadata_name(key).replace("{split}", split) for split in (TRAIN, VAL))):
        (folder / name).unlink(missing_ok=True)


def own_root(data: Path) -> str | None:
    """A data root as a card says it; None for a name that YAML cannot hold."""
    text = str(data.absolute())
    return text if printable(text) == text else None


def how_to_go_on(card: Path, data: Path) -> str:
    """The command for what was written."""
    elsewhere = () if DatasetCard.load(card).root is not None else ("--data-dir", data)
    return commands.command("run", "-m", "frame-diff", "-d", card.stem, "--catalog", card.parent, *elsewhere)
