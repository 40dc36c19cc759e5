"""Reading a latent store where speed counts, by tensorstore. Needs `lary-schema[store]`."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from lary_schema.base import ContractError
from lary_schema.store.layout import Failure, Provenance, ShardRecord, Status, Store, maker_of


class LatentReader:
    """A finished store, read only. A hole or a flipped byte is an error, never a fill value."""

    def __init__(self, root: Path, provenance: Provenance, records: list[ShardRecord]) -> None:
        self.root = root
        self.provenance = provenance
        self._records = records

    @classmethod
    def open(cls, root: Path, fingerprint: str | None = None) -> Self:
        """Open a store whose every shard is done and whose files have their recorded sizes.

        Raises ContractError where it is absent, of another fingerprint, incomplete or damaged.
        """
        index = Store(root)
        if not index.exists:
            raise ContractError(f"{root}: no latent store; run its extraction first")
        provenance = index.provenance
        index.check()
        found = provenance.layout.fingerprint
        if fingerprint is not None and found != fingerprint:
            raise ContractError(f"{root}: fingerprint {found[:16]}, expected {fingerprint[:16]}; plan the job again")
        missing = index.missing()
        if missing:
            raise ContractError(
                f"{root}: {len(missing)} of {provenance.layout.shards} shards are not done "
                f"(first: {missing[0]}); run its extraction again, it does only those"
            )
        records = index.records()
        damage = [problem for record in records for problem in index.damage(record)]
        if damage:
            raise ContractError(
                f"{damage[0]} ({len(damage)} such files). Delete the shard's marker in {index.markers} "
                "and run its extraction again"
            )
        return cls(root, provenance, records)

    @property
    def rows(self) -> int:
        return self.provenance.layout.rows

    @property
    def shape(self) -> tuple[int, int, int]:
        """(T, N, D) of a row's tokens."""
        return self.provenance.layout.tokens

    @property
    def failures(self) -> list[Failure]:
        """The rows without a latent, in order."""
        return [failure for record in self._records for failure in record.failures]

    @property
    def clamped(self) -> list[int]:
        """The rows whose sample indices were clamped to the clip's end."""
        return [row for record in self._records for row in record.clamped]

    @property
    def mixed(self) -> list[str]:
        """What the environments that wrote the shards differ in from the first shard's; empty for a single one."""
        makers = [maker_of(record, self.provenance) for record in self._records]
        return list(dict.fromkeys(text for maker in makers[1:] for text in makers[0].differences(maker)))

    @cached_property
    def status(self) -> NDArray[np.uint8]:
        """(rows,) of `Status`."""
        return np.asarray(self._read("status", slice(None)), dtype=np.uint8)

    def ok_rows(self) -> NDArray[np.int64]:
        """The rows that have a latent, in order. Raises ContractError where markers and status disagree."""
        failed = np.flatnonzero(self.status != Status.OK)
        if failed.tolist() != [failure.row for failure in self.failures]:
            raise ContractError(f"{self.root}: the status array and the done markers disagree; extract it again")
        return np.flatnonzero(self.status == Status.OK)

    def tokens(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(len(rows), T, N, D) in the store's dtype, rows in any order; NaN for failed rows."""
        return self._read("tokens", rows)

    def tokens_into(self, rows: NDArray[np.int64], out: NDArray[Any], at: NDArray[np.int64] | None = None) -> None:
        """`tokens` written to `out` (len(rows), T, N, D), converted to its dtype; to its rows `at` where given."""
        target = ts.array(out, copy=False)
        target = target if at is None else target[at]
        self._guard("tokens", lambda: target.write(ts.cast(self._array("tokens"), out.dtype)[rows]).result())

    def indices(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(len(rows), T, L) code indices. Raises ContractError for a model without codes."""
        if self.provenance.layout.indices is None:
            raise ContractError(f"{self.root}: model {self.provenance.values.model} has no code indices")
        return np.asarray(self._read("indices", rows), dtype=np.int64)

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        return {}

    def _read(self, name: str, rows: Any) -> NDArray[Any]:
        return np.asarray(self._guard(name, lambda: self._array(name)[rows].read().result()))

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            spec = {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": str(self.root / name)},
                "fill_missing_data_reads": False,
            }
            self._arrays[name] = ts.open(spec, open=True, read=True).result()
        return self._arrays[name]

    def _guard(self, name: str, read: Callable[[], Any]) -> Any:
        """Raises ContractError for damage that `read` meets."""
        try:
            return read()
        except ValueError as error:
            raise ContractError(
                f"{self.root}/{name}: damaged: {str(error).splitlines()[0]}. Delete the shard's marker in "
                f"{self.root}/done and run its extraction again"
            ) from None
