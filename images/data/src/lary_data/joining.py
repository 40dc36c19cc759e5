"""A finished store's rows joined to trajectories: which label belongs to which step of which episode."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lary_schema.base import ContractError, fingerprint
from lary_schema.cards import PairColumns
from lary_schema.datasets import DatasetFiles
from lary_schema.groups import group_of
from lary_schema.metadata import Row, RowError, read_rows
from lary_schema.store.reader import LatentReader
from numpy.typing import NDArray

IDX, Z, VALID, DT, MODEL = "latent_idx", "latent_z", "latent_valid", "latent_dt", "latent_model"
NAMES = (IDX, Z, VALID, DT, MODEL)
Arrays = dict[str, NDArray[Any]]
_OF_ROWS = {"split", "metadata_sha256", "media"}
"""Of a store's values: what differs between the splits of a set."""
STEP = r"(\d+)\D*$"
"""Finds a frame's step in its file's name: the last number."""


class Place(NamedTuple):
    """Where a label goes."""

    row: int
    step: int


@dataclass
class Counts:
    """Of steps, over all episodes."""

    episodes: int = 0
    steps: int = 0
    valid: int = 0
    failed: int = 0
    """Steps whose row failed in extraction."""
    beyond: int = 0
    """Steps from which no second frame is left in the episode."""
    unlabelled: int = 0
    """Other steps: no row of the CSV begins there."""
    short: list[str] = field(default_factory=list)
    """Episodes without one pair."""

    def __str__(self) -> str:
        short = f"; {len(self.short)} episodes are shorter than a pair" if self.short else ""
        return (
            f"{self.episodes:,} episodes, {self.steps:,} steps: {self.valid:,} have a label; of the others "
            f"{self.beyond:,} lie at an episode's end, {self.failed:,} failed in extraction, and at "
            f"{self.unlabelled:,} no pair begins{short}"
        )


@dataclass(frozen=True)
class Labels:
    """Latents of one split, by episode."""

    store: LatentReader
    dt: int
    places: Mapping[str, tuple[Place, ...]]
    failed: frozenset[int]
    codes: int

    @property
    def model(self) -> str:
        """Fingerprint of what made them: all that determines a store's values but its rows, so that the splits of a set
        have one."""
        values = self.store.provenance.values.model_dump(mode="json", exclude=_OF_ROWS)
        return fingerprint(values | {"dt": self.dt})

    @property
    def tokens(self) -> int:
        return self.store.shape[1]

    @property
    def width(self) -> int:
        return self.store.shape[2]

    def length(self, episode: str) -> int:
        """Steps of an episode, as far as its pairs reach."""
        return max((place.step for place in self.places[episode]), default=-self.dt) + self.dt + 1

    def of(self, episode: str, length: int, counts: Counts) -> Arrays:
        """The arrays of an episode of `length` steps: `latent_idx` int64 (F, K), `latent_z` float32 (F, K, D), ...

        Steps without a label are 0 and not valid. Raises ContractError for a pair that reaches beyond `length`.
        """
        found: Arrays = {
            IDX: np.zeros((length, self.tokens), np.int64),
            Z: np.zeros((length, self.tokens, self.width), np.float32),
            VALID: np.zeros(length, bool),
            DT: np.array(self.dt, np.int64),
            MODEL: np.array(self.model),
        }
        places = self.places.get(episode, ())
        good = [place for place in places if place.row not in self.failed]
        if late := next((place for place in places if place.step + self.dt >= length), None):
            raise ContractError(
                f"episode {episode}: has {length} steps, row {late.row} has a pair of steps {late.step} and "
                f"{late.step + self.dt}; the store is of another version of this data"
            )
        if good:
            rows, steps = np.array([p.row for p in good], np.int64), [p.step for p in good]
            found[IDX][steps] = self.store.indices(rows)[:, 0]
            found[Z][steps] = self.store.tokens(rows)[:, 0].astype(np.float32)
            found[VALID][steps] = True
        self._count(episode, length, places, found[VALID], counts)
        return found

    def _count(self, episode: str, length: int, places: tuple[Place, ...], valid: NDArray[Any], counts: Counts) -> None:
        failed = sum(place.row in self.failed for place in places)
        beyond = min(self.dt, length)
        counts.episodes += 1
        counts.steps += length
        counts.valid += int(valid.sum())
        counts.failed += failed
        counts.beyond += beyond
        counts.unlabelled += length - int(valid.sum()) - failed - beyond
        if not places:
            counts.short.append(episode)


