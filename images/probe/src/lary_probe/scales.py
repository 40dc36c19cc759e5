"""What actions are standardised with: fixed numbers, train's own, or each robot type's."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from lary_schema.action_statistics import NO_ROBOT, Moments, divisor
from lary_schema.base import ContractError, file_sha256, read_json
from lary_schema.cards import Normalisation
from lary_schema.metadata import RowError
from lary_schema.mounts import Mounts
from numpy.typing import NDArray

from lary_probe.metadata import SplitMetadata

ANY = ""
"""The one key where robot types do not matter."""

Steps = NDArray[np.float64]
"""(n, steps, dim) physical actions, or their differences in one step."""


class Scale(NamedTuple):
    """What (a - mean) / std subtracts and divides by; both (dim,) or (n, 1, dim)."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def of(cls, mean: NDArray[np.float64], std: NDArray[np.float64]) -> "Scale":
        return cls(mean, divisor(std))


def train_scale(steps: Steps) -> Scale:
    """Mean and population standard deviation of each dimension over all rows and steps."""
    moments = Moments.of(steps)
    return Scale.of(moments.mean, moments.std)


def robot_types(normalisation: Normalisation, metadata: SplitMetadata, rows: NDArray[np.int64]) -> list[str]:
    """The key of some rows of the CSV: the robot type where the statistics are per robot.

    Raises ContractError where the CSV has no such column.
    """
    if normalisation.kind != "per-robot":
        return [ANY] * len(rows)
    once: dict[str, str] = {}
    types = (_robot_type(metadata, row, normalisation.robot_column) for row in rows.tolist())
    return [once.setdefault(name, name) for name in types]


def _robot_type(metadata: SplitMetadata, row: int, column: str) -> str:
    try:
        return metadata.row(row)[column]
    except RowError:
        return NO_ROBOT
    except KeyError:
        raise ContractError(
            f"{metadata.path}: no column {column!r}, which says what each row's actions are standardised with; add it, "
            "or name yours under robot_column: in the dataset card"
        ) from None


@dataclass(frozen=True)
class Scales:
    """The scale of each key."""

    by_type: dict[str, Scale]
    source: str
    """Where they come from, for people."""
    dim: int

    def unknown(self, types: Sequence[str]) -> dict[str, int]:
        """Rows by key without a scale, most frequent first."""
        return dict(Counter(name for name in types if name not in self.by_type).most_common())

    def of(self, types: Sequence[str]) -> Scale:
        """(n, 1, dim) for rows of these types; mean 0 and std 1 where there is none (LARYBench)."""
        nothing = Scale(np.zeros(self.dim), np.ones(self.dim))
        table = [*self.by_type.values(), nothing]
        numbers = {name: number for number, name in enumerate(self.by_type)}
        chosen = np.array([numbers.get(name, -1) for name in types])
        return Scale(*(np.stack(part)[chosen][:, None] for part in zip(*table, strict=True)))

    def document(self) -> dict[str, dict[str, list[float]]]:
        """By robot type, or under `any`: what turns predictions back into physical actions."""
        return {name or "any": {"mean": s.mean.tolist(), "std": s.std.tolist()} for name, s in self.by_type.items()}


def make_scales(
    normalisation: Normalisation, train: Steps, types: Sequence[str], mounts: Mounts, stats_sha256: str | None
) -> Scales:
    """What a card's normalisation says; `train` are the actions of train's whole CSV and `types` their rows' keys.

    Raises ContractError for a statistics file that is missing, wrong or not the planned one.
    """
    dim = train.shape[2]
    if normalisation.kind == "fixed":
        return Scales({ANY: Scale.of(np.array(normalisation.mean), np.array(normalisation.std))}, "the card", dim)
    if normalisation.kind == "per-robot" and normalisation.stats is not None:
        return _from_file(normalisation.stats, dim, mounts, stats_sha256)
    kinds, names = sorted(set(types)), np.array(types)
    # All rows of the only kind there is are not copied.
    scales = {name: train_scale(train if len(kinds) == 1 else train[names == name]) for name in kinds}
    return Scales(scales, "the train split", dim)


def _from_file(stats: str, dim: int, mounts: Mounts, stats_sha256: str | None) -> Scales:
    """From a JSON file as LARYBench's tools write it."""
    path = mounts.data / stats
    if not path.is_file():
        raise ContractError(
            f"{path}: the robot types' statistics are missing; make them with `lary-orch data stats` (of relative "
            "actions: `lary-orch data relative`), or put LARYBench's own file there"
        )
    document = read_json(path)
    if stats_sha256 is not None and file_sha256(path) != stats_sha256:
        raise ContractError(f"{path}: changed since the job was planned; plan the run again")
    try:
        robots = document["robot_stats"]
        scales = {name: Scale.of(np.array(s["mean"], float), np.array(s["std"], float)) for name, s in robots.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ContractError(f'{path}: expected {{"robot_stats": {{TYPE: {{"mean": [...], "std": [...]}}}}}}') from None
    for name, scale in scales.items():
        if not scale.mean.shape == scale.std.shape == (dim,) or not np.isfinite([scale.mean, scale.std]).all():
            raise ContractError(f"{path}: robot type {name!r} needs {dim} means and stds, all finite")
    return Scales(scales, str(path), dim)
