"""Writing a latent store: whole shards, synced, then marked done. Needs `lary-schema[store]`."""

import errno
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.storage import LocalStore

from lary_schema.atomic import PARTIAL_SUFFIX, publish_text, sync_dir, sync_file
from lary_schema.base import ContractError
from lary_schema.jobs import ArrayLayout
from lary_schema.locks import BusyError, FileLocks, LockKind
from lary_schema.store.layout import MISSING_INDEX as MISSING_INDEX
from lary_schema.store.layout import Failure, MadeBy, Provenance, ShardRecord, Status, Store, maker_of

_ZARR = {
    # Failed rows, all fill value, are written too, so that a hole is always damage. zarr keeps this in
    # no metadata and ignores `config=` on opening an existing array: only its global setting works.
    "array.write_empty_chunks": True,
    # Rows that are encoded in one go: one by one, small rows take 1.7 times the processor time.
    "codec_pipeline.batch_size": 64,
}


class LatentWriter:
    """The one door through which latents get into a store."""

    def __init__(self, root: Path, provenance: Provenance, locks: LockKind | None = None) -> None:
        self.store = Store(root)
        self.layout = provenance.layout
        self._provenance = provenance
        self._claims = FileLocks(self.store.claims, locks)
        self._mine: set[int] = set()
        self._has_written = False

    def close(self) -> None:
        """Drop all claims."""
        if self._has_written:
            with suppress(OSError, BusyError):
                self._sweep_shared()
        self._claims.close()

    @classmethod
    def open(cls, root: Path, provenance: Provenance, locks: LockKind | None = None) -> Self:
        """Make the store, or go on with the one that is there.

        The group is made next to its final path and renamed to it, so a half-made one is never seen and
        two workers may start at once. Raises ContractError where the store there has another
        fingerprint or layout, or the volume cannot be written.
        """
        try:
            if not Store(root).exists:
                _create(root, provenance)
            _check_same(root, provenance)
            return cls(root, provenance, locks)
        except OSError as error:
            _refuse(root, error)

    def missing(self, shards: Iterable[int]) -> list[int]:
        """Those of `shards` that are not done or have rows with transient failures, in order."""
        done = self.store.done()
        return sorted(s for s in set(shards) if s not in done or self.store.record(s).transient)

    @contextmanager
    def claim(self, shard: int) -> Iterator[None]:
        """Hold a shard while it is written. Raises BusyError where somebody else holds it."""
        if not self.take(shard):
            raise BusyError(
                f"{self.store.root}: shard {shard} is being written by another process; "
                "wait for it, or stop it and start again"
            )
        try:
            yield
        finally:
            self.release(shard)

    def take(self, shard: int) -> bool:
        """Have one writer per shard, also between hosts; False where somebody else writes it.

        A lock on one byte of an empty file (see `lary_schema.locks`): a killed writer leaves nothing to clean.
        """
        taken = self._claims.take(shard)
        if taken:
            self._mine.add(shard)
        return taken

    def release(self, shard: int) -> None:
        self._mine.discard(shard)
        self._claims.free(shard)

    def write(
        self,
        shard: int,
        tokens: NDArray[Any],
        indices: NDArray[np.int64] | None,
        status: NDArray[np.uint8],
        *,
        failures: Sequence[Failure],
        clamped: Sequence[int],
        batch_size: int,
        device: str,
    ) -> ShardRecord:
        """Write one whole shard and mark it done.

        tokens (n, T, N, D) in the store's dtype, indices (n, T, L) or None, status (n,), where n is
        the shard's number of rows. The files are synced before the marker appears, so a marker never
        lists bytes that a power cut could take back.
        """
        rows = self.layout.shard_range(shard)
        arrays = {"tokens": tokens, "status": status} | ({} if indices is None else {"indices": indices})
        _check_arrays(self.layout, shard, arrays, failures)
        try:
            self._sweep(shard)
            self._unmark(shard)
            with zarr.config.set(_ZARR):
                for name, values in arrays.items():
                    self._array(name)[rows.start : rows.stop] = values
            record = ShardRecord(
                shard=shard,
                start=rows.start,
                stop=rows.stop,
                failures=tuple(sorted(failures, key=lambda f: f.row)),
                clamped=tuple(sorted(clamped)),
                batch_size=batch_size,
                device=device,
                files=self._sync(shard),
                made_by=self._made_by("cpu" if device == "cpu" else "cuda"),
                fingerprint=self.layout.fingerprint,
            ).sealed()
            self._claims.check(shard)
            publish_text(self.store.marker(shard), record.to_json())
        except OSError as error:
            _refuse(self.store.root, error)
        return record

    def _unmark(self, shard: int) -> None:
        """Of a shard that is done again, old marker and new arrays never stand side by side."""
        if self.store.marker(shard).exists():
            self.store.marker(shard).unlink()
            sync_dir(self.store.markers)

    def refuse_mixed(self, device_class: Literal["cpu", "cuda"]) -> None:
        """Refuse to go on with a store whose shards another environment wrote. Raises ContractError saying how."""
        here = self._made_by(device_class)
        for shard in sorted(self.store.done()):
            differences = maker_of(self.store.record(shard), self.store.provenance).differences(here)
            if differences:
                raise ContractError(
                    f"{self.store.root}: shard {shard} was made by another environment than this one: "
                    f"{'; '.join(differences)}. Use the one that began it, move the store away to make all of it "
                    "anew, or allow both by --mixed, which results will say"
                )

    def _made_by(self, device_class: Literal["cpu", "cuda"]) -> MadeBy:
        of = self._provenance
        return MadeBy(image=of.image, image_digest=of.image_digest, libraries=of.libraries, device_class=device_class)

    def _array(self, name: str) -> zarr.Array[Any]:
        return zarr.open_array(LocalStore(self.store.root / name), mode="r+")

    def _files(self, shard: int) -> dict[str, Path]:
        return self.store.array_files(shard, indices=self.layout.indices is not None)

    def _sweep(self, shard: int) -> None:
        """Remove what a killed writer of this shard left. The claim makes sure that it is dead."""
        if not self._has_written:
            self._sweep_shared()
            self._has_written = True
        for file in self._files(shard).values():
            if file.parent != self.store.statuses:
                _remove(file.parent.glob(f"{file.stem}.*{PARTIAL_SUFFIX}"))

    def _sweep_shared(self) -> None:
        """The same in the folders that all shards share, of every shard that nobody holds.

        At the first write and at the end alone: to list them takes as long as the store has shards.
        """
        for folder in (self.store.statuses, self.store.markers):
            for leftover in folder.glob(f"*{PARTIAL_SUFFIX}"):
                number = leftover.name.partition(".")[0]
                if number.isdecimal() and int(number) < self.layout.shards:
                    self._remove_if_free(int(number), leftover)

    def _remove_if_free(self, shard: int, leftover: Path) -> None:
        if shard in self._mine:
            _remove([leftover])
        elif self.take(shard):
            _remove([leftover])
            self.release(shard)

    def _sync(self, shard: int) -> dict[str, int]:
        """Force a shard's files and the new folders above them to the disk; their sizes."""
        sizes: dict[str, int] = {}
        for file in self._files(shard).values():
            sync_file(file)
            for folder in file.parents:
                sync_dir(folder)
                if folder == self.store.root:
                    break
            sizes[file.relative_to(self.store.root).as_posix()] = file.stat().st_size
        return sizes


