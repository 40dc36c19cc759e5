"""What the schema's tests share: a small store's facts."""

from collections.abc import Callable

import numpy as np
import pytest
from lary_schema.cards import ModeSpec, TensorSpec, VideoColumns
from lary_schema.jobs import ArrayLayout, Values
from lary_schema.store.layout import Failure, Provenance, Status, store_path
from lary_schema.store.writer import LatentWriter


@pytest.fixture
def values() -> Values:
    """Values of a quantised toy model."""
    return Values(
        model="toy",
        variant="corrected",
        mode="video",
        spec=ModeSpec(input=TensorSpec(shape=(9, 4, 4, 3)), tokens=(2, 3, 4), indices=(2, 3)),
        preprocessing="none",
        revision=1,
        code_sha256="c" * 64,
        weights={"w": "0" * 64},
        dataset="toys",
        split="train",
        metadata_sha256="a" * 64,
        columns=VideoColumns(),
        media=".",
        frames=9,
        decoder="pyav",
        precision="fp32",
        dtype="float16",
        seed=0,
    )


@pytest.fixture
def provenance(values: Values) -> Provenance:
    """A store of ten rows in shards of four: the last one is short."""
    layout = ArrayLayout(
        path=store_path(values),
        fingerprint=values.fingerprint,
        rows=10,
        shard_rows=4,
        dtype="float16",
        tokens=(2, 3, 4),
        indices=(2, 3),
    )
    return Provenance(
        layout=layout, values=values, image="toy", image_digest=None, code_revision=None, libraries={"numpy": "1"}
    )


WriteShard = Callable[..., None]


@pytest.fixture
def write_shard() -> WriteShard:
    """Writes a shard whose values follow from row numbers alone."""

    def write(writer: LatentWriter, shard: int, failures: tuple[Failure, ...] = ()) -> None:
        rows = np.arange(writer.layout.rows)[
            writer.layout.shard_range(shard).start : writer.layout.shard_range(shard).stop
        ]
        tokens = np.broadcast_to(rows[:, None, None, None], (len(rows), 2, 3, 4)).astype("float16").copy()
        status = np.full(len(rows), Status.OK, "uint8")
        for failure in failures:
            status[failure.row - rows[0]] = Status.FAILED
            tokens[failure.row - rows[0]] = np.nan
        indices = np.broadcast_to(rows[:, None, None], (len(rows), 2, 3)).astype("int64").copy()
        writer.write(shard, tokens, indices, status, failures=failures, clamped=(), batch_size=2, device="cpu")

    return write
