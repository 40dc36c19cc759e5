"""The rows of a split: which are trained on, what is read of them, and the actions and texts that go with them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
from lary_schema.action_statistics import Moments, divisor
from lary_schema.base import ContractError, fingerprint
from lary_schema.cards import Latents
from lary_schema.chunks import read_chunk
from lary_schema.groups import group_of
from lary_schema.jobs import ExtractJob, Source
from lary_schema.media import action_files
from lary_schema.metadata import Row, RowError, read_rows
from lary_schema.mounts import Mounts
from lary_schema.store.layout import Failure
from lary_schema.training import Labelled, TrainData
from lary_worker.rows import Metadata, Task
from numpy.typing import NDArray

from lary_trainer.chance import stream
from lary_trainer.latents import read_latents
from lary_trainer.order import Rows
from lary_trainer.trainee import ActionFacts

ALL = Labelled(share=1)
SAMPLED = 2048
"""Chunks, at most, of `ActionFacts.sample`."""


@dataclass(frozen=True)
class _OfSource:
    """All that the worker's `Metadata` reads of a job."""

    source: Source


class Groups(NamedTuple):
    """Groups whose labels may be seen."""

    names: tuple[str, ...]
    """Sorted."""

    @property
    def sha256(self) -> str:
        return fingerprint(list(self.names))


