"""What determines a split's latents, and the empty store that is made for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lary_schema.base import ContractError
from lary_schema.cards import Actions, Mode, ModelCard
from lary_schema.jobs import ActionRows, ArrayLayout, Decoder, Precision, Source, StoreDtype, Values, minor_versions
from lary_schema.store.layout import Store, row_bytes, shard_rows, store_path


@dataclass(frozen=True)
class ExtractionSettings:
    """How rows are decoded, encoded and stored: what of a request determines values."""

    decoder: Decoder = "pyav"
    precision: Precision = "fp32"
    dtype: StoreDtype = "float16"
    seed: int = 0


def make_values(
    card: ModelCard,
    key: str,
    variant: str,
    dataset: str,
    split: str,
    source: Source,
    weights: Mapping[str, str],
    settings: ExtractionSettings,
    actions: Actions | None = None,
) -> Values:
    """All that determines a split's latents; `weights` are hashes by name, `actions` the dataset's, if it has any.

    Raises ContractError for a variant or mode the model does not have, and for a model that reads actions on a set
    without any, or with other chunks than it was trained on.
    """
    mode: Mode = "actions" if card.reads_actions else source.columns.input
    rows = _action_rows(card, key, variant, dataset, split, actions) if card.reads_actions else None
    assert card.code_sha256 is not None  # `describe` refuses a reply without it
    return Values(
        model=key,
        variant=variant,
        mode=mode,
        spec=card.spec(mode, variant),
        preprocessing=card.preprocessing_of(variant),
        revision=card.revision,
        code_sha256=card.code_sha256,
        weights=dict(weights),
        dataset=dataset,
        split=split,
        metadata_sha256=source.metadata.sha256,
        columns=source.columns,
        media=source.media,
        frames=source.frames,
        decoder=settings.decoder,
        precision=settings.precision,
        dtype=settings.dtype,
        seed=settings.seed if card.draws else 0,
        actions=rows,
    )


def _action_rows(
    card: ModelCard, key: str, variant: str, dataset: str, split: str, actions: Actions | None
) -> ActionRows:
    if actions is None:
        raise ContractError(
            f"model {key} reads actions, and the card of dataset {dataset} has no actions:; choose a set with actions"
        )
    wanted, found = card.spec("actions", variant).input.shape, (actions.stride, actions.dim)
    if wanted != found:
        raise ContractError(
            f"model {key} reads chunks of actions of {wanted[0]} steps x {wanted[1]} dimensions, and those of dataset "
            f"{dataset} have {found[0]} x {found[1]}; choose a set like the one that it was trained on"
        )
    return ActionRows.of(actions, split)


def new_layout(values: Values, rows: int, rows_per_shard: int | None = None) -> ArrayLayout:
    """Of a store that is not there yet; shards by size where `rows_per_shard` says nothing."""
    return ArrayLayout(
        path=store_path(values),
        fingerprint=values.fingerprint,
        rows=rows,
        shard_rows=rows_per_shard or shard_rows(row_bytes(values.spec, values.dtype), rows),
        dtype=values.dtype,
        tokens=values.spec.tokens,
        indices=values.spec.indices,
    )


def earlier_values(values: Values, latents: Path) -> Values | None:
    """What an earlier version's store of the same latents says, where the libraries that made it are the present ones.

    Its fingerprint has no libraries yet; its provenance names them. None where there is no such store.
    """
    if values.libraries is None:
        return None
    old = values.model_copy(update={"libraries": None})
    store = Store(latents / store_path(old))
    same = store.exists and minor_versions(store.provenance.libraries) == values.libraries
    return old if same else None


_WORDS = {
    "code_sha256": "the model's code or the decoding",
    "metadata_sha256": "the CSV",
    "libraries": "av, opencv or torch",
    "spec": "the shapes",
}


def why_anew(root: Path, wanted: Values) -> str:
    """What keeps the nearest store of the same model, split, mode and variant from being used; empty without one."""
    stem = root.name.rpartition("-")[0]
    near = [_differences(path, wanted) for path in root.parent.glob(f"{stem}-*.zarr")]
    nearest: list[str] = min(near, key=len, default=[])
    return ", ".join(nearest)


def _differences(path: Path, wanted: Values) -> list[str]:
    try:
        provenance = Store(path).provenance
    except ContractError:
        return [f"{path.name} is damaged"]
    mine, theirs = wanted.model_dump(), provenance.values.model_dump()
    if provenance.values.libraries is None and wanted.libraries is not None:
        theirs["libraries"] = minor_versions(provenance.libraries)
    return [_WORDS.get(name, name) for name in mine if mine[name] != theirs.get(name)] or ["it is not whole"]
