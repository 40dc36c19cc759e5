"""Latents that were brought by `lary-orch latents import`: stores of the variant `imported`.

Nothing of such a model is needed to probe them: no image, no weights, no media. Which latents they are
is in the store alone, so the planner finds them by dataset, split, model and CSV.
"""

from dataclasses import dataclass
from pathlib import Path

from lary_schema import commands
from lary_schema.base import ContractError
from lary_schema.jobs import IMPORTED
from lary_schema.presence import SplitSource
from lary_schema.store.layout import Store
from lary_schema.store_state import StoreState


@dataclass(frozen=True)
class ImportedModel:
    """A model key of which there are latents; the catalog need not know it."""

    key: str
    variant: str = IMPORTED


def imported_store(key: str, dataset: str, split: SplitSource, latents: Path) -> StoreState:
    """The one finished store of a model's imported latents of a split.

    Raises ContractError where there is none, more than one for the split's CSV, or one that is not whole.
    """
    folder = latents / dataset / split.split / key
    found = [Store(path) for path in sorted(folder.glob(f"*-{IMPORTED}-*.zarr"))]
    wanted = (key, dataset, split.split, split.sha256)
    fitting = [store for store in found if store.exists and _rows_of(store) == wanted]
    again = f"`{commands.command('latents', 'import', '-m', key, '-d', dataset)}`"
    if not fitting:
        other = f"; {len(found)} of another state of {split.csv}" if found else ""
        raise ContractError(f"{folder}: no imported latents of {split.csv}{other}; {again} brings them")
    if len(fitting) > 1:
        names = ", ".join(store.root.name for store in fitting)
        raise ContractError(
            f"{folder}: {len(fitting)} imports of the same rows: {names}. Keep one and remove the others"
        )
    return _whole(fitting[0], split, latents, again)


def _rows_of(store: Store) -> tuple[str, str, str, str]:
    values = store.provenance.values
    return values.model, values.dataset, values.split, values.metadata_sha256


def _whole(store: Store, split: SplitSource, latents: Path, again: str) -> StoreState:
    root, provenance, records = store.root, store.provenance, store.records()
    store.check()
    unfinished = store.missing() or [record.shard for record in records if store.damage(record)]
    if unfinished:
        raise ContractError(
            f"{root}: {len(unfinished)} of {provenance.layout.shards} shards are missing or damaged; {again} fixes it"
        )
    layout = provenance.layout.model_copy(update={"path": root.relative_to(latents).as_posix()})
    return StoreState(provenance.values, layout, split, (), failed=sum(len(record.failures) for record in records))
