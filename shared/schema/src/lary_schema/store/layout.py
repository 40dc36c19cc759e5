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

import errno
import json
import stat
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from lary_schema.base import ContractError, Document, fingerprint, read_json
from lary_schema.cards import ModeSpec
from lary_schema.events import TRANSIENT, Reason
from lary_schema.jobs import ArrayLayout, StoreDtype, Values

SHARD_BYTES = 128 << 20
"""Aimed-at size of a shard file: few files, each still buffered whole in memory."""
SHARD_ROWS_MAX = 1024
"""Keeps the loss of a kill small where rows are."""
ITEM_BYTES = {"float16": 2, "float32": 4}
INDEX_BYTES = 8
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_KILLED_BEFORE = "the decode process died"
"""The detail of `crashed` in stores from before `killed` was distinguished from it: what it died of is not known."""


MISSING_INDEX = -1
"""What `indices` holds for a failed row."""


class StoreError(ContractError):
    """A file of a store is damaged. The message names it and what to do."""


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


class MadeBy(Document):
    """The environment that wrote a shard."""

    image: str
    image_digest: str | None
    libraries: dict[str, str]
    device_class: Literal["cpu", "cuda"]

    def differences(self, other: Self) -> list[str]:
        """In what another environment may give other values, in words; an image's name alone is no difference."""
        mine, theirs = self.libraries, other.libraries
        found = [
            f"{name} {mine.get(name, 'absent')} and {theirs.get(name, 'absent')}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]
        if self.device_class != other.device_class:
            found.append(f"device {self.device_class} and {other.device_class}")
        if None not in (self.image_digest, other.image_digest) and self.image_digest != other.image_digest:
            found.append(f"image {self.image_digest} and {other.image_digest}")
        return found


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
    made_by: MadeBy | None = None
    """None in markers of earlier versions: the store's provenance names the environment of its first shard."""
    fingerprint: str | None = None
    """Of the store that the shard was written for; None in markers of earlier versions."""
    sha256: str | None = None
    """Of the rest of the marker; None in those of earlier versions."""

    def sealed(self) -> Self:
        """The same record with its own hash."""
        return self.model_copy(update={"sha256": _hash_of(self.model_dump(mode="json"))})

    @property
    def ok(self) -> int:
        return self.stop - self.start - len(self.failures)

    @property
    def transient(self) -> bool:
        """Whether a row failed for a reason that is not its own: a later run does the shard again."""
        return any(failure.transient for failure in self.failures)


def _hash_of(marker: dict[str, Any]) -> str:
    return fingerprint({name: value for name, value in marker.items() if name != "sha256"})


def _is_intact(marker: dict[str, Any]) -> bool:
    """Whether a marker is what its hash says; True where it has none."""
    return marker.get("sha256") in (None, _hash_of(marker))


class Provenance(Document):
    """Group attributes: all that the latents can be traced to."""

    format: int = 1
    layout: ArrayLayout
    values: Values
    image: str
    image_digest: str | None
    code_revision: str | None
    libraries: dict[str, str]

    @property
    def sha256(self) -> str:
        """Hash of all of it: the group's attributes hold it too, so that a flipped bit is noticed."""
        return fingerprint(self.model_dump(mode="json"))

    def contradictions(self) -> list[str]:
        """Where layout and values, which say some things twice, disagree."""
        layout, values = self.layout, self.values
        pairs = {
            "fingerprint": (layout.fingerprint, values.fingerprint),
            "tokens": (layout.tokens, values.spec.tokens),
            "indices": (layout.indices, values.spec.indices),
            "dtype": (layout.dtype, values.dtype),
        }
        return [f"{name} {first} and {second}" for name, (first, second) in pairs.items() if first != second]


def maker_of(record: ShardRecord, began: Provenance) -> MadeBy:
    """Who wrote a shard; of one from before markers said it, who began the store."""
    if record.made_by is not None:
        return record.made_by
    return MadeBy(
        image=began.image,
        image_digest=began.image_digest,
        libraries=began.libraries,
        device_class="cpu" if record.device == "cpu" else "cuda",
    )


class Store:
    """A store's folder without its arrays: every path in it, and what its JSON files say.

    What planning, status and results need. `LatentWriter` and `LatentReader` are for the arrays.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.group = root / "zarr.json"
        self.markers = root / "done"
        self.statuses = root / "status/c"
        self.claims = root / "claims"

    def marker(self, shard: int) -> Path:
        """Of a finished shard; written last."""
        return self.markers / f"{shard:05d}.json"

    def array_files(self, shard: int, *, indices: bool) -> dict[str, Path]:
        """Array name -> file of one shard."""
        files = {"tokens": self.root / f"tokens/c/{shard}/0/0/0", "status": self.statuses / str(shard)}
        if indices:
            files["indices"] = self.root / f"indices/c/{shard}/0/0"
        return files

    @property
    def exists(self) -> bool:
        return self.group.is_file()

    @cached_property
    def provenance(self) -> Provenance:
        """Raises ContractError where the group is no latent store, cannot be read or is damaged."""
        try:
            attributes = json.loads(self.group.read_text(encoding="utf-8"))["attributes"]
            said = attributes["lary"]
        except OSError as error:
            raise ContractError(f"{self.group}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise StoreError(f"{self.group}: not the group of a latent store; {self._remedy}") from None
        found = Provenance.parse(said, str(self.group))
        wrong = found.contradictions()
        # Stores of earlier versions have no hash.
        if attributes.get("lary_sha256") not in (None, found.sha256):
            wrong.append("another hash than it says")
        if wrong:
            raise StoreError(f"{self.group}: is damaged ({'; '.join(wrong)}); {self._remedy}")
        return found

    @cached_property
    def _layout(self) -> ArrayLayout | None:
        """None where there is no group (yet)."""
        return self.provenance.layout if self.exists else None

    @property
    def _remedy(self) -> str:
        return f"put that file back from a copy, or move {self.root} away and run the same command again"

    def check(self) -> None:
        """Compare the arrays' headers with the layout: a changed one would show other rows, or none.

        Reads a few small files. Raises StoreError naming the one that is damaged.
        """
        for name, header in array_headers(self.provenance.layout).items():
            path = self.root / name / "zarr.json"
            try:
                found = read_json(path)
            except ContractError as error:
                raise StoreError(f"{error}; {self._remedy}") from None
            there = {k: found.get(k) for k in header} if isinstance(found, dict) else {}
            if not _equal(there, header):
                wrong = [k for k, v in header.items() if k not in there or not _equal(there[k], v)]
                raise StoreError(f"{path}: is damaged ({', '.join(wrong)}); {self._remedy}")

    def done(self) -> set[int]:
        """The shards that are finished."""
        if not self.markers.is_dir():
            return set()
        return {int(p.stem) for p in self.markers.glob("*.json") if p.stem.isdigit()}

    def record(self, shard: int) -> ShardRecord:
        """What a finished shard's marker says. Raises StoreError where it is damaged."""
        path = self.marker(shard)
        try:
            content = read_json(path)
            record = ShardRecord.parse(content, str(path))
        except ContractError as error:
            raise StoreError(f"{error}\n{self._shard_remedy(path)}") from None
        if not _is_intact(content) or not self._holds(record, shard):
            raise StoreError(f"{path}: is damaged. {self._shard_remedy(path)}")
        if self._layout is not None and record.fingerprint not in (None, self._layout.fingerprint):
            raise StoreError(f"{path}: is of another store, and so are that shard's files. {self._shard_remedy(path)}")
        return record

    def _holds(self, record: ShardRecord, shard: int) -> bool:
        """Whether a record is of this shard's rows."""
        rows = range(record.start, record.stop) if self._layout is None else self._layout.shard_range(shard)
        failed = [failure.row for failure in record.failures]
        return (record.shard, record.start, record.stop) == (shard, rows.start, rows.stop) and all(
            row in rows for row in failed
        )

    @staticmethod
    def _shard_remedy(marker: Path) -> str:
        return f"Remove {marker} and run the same command again: it does that shard anew"

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
            found = _size_of(self.root / name)
            if found != size:
                said = "missing" if found is None else f"{found} bytes"
                problems.append(f"{self.root / name}: {said}, {size} expected")
        return problems


def _size_of(path: Path) -> int | None:
    """Of a regular file; None where there is none."""
    try:
        found = path.stat()
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _equal(found: Any, wanted: Any) -> bool:
    """Equal as JSON: `true` and `1.0` are no 1."""
    return json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True)


