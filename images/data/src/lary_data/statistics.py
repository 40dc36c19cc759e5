"""Mean and spread of actions, over all rows and per robot type, in LARYBench's JSON."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lary_schema.action_statistics import Moments
from lary_schema.base import ContractError
from lary_schema.cards import Normalisation
from lary_schema.chunks import read_chunk
from numpy.typing import NDArray

from lary_data.actions import ActionFile, Missing, Table, actions_of, read_all
from lary_data.progress import Tick

Steps = NDArray[np.float64]
"""(n, dim)."""
Read = Callable[[ActionFile], Steps]


@dataclass
class Pooled:
    """Statistics of any number of CSVs."""

    total: int = 0
    """Rows looked at."""
    missing: Missing = field(default_factory=Missing)
    all: Moments | None = None
    robots: dict[str, Moments] = field(default_factory=dict)

    def add(self, batch: Sequence[tuple[ActionFile, Steps | None]]) -> None:
        """Take in a batch of files."""
        steps: dict[str | None, list[Steps]] = {}
        for file, values in batch:
            if values is None:
                self.missing.note(file)
            else:
                steps.setdefault(file.robot, []).append(values)
        self.total += len(batch)
        for robot, parts in steps.items():
            moments = Moments.of(np.concatenate(parts))
            self.all = moments if self.all is None else self.all + moments
            if robot is not None:
                self.robots[robot] = self.robots[robot] + moments if robot in self.robots else moments

    def everything(self) -> Moments:
        """Raises ContractError where no file was there."""
        if self.all is None:
            raise ContractError("no action file is there, so there are no statistics")
        return self.all

    def robots_json(self) -> dict[str, Any]:
        return {robot: moments.as_json() for robot, moments in sorted(self.robots.items())}


def pool(tables: Sequence[Table], robot_column: str | None, read: Read, workers: int, tick: Tick) -> Pooled:
    """Statistics over all rows of all CSVs together."""
    pooled = Pooled()
    for table in tables:
        for batch in read_all(table.rows(robot_column), read, workers):
            pooled.add(batch)
            for _ in batch:
                tick(pooled.missing.count)
    return pooled


def robot_column(normalisation: Normalisation) -> str | None:
    """The column of robot types, where statistics are kept apart by it."""
    return normalisation.robot_column if normalisation.kind == "per-robot" else None


def absolute(tables: Sequence[Table], workers: int, tick: Tick) -> Pooled:
    """Statistics of every step of every chunk."""
    actions = actions_of(tables[0].files)
    column = robot_column(actions.normalisation)
    return pool(tables, column, lambda file: read_chunk(file.path, actions.stride, actions.dim), workers, tick)


def absolute_json(pooled: Pooled, tables: Sequence[Table]) -> dict[str, Any]:
    """LARYBench's document (`utils/compute_robot_action_stats.py`)."""
    files = tables[0].files
    return {
        "dataset": files.card.key,
        "action_mode": "absolute",
        "action_dim": actions_of(files).dim,
        "source_csv": ", ".join(str(table.csv) for table in tables),
        "action_root": str(tables[0].root),
        "missing_actions": pooled.missing.count,
        "missing_action_examples": pooled.missing.examples,
        "global": pooled.everything().as_json(),
        "robot_stats": pooled.robots_json(),
    }


def absolute_path(tables: Sequence[Table]) -> Path:
    """Where LARYBench and the dataset's card look for the document."""
    files, actions = tables[0].files, actions_of(tables[0].files)
    default = f"{set_folder(actions.folder)}/{files.card.key}_stats.json"
    return files.data / (actions.normalisation.stats or default)


def set_folder(folder: str) -> str:
    """What all splits share of an action folder: `regression/calvin` of `regression/calvin/{split}_stride5`."""
    parts = folder.split("/")
    return "/".join(parts[: next((i for i, part in enumerate(parts) if "{split}" in part), len(parts))])