def _remove(leftovers: Iterable[Path]) -> None:
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)


def _create(root: Path, provenance: Provenance) -> None:
    # A container may write below its own store's folder alone, which is a mount: nothing can be renamed onto it.
    inside = root.is_dir()
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = f".{root.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
    making = root / draft if inside else root.with_name(draft)
    try:
        _make_group(making, provenance)
        Store(making).claims.touch()
        Store(making).markers.mkdir()
        for file in making.rglob("*"):
            sync_file(file)
        sync_dir(making)
        if inside:
            _move_in(making, Store(root))
        else:
            making.rename(root)
            sync_dir(root.parent)
    except OSError as error:
        # Another worker was first: its group is checked like any other.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _move_in(making: Path, store: Store) -> None:
    """Fill an empty folder with a new store: its group last, which makes it one. Two workers may do so at once."""
    # Made in place: a file that is renamed over another would not be the one that somebody has locked.
    store.claims.touch()
    for folder in (path for path in making.iterdir() if path.is_dir()):
        with suppress(OSError):
            folder.rename(store.root / folder.name)
    if not store.exists:
        Store(making).group.replace(store.group)
    sync_dir(store.root)


def _make_group(root: Path, provenance: Provenance) -> None:
    layout = provenance.layout
    attributes = {"lary": provenance.model_dump(mode="json"), "lary_sha256": provenance.sha256}
    group = zarr.create_group(LocalStore(root), attributes=attributes)
    _make_sharded(group, layout, "tokens", layout.tokens, layout.dtype, float("nan"))
    if layout.indices is not None:
        _make_sharded(group, layout, "indices", layout.indices, "int64", MISSING_INDEX)
    group.create_array(
        "status",
        shape=(layout.rows,),
        chunks=(layout.shard_rows,),
        dtype="uint8",
        fill_value=int(Status.PENDING),
        compressors=[Crc32cCodec()],
        filters=None,
    )