def array_headers(layout: ArrayLayout) -> dict[str, dict[str, Any]]:
    """Array name -> what its `zarr.json` says (Zarr 3; rows are chunks, shards are files, crc32c)."""
    headers = {"tokens": _sharded(layout, layout.tokens, layout.dtype, "NaN")}
    if layout.indices is not None:
        headers["indices"] = _sharded(layout, layout.indices, "int64", MISSING_INDEX)
    headers["status"] = _header((layout.rows,), (layout.shard_rows,), "uint8", int(Status.PENDING)) | {
        "codecs": [{"name": "bytes"}, {"name": "crc32c"}]
    }
    return headers


def _sharded(layout: ArrayLayout, row: tuple[int, ...], dtype: str, fill: str | int) -> dict[str, Any]:
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    sharding = {"chunk_shape": [1, *row], "codecs": codecs, "index_codecs": codecs, "index_location": "end"}
    return _header((layout.rows, *row), (layout.shard_rows, *row), dtype, fill) | {
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}]
    }


def _header(shape: tuple[int, ...], chunk: tuple[int, ...], dtype: str, fill: str | int) -> dict[str, Any]:
    return {
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def row_bytes(spec: ModeSpec, dtype: StoreDtype) -> int:
    """Bytes of one row: tokens, indices, status."""
    time, tokens, width = spec.tokens
    codes = spec.indices[0] * spec.indices[1] * INDEX_BYTES if spec.indices else 0
    return time * tokens * width * ITEM_BYTES[dtype] + codes + 1


def shard_rows(row_bytes: int, rows: int) -> int:
    """How many rows a shard holds: about SHARD_BYTES, at most SHARD_ROWS_MAX and the store's rows."""
    return max(1, min(SHARD_BYTES // max(1, row_bytes), SHARD_ROWS_MAX, rows))


def store_path(values: Values) -> str:
    """Where a store lies below the latents mount: readable parts, then the fingerprint's prefix."""
    name = f"{values.mode}-{values.variant}-{values.fingerprint[:16]}.zarr"
    return f"{values.dataset}/{values.split}/{values.model}/{name}"