class Split:
    """One split's CSV, checked: row r of it is row r of the job's copy."""

    def __init__(
        self, data: TrainData, source: Source, mounts: Mounts, *, media: bool = True, latents: bool = False
    ) -> None:
        """Raises ContractError where the CSV is not the planned one, or a column or the media folder is missing.

        `media`: whether any will be opened; `latents`: whether labels will be read.
        """
        self.data, self._source, self._mounts = data, source, mounts
        self.path = mounts.job / source.metadata.path
        metadata = Metadata(cast("ExtractJob", _OfSource(source)), mounts)
        metadata.verify()
        if media:
            metadata.require_media()
        self.tasks: list[Task | Failure] = list(metadata.tasks([range(source.metadata.rows)]))
        columns = [data.group and data.group.column, data.actions and data.actions.column]
        columns += [data.latents.column, data.latents.step] if data.latents and latents else []
        wanted = [column for column in columns if column]
        self._in_episodes: list[int] | None = None
        self._rows: list[Row] = list(read_rows(self.path, wanted, [data.instruction] if data.instruction else ()))

    @property
    def rows(self) -> Rows:
        return np.arange(len(self.tasks), dtype=np.int64)

    def tasks_of(self, rows: Rows) -> Mapping[int, Task | Failure]:
        """What a decode process needs to know, by row."""
        return {row: self.tasks[row] for row in rows.tolist()}

    def labelled(self, share: Labelled) -> tuple[Rows, Groups]:
        """The rows of a share of all groups, and those groups: a larger share has those of a smaller one among it.

        Without groups each row is one. Raises ContractError for a share that leaves none.
        """
        groups = self.groups() or [str(row.index) for row in self._rows]
        names = sorted(set(groups))
        count = int(share.share * len(names) + 1e-9)
        if count == 0:
            raise ContractError(
                f"{self.path}: a labelled share of {share.share:g} leaves none of {len(names)} groups; choose "
                f"{1 / len(names):.3g} or more"
            )
        order = stream(share.seed, "labelled").permutation(len(names))
        chosen = {names[at] for at in order[:count]}
        rows = np.array([at for at, group in enumerate(groups) if group in chosen], np.int64)
        return rows, Groups(tuple(sorted(chosen)))

    def groups(self) -> list[str]:
        """The group of every row; empty where the dataset card has none. Raises ContractError naming a row."""
        grouping = self.data.group
        return [group_of(row, grouping, str(self.path)) for row in self._rows] if grouping else []

    def actions(self, rows: Rows) -> NDArray[np.float64]:
        """(n, stride, dim) physical actions of some rows. Raises ContractError naming file and row."""
        actions = self.data.actions
        if actions is None:
            raise ContractError(
                f"dataset {self.data.dataset}: the recipe reads action labels and the dataset card has no actions:; "
                "use a set with actions, or a recipe without labels"
            )
        files = action_files(actions, self.data.split, self._mounts.data, self._source.host_data)
        chunks = np.empty((len(rows), actions.stride, actions.dim))
        for at, row in enumerate(rows.tolist()):
            try:
                chunks[at] = read_chunk(files.find(self._cell(row, actions.column)), actions.stride, actions.dim)
            except ContractError as error:
                raise ContractError(f"{self.path}: row {row}: {error}") from None
        return chunks

    def texts(self, rows: Rows) -> list[str]:
        """The instructions of some rows. Raises ContractError where there are none."""
        column = self.data.instruction
        if column is None:
            raise ContractError(
                f"dataset {self.data.dataset}: the recipe reads instructions and the dataset card has no instruction:"
            )
        try:
            return [self._cell(row, column) for row in rows.tolist()]
        except ContractError as error:
            raise ContractError(f"{self.path}: {error}") from None

    def latents(self, rows: Rows, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Latent labels of some rows by name (`Batch.latents`). Raises ContractError naming file and row."""
        card = self.data.latents
        if card is None:
            raise ContractError(
                f"dataset {self.data.dataset}: the recipe reads latent labels and the dataset card has no latents:; "
                "make them by `lary-orch data annotate`"
            )
        try:
            positions = [(self._cell(row, card.column), self._step(row, card)) for row in rows.tolist()]
            return read_latents(card, self._mounts.data / card.folder_of(self.data.split), positions, wanted)
        except ContractError as error:
            raise ContractError(f"{self.path}: {error}") from None

    def _step(self, row: int, card: Latents) -> int:
        if card.step is None:
            return self._places_in_episodes(card.column)[row]
        cell = self._cell(row, card.step)
        if not cell.strip().isdecimal():
            raise ContractError(f"row {row}: {card.step} {cell!r} is no number of a step")
        return int(cell)

    def _places_in_episodes(self, column: str) -> list[int]:
        """Of every row, how many rows of its episode stand before it."""
        if self._in_episodes is None:
            seen: Counter[str] = Counter()
            self._in_episodes = []
            for row in range(len(self._rows)):
                episode = self._cell(row, column)
                self._in_episodes.append(seen[episode])
                seen[episode] += 1
        return self._in_episodes

    def _cell(self, row: int, column: str) -> str:
        try:
            return self._rows[row][column]
        except RowError as error:
            raise ContractError(f"row {row}: {error}; every row that is trained on needs it") from None


@dataclass(frozen=True)
class Targets:
    """What goes with the frames of some rows of a split."""

    positions: Mapping[int, int]
    """Row -> its position in what follows."""
    actions: NDArray[np.float32] | None = None
    """(n, stride, dim), standardised."""
    texts: Sequence[str] = ()
    latents: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """By name, (n, ...)."""

    def latents_of(self, rows: Rows) -> dict[str, NDArray[Any]]:
        positions = self._positions(rows)
        return {name: values[positions] for name, values in self.latents.items()}

    def actions_of(self, rows: Rows) -> NDArray[np.float32] | None:
        return None if self.actions is None else self.actions[self._positions(rows)]

    def texts_of(self, rows: Rows) -> tuple[str, ...]:
        return tuple(self.texts[position] for position in self._positions(rows)) if self.texts else ()

    def _positions(self, rows: Rows) -> list[int]:
        return [self.positions[row] for row in rows.tolist()]


class Standardise:
    """(a - mean) / deviation, both of the labelled training rows (population's, over rows and steps)."""

    def __init__(self, actions: NDArray[np.float64]) -> None:
        moments = Moments.of(actions)
        self._mean, self._std = moments.mean, divisor(moments.std)
        low, high = np.quantile(actions.reshape(-1, actions.shape[-1]), (0.01, 0.99), axis=0)
        sample = actions[:: -(-len(actions) // SAMPLED)]
        self.facts = ActionFacts(self._mean, self._std, low, high, sample)

    def __call__(self, actions: NDArray[np.float64]) -> NDArray[np.float32]:
        standard: NDArray[np.float32] = ((actions - self._mean) / self._std).astype(np.float32)
        return standard
