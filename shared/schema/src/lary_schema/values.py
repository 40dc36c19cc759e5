"""What determines a split's latents, and the empty store that is made for them."""

from collections.abc import Mapping
from dataclasses import dataclass

from lary_schema.cards import ModelCard
from lary_schema.jobs import Decoder, Precision, Source, StoreDtype, StoreLayout, Values
from lary_schema.store.layout import row_bytes, shard_rows, store_path


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
) -> Values:
    """All that determines a split's latents; `weights` are hashes by name.

    Raises ContractError for a variant or mode the model lacks.
    """
    mode = source.columns.input
    assert card.code_sha256 is not None  # `describe` refuses an answer without it
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
        seed=settings.seed,
    )


def new_layout(values: Values, rows: int, rows_per_shard: int | None = None) -> StoreLayout:
    """Of a store that is not there yet; shards by size where `rows_per_shard` says nothing."""
    return StoreLayout(
        path=store_path(values),
        fingerprint=values.fingerprint,
        rows=rows,
        shard_rows=rows_per_shard or shard_rows(row_bytes(values.spec, values.dtype), rows),
        dtype=values.dtype,
        tokens=values.spec.tokens,
        indices=values.spec.indices,
    )