def join(
    files: DatasetFiles,
    split: str,
    store: LatentReader,
    dt: int | None,
    codes: int | None,
    step: str | None = None,
) -> Labels:
    """Labels of a store of image pairs. `step` is a column of steps; None: they are read in the frames' names.

    Raises ContractError for a store without indices, of clips, of another `dt` than asked for, and for rows of which
    episode or step cannot be read, or two of which claim one step.
    """
    csv = files.csv[split]
    if not isinstance(files.card.columns, PairColumns) or store.provenance.values.mode != "image":
        raise ContractError(f"{store.root}: is of clips; labels are of pairs of frames: a set of image pairs is needed")
    if store.provenance.layout.indices is None:
        raise ContractError(f"{store.root}: holds no code numbers (indices); annotate with a model that has a codebook")
    places: dict[str, list[Place]] = defaultdict(list)
    found: set[int] = set()
    for row, episode, first, second in _rows(files, csv, step):
        places[episode].append(Place(row, first))
        found.add(second - first)
    if len(found) != 1 or (dt is not None and found != {dt}):
        said = ", ".join(map(str, sorted(found)[:5])) or "none"
        raise ContractError(
            f"{csv}: its pairs are {said} steps apart{f', asked for is {dt}' if dt else ''}; make the set with one "
            "stride, and ask for that"
        )
    for episode, inside in places.items():
        if len({place.step for place in inside}) != len(inside):
            raise ContractError(f"{csv}: episode {episode}: two rows begin at one step")
    failed = frozenset(failure.row for failure in store.failures)
    ordered = {name: tuple(sorted(inside, key=lambda place: place.step)) for name, inside in places.items()}
    return Labels(store, found.pop(), ordered, failed, _codes(store, failed, codes))


def _rows(files: DatasetFiles, csv: Path, step: str | None) -> Iterator[tuple[int, str, int, int]]:
    """(row, episode, step of the first frame, step of the second)."""
    card = files.card
    if card.group is None or not isinstance(card.columns, PairColumns):
        raise ContractError(f"dataset {card.key}: its card names no group:, so a row's episode is unknown")
    columns = [card.group.column, card.columns.source, card.columns.target, *([step] if step else [])]
    for row in read_rows(csv, columns, ()):
        episode = group_of(row, card.group, str(csv))
        first = _number(csv, row, step, r"^\s*(\d+)\s*$") if step else _number(csv, row, card.columns.source, STEP)
        distance = _number(csv, row, card.columns.target, STEP) - _number(csv, row, card.columns.source, STEP)
        if distance < 1:
            raise ContractError(f"{csv}: row {row.index}: the second frame is not after the first one")
        yield row.index, episode, first, first + distance


def _number(csv: Path, row: Row, column: str, pattern: str) -> int:
    try:
        found = re.search(pattern, Path(row[column]).stem)
    except RowError as error:
        raise ContractError(f"{csv}: row {row.index}: {error}") from None
    if found is None:
        raise ContractError(
            f"{csv}: row {row.index}: column {column!r} has {row[column]!r}, in which no step is found; name a column "
            "of steps by --step"
        )
    return int(found.group(1))


def _codes(store: LatentReader, failed: frozenset[int], codes: int | None) -> int:
    rows = np.array([row for row in range(store.rows) if row not in failed], np.int64)
    largest = max((int(store.indices(rows[at : at + 65536]).max()) for at in range(0, len(rows), 65536)), default=0)
    if codes is not None and largest >= codes:
        raise ContractError(f"{store.root}: has code number {largest}, and --codes says {codes}")
    return codes or max(2, largest + 1)


def one_model(labels: Mapping[str, Labels]) -> Labels:
    """Any of several splits' labels. Raises ContractError where they are not of one model."""
    first = next(iter(labels.values()))
    for split, one in labels.items():
        if one.model != first.model:
            raise ContractError(
                f"{one.store.root}: was made otherwise than {first.store.root} (model, weights, variant, code or "
                f"precision differ); extract split {split} again by the same command"
            )
    return first
