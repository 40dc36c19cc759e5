"""What a latent store needs: its identity, what is there already, and how the rest is divided."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from lary_schema import commands
from lary_schema.base import ContractError, TooManyFailedError
from lary_schema.jobs import ArrayLayout, StoreLocation, Values
from lary_schema.presence import SplitSource
from lary_schema.store.layout import ShardRecord, Store, row_bytes, store_path
from lary_schema.values import earlier_values, new_layout, why_anew


@dataclass(frozen=True)
class StoreState:
    """One store of a run: the rows it is made from, what shall be in it, and which shards are still to be written."""

    values: Values
    layout: ArrayLayout
    source: SplitSource
    missing: tuple[int, ...]
    reopen: tuple[int, ...] = ()
    """Those of `missing` that have a done marker: their files are lost or cut, or failed rows are retried."""
    failed: int = 0
    """Failed rows in the shards that are done and stay."""
    why: str = ""
    """Of a store that is not there: in what it differs from the nearest one of the same model and rows."""

    @property
    def ref(self) -> StoreLocation:
        return StoreLocation(path=self.layout.path, fingerprint=self.layout.fingerprint, rows=self.layout.rows)

    @cached_property
    def missing_rows(self) -> int:
        return sum(len(self.layout.shard_range(shard)) for shard in self.missing)

    @property
    def missing_bytes(self) -> int:
        """What the missing rows will take on the latents volume; headers and checksums left out."""
        return self.missing_rows * row_bytes(self.values.spec, self.values.dtype)


def plan_store(
    values: Values,
    source: SplitSource,
    latents: Path,
    rows_per_shard: int | None = None,
    *,
    retry_failed: bool | None = None,
) -> StoreState:
    """Compare what shall be there with what is. An existing store keeps its own shard size.

    `retry_failed`: whether shards with failed rows are written again; None: where a row's cause was not its own.

    Raises ContractError where something else lies at the store's path.
    """
    path, rows = store_path(values), source.rows
    store = Store(latents / path)
    if not store.exists:
        old = earlier_values(values, latents)
        if old is not None and not (found := plan_store(old, source, latents, retry_failed=retry_failed)).missing:
            return found
        layout = new_layout(values, rows, rows_per_shard)
        return StoreState(values, layout, source, tuple(range(layout.shards)), why=why_anew(store.root, values))
    layout = _existing_layout(store, path, values, rows)
    store.check()
    records = store.records()
    reopen = {r.shard for r in records if store.damage(r) or _is_retried(r, retry_failed)}
    missing = set(range(layout.shards)) - {record.shard for record in records} | reopen
    failed = sum(len(record.failures) for record in records if record.shard not in reopen)
    return StoreState(values, layout, source, tuple(sorted(missing)), tuple(sorted(reopen)), failed)


def _is_retried(record: ShardRecord, retry_failed: bool | None) -> bool:
    return record.transient if retry_failed is None else retry_failed and bool(record.failures)


def check_alike(plans: Sequence[StoreState]) -> None:
    """Raises ContractError where one split's latents have another shape than train's: no probe can read both."""
    shapes = {plan.values.split: (plan.values.spec.tokens, plan.values.spec.time_axis) for plan in plans}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{split} {tokens}{'' if axis else ' flat'}" for split, (tokens, axis) in shapes.items())
        raise ContractError(f"latents of different shapes: {found}; these are not of one model")


def check_failed(plan: StoreState, latents: Path, max_failed: float) -> None:
    """Raises TooManyFailedError for a finished store whose share of failed rows is above `max_failed`."""
    rows = plan.layout.rows
    if not plan.missing and plan.failed > max_failed * rows:
        raise TooManyFailedError(
            f"{latents / plan.layout.path}: {plan.failed} of {rows} rows failed, more than --max-failed "
            f"{max_failed:g} allows; `{commands.command('status', '--failures')}` names them, --retry-failed tries "
            "them again"
        )


def _existing_layout(store: Store, path: str, values: Values, rows: int) -> ArrayLayout:
    layout = store.provenance.layout
    if (layout.fingerprint, layout.rows) != (values.fingerprint, rows):
        raise ContractError(
            f"{store.root}: holds {layout.rows} rows of fingerprint {layout.fingerprint}, not {rows} of "
            f"{values.fingerprint}; move it away"
        )
    return layout.model_copy(update={"path": path})


def partitions(shards: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    """At most `parts` runs of neighbouring shards, none empty, as equal in number as can be."""
    count = min(parts, len(shards))
    bounds = [len(shards) * i // count for i in range(count + 1)] if count else []
    return [tuple(shards[start:stop]) for start, stop in pairwise(bounds)]