def _make_sharded(
    group: zarr.Group, layout: ArrayLayout, name: str, row: tuple[int, ...], dtype: str, fill: float
) -> None:
    """(rows, *row): a row a chunk, a shard a file."""
    group.create_array(
        name,
        shape=(layout.rows, *row),
        chunks=(1, *row),
        shards=(layout.shard_rows, *row),
        dtype=dtype,
        fill_value=fill,
        serializer=BytesCodec(endian="little"),
        compressors=[Crc32cCodec()],
        filters=None,
    )


def _check_same(root: Path, provenance: Provenance) -> None:
    store = Store(root)
    found = store.provenance
    if found.layout.fingerprint != provenance.layout.fingerprint:
        raise ContractError(
            f"{root}: holds latents of fingerprint {found.layout.fingerprint[:16]}, "
            f"the job's is {provenance.layout.fingerprint[:16]}; use another folder"
        )
    mine, theirs = provenance.layout.model_dump(exclude={"path"}), found.layout.model_dump(exclude={"path"})
    wrong = [f"{k} {theirs[k]!r} (job: {mine[k]!r})" for k in mine if mine[k] != theirs[k]]
    if wrong:
        raise ContractError(f"{root}: same fingerprint, other layout: {', '.join(wrong)}; plan the job again")
    store.check()


def _check_arrays(
    layout: ArrayLayout, shard: int, arrays: dict[str, NDArray[Any]], failures: Sequence[Failure]
) -> None:
    count = len(layout.shard_range(shard))
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        "tokens": ((count, *layout.tokens), layout.dtype),
        "status": ((count,), "uint8"),
    }
    if layout.indices is not None:
        expected["indices"] = ((count, *layout.indices), "int64")
    got = {name: (a.shape, str(a.dtype)) for name, a in arrays.items()}
    if got != expected:
        raise ValueError(f"shard {shard}: arrays {got}, expected {expected}")
    failed = np.flatnonzero(arrays["status"] == Status.FAILED) + layout.shard_range(shard).start
    if np.any(arrays["status"] == Status.PENDING) or failed.tolist() != sorted(f.row for f in failures):
        raise ValueError(f"shard {shard}: status and failures disagree, or a row is pending")


def _refuse(root: Path, error: OSError) -> NoReturn:
    remedy = {
        errno.ENOSPC: "free space on that volume, then run the same command: finished shards are kept",
        errno.EDQUOT: "raise the quota or free space, then run the same command: finished shards are kept",
        errno.EROFS: "mount it writable, or choose another folder with --latents",
        errno.EACCES: "make it writable for this user, or choose another folder with --latents",
        errno.EPERM: "make it writable for this user, or choose another folder with --latents",
    }.get(error.errno or 0, "check that volume, then run the same command: finished shards are kept")
    raise ContractError(f"{root}: cannot be written: {error.strerror or error}; {remedy}") from error
