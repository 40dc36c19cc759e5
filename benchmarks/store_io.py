"""Writing latents and reading them in shuffled batches: our store in float16 and float32, and one compressed npz a row.

LARYBench compresses the model's float32 as it is, so the npz files hold float32.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, measured, ratio, report
from lary_schema.cards import ModeSpec, TensorSpec, VideoColumns
from lary_schema.jobs import ArrayLayout, Values
from lary_schema.store.layout import Provenance, Status, shard_rows, store_path
from lary_schema.store.reader import LatentReader
from lary_schema.store.writer import LatentWriter
from numpy.typing import NDArray

TOKENS = (2, 196, 256)
BATCH = 64


def provenance(rows: int, dtype: Any = "float16") -> Provenance:
    values = Values(
        model="bench", variant="corrected", mode="image", spec=ModeSpec(input=TensorSpec(shape=(1,)), tokens=TOKENS),
        preprocessing="none", revision=1, code_sha256="0", weights={}, dataset="bench", split="train",
        metadata_sha256="0", columns=VideoColumns(), media=".", frames=9, decoder="pyav", precision="fp32",
        dtype=dtype, seed=0,
    )  # fmt: skip
    layout = ArrayLayout(
        path=store_path(values),
        fingerprint=values.fingerprint,
        rows=rows,
        shard_rows=shard_rows(np.dtype(dtype).itemsize * int(np.prod(TOKENS)), rows),
        dtype=dtype,
        tokens=TOKENS,
    )
    return Provenance(layout=layout, values=values, image="bench", image_digest=None, code_revision=None, libraries={})


def write_store(root: Path, tokens: NDArray[Any]) -> None:
    writer = LatentWriter.open(root, provenance(len(tokens), str(tokens.dtype)))
    for shard in range(writer.layout.shards):
        part = tokens[writer.layout.shard_range(shard).start : writer.layout.shard_range(shard).stop]
        status = np.full(len(part), Status.OK, "uint8")
        writer.write(shard, part, None, status, failures=(), clamped=(), batch_size=1, device="cpu")
    writer.close()


def write_npz(root: Path, tokens: NDArray[np.float32]) -> None:
    root.mkdir()
    for row, part in enumerate(tokens):
        np.savez_compressed(root / f"latent_action_{row:08d}.npz", tokens=part, indices=np.empty(0))


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rows", type=int, default=1024)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    single = rng.standard_normal((options.rows, *TOKENS), np.float32)
    kinds = {"store float16": single.astype(np.float16), "store float32": single}
    batches = rng.permutation(options.rows).reshape(-1, BATCH)
    with tempfile.TemporaryDirectory() as folder:
        fresh = iter(Path(folder) / str(i) for i in range(10_000))
        ways = {name: partial(_write, write_store, fresh, tokens) for name, tokens in kinds.items()}
        writing = measured({**ways, "npz": partial(_write, write_npz, fresh, single)}, options.rounds)
        roots = {name: Path(folder) / name for name in (*kinds, "npz")}
        for name, tokens in kinds.items():
            write_store(roots[name], tokens)
        write_npz(roots["npz"], single)
        readers = {name: partial(_read_store, LatentReader.open(roots[name]), batches) for name in kinds}
        reading = measured({**readers, "npz": partial(_read_npz, roots["npz"], batches)}, options.rounds)
    figures: dict[str, Any] = {"rows": options.rows, "tokens": TOKENS, "rounds": options.rounds}
    for what, found in (("write", writing), ("read", reading)):
        figures[what] = found | {f"npz_over_{name}": ratio(found, "npz", name) for name in kinds}
    report("store_io", figures, options.save)


def _write(write: Callable[[Path, Any], None], fresh: Iterator[Path], tokens: NDArray[Any]) -> None:
    write(next(fresh), tokens)


def _read_store(store: LatentReader, batches: NDArray[np.int64]) -> None:
    for batch in batches:
        store.tokens(batch)


def _read_npz(root: Path, batches: NDArray[np.int64]) -> None:
    for batch in batches:
        np.stack([np.load(root / f"latent_action_{row:08d}.npz")["tokens"] for row in batch])


if __name__ == "__main__":
    main()
