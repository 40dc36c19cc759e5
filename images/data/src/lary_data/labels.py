"""Labels of trajectories: what a finished store's rows give the steps of episodes, whatever kind of label it is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from lary_schema.base import ContractError, fingerprint
from lary_schema.store.reader import LatentReader
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
_OF_ROWS = {"split", "metadata_sha256", "media"}
"""Of a store's values: what differs between the splits of a set."""


class StepRow(NamedTuple):
    """A row of the store, and the step that it labels."""

    row: int
    step: int


class Column(NamedTuple):
    """One array of labels."""

    name: str
    dtype: str
    """A numpy dtype's name."""
    width: int
    """Numbers of a step."""
    shape: tuple[int, ...]
    """Of a step in an .npz; flat elsewhere."""


@dataclass
class Counts:
    """Of steps, over all episodes."""

    episodes: int = 0
    steps: int = 0
    valid: int = 0
    failed: int = 0
    """Steps whose row failed in extraction."""
    beyond: int = 0
    """Steps whose label would reach beyond the episode's end."""
    unlabelled: int = 0
    """Other steps: no row of the CSV begins there."""
    short: list[str] = field(default_factory=list)
    """Episodes without one row."""

    def said(self, row: str) -> str:
        """In words; `row` is what a row is of."""
        short = f"; {len(self.short)} episodes are shorter than a {row}" if self.short else ""
        return (
            f"{self.episodes:,} episodes, {self.steps:,} steps: {self.valid:,} have a label; of the others "
            f"{self.beyond:,} lie at an episode's end, {self.failed:,} failed in extraction, and at "
            f"{self.unlabelled:,} no {row} begins{short}"
        )


@dataclass(frozen=True)
class Labels(ABC):
    """Labels of one split, by episode."""

    store: LatentReader
    by_episode: Mapping[str, tuple[StepRow, ...]]
    failed: frozenset[int]
    codes: int

    sidecar: ClassVar[str]
    """File of the sizes and the model of the labels, written last."""
    row: ClassVar[str]
    """What a row is of, in words."""
    flag: ClassVar[str]
    """Name of the array (F,) of whether a step has a label."""

    @property
    @abstractmethod
    def reach(self) -> int:
        """Steps after its own that a label is made of: those so near to an episode's end have none."""

    @property
    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """The arrays but for the flag."""

    @property
    @abstractmethod
    def constants(self) -> Arrays:
        """Single values, the same at every step."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What a reader needs to know of the labels."""

    @abstractmethod
    def length(self, episode: str) -> int:
        """Steps of an episode, as far as its rows reach."""

    @abstractmethod
    def read(self, rows: NDArray[np.int64]) -> Arrays:
        """The columns of some rows, (n, *shape)."""

    @abstractmethod
    def refuse_late(self, episode: str, length: int) -> None:
        """Raises ContractError for a row that an episode of `length` steps cannot have."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of all arrays, in their order."""
        return (*(column.name for column in self.columns), self.flag, *self.constants)

    def fingerprint_with(self, **more: Any) -> str:
        """Of what made the labels: all that determines a store's values but its rows, so that the splits of a set
        have one."""
        values = self.store.provenance.values.model_dump(mode="json", exclude=_OF_ROWS)
        return fingerprint(values | more)

    def of(self, episode: str, length: int, counts: Counts) -> Arrays:
        """The arrays of an episode of `length` steps F: each column (F, ...), the flag (F,), single values.

        Steps without a label are 0 and not valid. Raises ContractError as `refuse_late`.
        """
        self.refuse_late(episode, length)
        found: Arrays = {column.name: np.zeros((length, *column.shape), column.dtype) for column in self.columns}
        found |= {self.flag: np.zeros(length, bool)} | self.constants
        there = [one for one in self.by_episode.get(episode, ()) if one.step + self.reach < length]
        good = [one for one in there if one.row not in self.failed]
        if good:
            rows, steps = np.array([one.row for one in good], np.int64), [one.step for one in good]
            for name, values in self.read(rows).items():
                found[name][steps] = values
            found[self.flag][steps] = True
        self._count(episode, length, len(there), len(good), counts)
        return found

    def _count(self, episode: str, length: int, there: int, good: int, counts: Counts) -> None:
        beyond = min(self.reach, length)
        counts.episodes += 1
        counts.steps += length
        counts.valid += good
        counts.failed += there - good
        counts.beyond += beyond
        counts.unlabelled += length - there - beyond
        if not self.by_episode.get(episode):
            counts.short.append(episode)


def late_row(labels: Labels, episode: str, length: int, reach: int) -> StepRow | None:
    """A row of which a step `reach` after its own lies beyond an episode of `length` steps."""
    return next((one for one in labels.by_episode.get(episode, ()) if one.step + reach >= length), None)


def one_model(labels: Mapping[str, Labels]) -> Labels:
    """Any of several splits' labels. Raises ContractError where they are not of one model."""
    first = next(iter(labels.values()))
    for split, one in labels.items():
        if one.facts["model"] != first.facts["model"]:
            raise ContractError(
                f"{one.store.root}: was made otherwise than {first.store.root} (model, weights, variant, code or "
                f"precision differ); extract split {split} again by the same command"
            )
    return first
