"""Writing latents and reading them in shuffled batches: our store, and one compressed npz a row."""

import tempfile
from pathlib import Path

import numpy as np
from common import alternate, arguments, report, summary
from lary_schema.cards import ModeSpec, TensorSpec, VideoColumns
from lary_schema.jobs import ArrayLayout, Values
from lary_schema.store.layout import Provenance, Status, shard_rows, store_path
from lary_schema.store.reader import LatentReader
from lary_schema.store.writer import LatentWriter
from numpy.typing import NDArray

TOKENS = (2, 196, 256)
BATCH = 64


def provenance(rows: int) -> Provenance:
    values = Values(
        model="bench", variant="corrected", mode="image", spec=ModeSpec(input=TensorSpec(shape=(1,)), tokens=TOKENS),
        preprocessing="none", revision=1, code_sha256="0", weights={}, dataset="bench", split="train",
        metadata_sha256="0", columns=VideoColumns(), media=".", frames=9, decoder="pyav", precision="fp32",
        dtype="float16", seed=0,
    )  # fmt: skip
    layout = ArrayLayout(
        path=store_path(values),
        fingerprint=values.fingerprint,
        rows=rows,
        shard_rows=shard_rows(2 * int(np.prod(TOKENS)), rows),
        dtype="float16",
        tokens=TOKENS,
    )
    return Provenance(layout=layout, values=values, image="bench", image_digest=None, code_revision=None, libraries={})


def write_store(root: Path, tokens: NDArray[np.float16]) -> None:
    writer = LatentWriter.open(root, provenance(len(tokens)))
    for shard in range(writer.layout.shards):
        part = tokens[writer.layout.shard_range(shard).start : writer.layout.shard_range(shard).stop]
        status = np.full(len(part), Status.OK, "uint8")
        writer.write(shard, part, None, status, failures=(), clamped=(), batch_size=1, device="cpu")
    writer.close()


def write_npz(root: Path, tokens: NDArray[np.float16]) -> None:
    root.mkdir()
    for row, part in enumerate(tokens):
        np.savez_compressed(root / f"latent_action_{row:08d}.npz", tokens=part, indices=np.empty(0))


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rows", type=int, default=1024)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((options.rows, *TOKENS), np.float32).astype(np.float16)
    batches = rng.permutation(options.rows).reshape(-1, BATCH)
    with tempfile.TemporaryDirectory() as folder:
        fresh = iter(Path(folder) / str(i) for i in range(10_000))
        writing = alternate(
            {"store": lambda: write_store(next(fresh), tokens), "npz": lambda: write_npz(next(fresh), tokens)},
            options.rounds,
        )
        store_root, npz_root = Path(folder) / "store", Path(folder) / "npz"
        write_store(store_root, tokens)
        write_npz(npz_root, tokens)
        store = LatentReader.open(store_root)

        def read_npz() -> None:
            for batch in batches:
                np.stack([np.load(npz_root / f"latent_action_{row:08d}.npz")["tokens"] for row in batch])

        reading = alternate({"store": lambda: [store.tokens(b) for b in batches], "npz": read_npz}, options.rounds)
    figures = {"rows": options.rows, "tokens": TOKENS, "write": summary(writing), "read": summary(reading)}
    for name in ("write", "read"):
        part = figures[name]
        part["npz_over_store"] = part["npz"]["median_s"] / part["store"]["median_s"]
    report("store_io", figures, options.save)


if __name__ == "__main__":
    main()
