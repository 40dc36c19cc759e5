"""The store's files apart from its arrays: paths, done markers, provenance. Imports no zarr.

    STORE/
      zarr.json               group; its attributes hold `Provenance`
      tokens/  indices/       (rows, T, N, D) and (rows, T, L), one file per shard
      status/                 (rows,) uint8, one file per shard
      done/00003.json         marker of a finished shard, written last
      claims                  empty; byte s is locked while somebody writes shard s

A missing chunk reads as fill value without an error, so only a marker makes a shard done.
Nothing in a store depends on when, where or in how many attempts it was written.
"""

import json
from enum import IntEnum
from functools import cached_property
from pathlib import Path

from lary_schema.base import ContractError, Document
from lary_schema.cards import ModeSpec
from lary_schema.events import TRANSIENT, Reason
from lary_schema.jobs import StoreDtype, StoreLayout, Values

SHARD_BYTES = 128 << 20
"""Aimed-at size of a shard file: few files, each still buffered whole in memory."""
SHARD_ROWS_MAX = 1024
"""Keeps the loss of a kill small where rows are."""
ITEM_BYTES = {"float16": 2, "float32": 4}
INDEX_BYTES = 8
_KILLED_BEFORE = "the decode process died"
"""The detail of `crashed` in stores from before `killed` was told apart from it: what it died of is not known."""


class Status(IntEnum):
    """A row's state, as stored in `status`."""

    PENDING = 0
    OK = 1
    FAILED = 2


class Failure(Document):
    """Why a row has no latent."""

    row: int
    reason: Reason
    detail: str

    @property
    def transient(self) -> bool:
        """Whether the cause was not the row's own: such a row is tried again by every later run."""
        return self.reason in TRANSIENT or (self.reason, self.detail) == ("crashed", _KILLED_BEFORE)


class ShardRecord(Document):
    """The content of a done marker."""

    shard: int
    start: int
    stop: int
    failures: tuple[Failure, ...] = ()
    clamped: tuple[int, ...] = ()
    """Rows whose sample indices went beyond the clip and were clamped to its last frame."""
    batch_size: int
    """Smallest batch used: below the job's when memory ran out."""
    device: str
    files: dict[str, int]
    """Size in bytes of each array file of this shard: a lost or cut file is noticed without reading it."""

    @property
    def ok(self) -> int:
        return self.stop - self.start - len(self.failures)

    @property
    def transient(self) -> bool:
        """Whether a row failed for a reason that is not its own: a later run does the shard again."""
        return any(failure.transient for failure in self.failures)


class Provenance(Document):
    """Group attributes: all that the latents can be traced to."""

    format: int = 1
    layout: StoreLayout
    values: Values
    image: str
    image_digest: str | None
    code_revision: str | None
    libraries: dict[str, str]


class Store:
    """A store's folder without its arrays: every path in it, and what its JSON files say.

    What planning, status and results need. `StoreWriter` and `StoreReader` are for the arrays.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.group = root / "zarr.json"
        self.markers = root / "done"
        self.claims = root / "claims"

    def marker(self, shard: int) -> Path:
        """Of a finished shard; written last."""
        return self.markers / f"{shard:05d}.json"

    def array_files(self, shard: int, *, indices: bool) -> dict[str, Path]:
        """Array name -> file of one shard."""
        files = {"tokens": self.root / f"tokens/c/{shard}/0/0/0", "status": self.root / f"status/c/{shard}"}
        if indices:
            files["indices"] = self.root / f"indices/c/{shard}/0/0"
        return files

    @property
    def exists(self) -> bool:
        return self.group.is_file()

    @cached_property
    def provenance(self) -> Provenance:
        """Raises ContractError where the group is no latent store or cannot be read."""
        try:
            attributes = json.loads(self.group.read_text(encoding="utf-8"))["attributes"]["lary"]
        except OSError as error:
            raise ContractError(f"{self.group}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise ContractError(f"{self.group}: not the group of a latent store") from None
        return Provenance.parse(attributes, str(self.group))

    def done(self) -> set[int]:
        """The shards that are finished."""
        if not self.markers.is_dir():
            return set()
        return {int(p.stem) for p in self.markers.glob("*.json") if p.stem.isdigit()}

    def record(self, shard: int) -> ShardRecord:
        return ShardRecord.read(self.marker(shard))

    def records(self) -> list[ShardRecord]:
        """The markers of all finished shards, in order."""
        return [self.record(shard) for shard in sorted(self.done())]

    def missing(self) -> list[int]:
        """The shards still to be written, in order."""
        return sorted(set(range(self.provenance.layout.shards)) - self.done())

    def damage(self, record: ShardRecord) -> list[str]:
        """What is wrong with a finished shard's files by their sizes (missing, cut); empty is well."""
        problems = []
        for name, size in record.files.items():
            path = self.root / name
            found = path.stat().st_size if path.is_file() else None
            if found != size:
                problems.append(f"{path}: {'missing' if found is None else f'{found} bytes'}, {size} expected")
        return problems


def row_bytes(spec: ModeSpec, dtype: StoreDtype) -> int:
    """Bytes of one row: tokens, indices, status."""
    time, tokens, width = spec.tokens
    codes = spec.indices[0] * spec.indices[1] * INDEX_BYTES if spec.indices else 0
    return time * tokens * width * ITEM_BYTES[dtype] + codes + 1


def shard_rows(row_bytes: int, rows: int) -> int:
    """How many rows a shard holds: about SHARD_BYTES, at most SHARD_ROWS_MAX and the store's rows."""
    return max(1, min(SHARD_BYTES // max(1, row_bytes), SHARD_ROWS_MAX, rows))


def store_path(values: Values) -> str:
    """Where a store lies below the latents mount: readable parts, then the fingerprint's head."""
    name = f"{values.mode}-{values.variant}-{values.fingerprint[:16]}.zarr"
    return f"{values.dataset}/{values.split}/{values.model}/{name}"
