"""What a regression probe loads before its first step, with an action file a row and with all chunks in one (0043).

    python benchmarks/action_files.py --save

5,000 and 50,000 rows of train, each with an action file of (45, 16) float32 and latents of (1, 64, 48) float16. `load`
opens stores and CSVs, loads latents, reads and standardises the actions; `targets` is the second half of it. `files`
reads every action file, `kept` the one file that an earlier probe wrote, `first` reads the files and writes that one.
Warm: all of it in the page cache. Cold: the pages of all files are dropped before (not the kernel's directory entries
and inodes, so that opening and looking at a file is as fast as warm). All ways of a size take turns. `csv_bytes_a_row`
is what a split's CSV takes in memory, kept and at most while it is read. `exponent` is that of the growth of processor
time between the sizes: 1 is linear.
"""

import math
import os
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from common import arguments, report
from lary_orch.catalog.protocol_cards import load_protocol
from lary_probe import regress_targets
from lary_probe.data import open_data
from lary_probe.describe import code_sha256
from lary_probe.metadata import SplitMetadata
from lary_schema.base import file_sha256
from lary_schema.cards import Actions, ModeSpec, Normalisation, PairColumns, TensorSpec
from lary_schema.jobs import ArrayLayout, MetadataFile, ProbeJob, ProbeSplit, Source, StoreLocation, Values
from lary_schema.kept_actions import VARIABLE
from lary_schema.mounts import Mounts
from lary_schema.store.layout import Provenance, Status, store_path
from lary_schema.store.writer import LatentWriter

STEPS, DIM, TOKENS = 45, 16, (1, 64, 48)
ACTIONS = Actions(
    folder="actions",
    stride=STEPS,
    dim=DIM,
    names=tuple(f"a{n}" for n in range(DIM)),
    normalisation=Normalisation(kind="train"),
)
VAL = 256


def make_split(mounts: Mounts, name: str, rows: int) -> ProbeSplit:
    rng = np.random.default_rng(0)
    csv = mounts.job / f"{name}.csv"
    cells = [f"part_{row // 1000:03d}/{name}_{row:07d}.npy" for row in range(rows)]
    csv.write_text("src_img,tgt_img,action\n" + "".join(f"{row}.png,{row}.png,{cells[row]}\n" for row in range(rows)))
    for cell in cells:
        path = mounts.data / "actions" / cell
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, rng.normal(size=(STEPS, DIM)).astype(np.float32))
    source = Source(
        metadata=MetadataFile(path=csv.name, sha256=file_sha256(csv), rows=rows),
        columns=PairColumns(),
        media="images",
        frames=9,
    )
    return ProbeSplit(name=name, store=make_store(mounts.latents, name, rows, source), source=source)


def make_store(latents: Path, split: str, rows: int, source: Source) -> StoreLocation:
    values = Values(
        model="toy", variant="corrected", mode="image", spec=ModeSpec(input=TensorSpec(shape=(1,)), tokens=TOKENS),
        preprocessing="none", revision=1, code_sha256="c" * 64, weights={}, dataset="toys", split=split,
        metadata_sha256=source.metadata.sha256, columns=source.columns, media=".", frames=9, decoder="pyav",
        precision="fp32", dtype="float16", seed=0,
    )  # fmt: skip
    layout = ArrayLayout(
        path=store_path(values),
        fingerprint=values.fingerprint,
        rows=rows,
        shard_rows=1024,
        dtype="float16",
        tokens=TOKENS,
    )
    provenance = Provenance(
        layout=layout, values=values, image="toy", image_digest=None, code_revision=None, libraries={}
    )
    writer = LatentWriter.open(latents / layout.path, provenance)
    for shard in range(layout.shards):
        count = len(layout.shard_range(shard))
        tokens = np.random.default_rng(shard).normal(size=(count, *TOKENS)).astype("float16")
        status = np.full(count, Status.OK, np.uint8)
        writer.write(shard, tokens, None, status, failures=(), clamped=(), batch_size=1, device="cpu")
    writer.close()
    return StoreLocation(path=layout.path, fingerprint=layout.fingerprint, rows=rows)


def loaded(job: ProbeJob, mounts: Mounts) -> tuple[dict[str, float], str]:
    """Seconds of all that is loaded and of the actions, and the hash of what was read."""
    session: Any = SimpleNamespace(
        job=job, mounts=mounts, alive=lambda _: None, accelerator=SimpleNamespace(is_main_process=True)
    )
    begin = _now()
    data = open_data(job, mounts, lambda: None)
    middle = _now()
    found = regress_targets.read_targets(session, data, ACTIONS)
    end = _now()
    seconds = {f"load_{kind}_s": end[kind] - begin[kind] for kind in begin}
    return seconds | {f"targets_{kind}_s": end[kind] - middle[kind] for kind in begin}, found.sha256


def _now() -> dict[str, float]:
    return {"wall": time.perf_counter(), "processor": time.process_time()}


def drop(folder: Path) -> None:
    """Drop the pages of all files below a folder."""
    for path in _files(folder):
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rows", type=int, nargs=2, default=(5_000, 50_000))
    options = parser.parse_args()
    sizes: dict[int, dict[str, Any]] = {}
    for rows in sorted(options.rows):
        with tempfile.TemporaryDirectory() as name:
            root, folders = Path(name), {}
            for folder in Mounts.model_fields:
                folders[folder] = root / folder
                folders[folder].mkdir()
            sizes[rows] = compared(Mounts(**folders), root, rows, options.rounds)
        print(rows, sizes[rows], file=sys.stderr, flush=True)
    figures = {"rounds": options.rounds, "sizes": sizes, "exponent": growth(sizes)}
    report("action_files", figures, options.save)


def growth(sizes: dict[int, dict[str, Any]]) -> dict[str, float]:
    """Of what is loaded warm, by way."""
    (few, less), (many, more) = sorted(sizes.items())
    seconds = {way: [size["warm"][way]["load_processor_s"] for size in (less, more)] for way in ("files", "kept")}
    return {way: round(math.log(high / low) / math.log(many / few), 2) for way, (low, high) in seconds.items()}


def csv_bytes(job: ProbeJob, mounts: Mounts) -> dict[str, float]:
    """A row of train's CSV in memory."""
    tracemalloc.start()
    metadata = SplitMetadata(job.train, mounts.job, (ACTIONS.column,))
    found = [round(each / len(metadata), 1) for each in tracemalloc.get_traced_memory()]
    tracemalloc.stop()
    return dict(zip(("kept", "most"), found, strict=True))


def compared(mounts: Mounts, root: Path, rows: int, rounds: int) -> dict[str, Any]:
    job = ProbeJob(
        id="p", kind="regress", run="r", image="probe", code_sha256=code_sha256(), model="toy", variant="corrected",
        dataset="toys", time_axis=True, train=make_split(mounts, "train", rows),
        evaluate=(make_split(mounts, "val", VAL),), protocol=load_protocol("smoke"), actions=ACTIONS,
    )  # fmt: skip
    os.sync()
    time.sleep(3)  # Files that have just changed are not kept.
    kept = {"files": "", "kept": str(root / "kept.actions"), "first": str(root / "first.actions")}
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    hashes = set()
    os.environ[VARIABLE] = kept["kept"]
    loaded(job, mounts)
    for heat in ("warm", "cold"):
        found[heat] = {way: [] for way in kept}
        for _ in range(rounds):
            for way, path in kept.items():
                Path(kept["first"]).unlink(missing_ok=True)
                os.environ[VARIABLE] = path
                if heat == "cold":
                    os.sync()
                    drop(root)
                seconds, sha256 = loaded(job, mounts)
                found[heat][way].append(seconds)
                hashes.add(sha256)
    if len(hashes) > 1:
        raise SystemExit("the ways read other actions")
    figures: dict[str, Any] = {
        heat: {way: spread(each) for way, each in ways.items()} | {"files_over_kept": over(ways["files"], ways["kept"])}
        for heat, ways in found.items()
    }
    figures["kept_mib"] = round(Path(kept["kept"]).stat().st_size / 2**20, 1)
    return figures | {"csv_bytes_a_row": csv_bytes(job, mounts)}


def spread(samples: list[dict[str, float]]) -> dict[str, Any]:
    """Of each figure the median, and the range."""
    found: dict[str, Any] = {}
    for name in samples[0]:
        values = sorted(one[name] for one in samples)
        found |= {name: round(statistics.median(values), 3), f"{name}_range": [round(values[at], 3) for at in (0, -1)]}
    return found


def over(ones: list[dict[str, float]], others: list[dict[str, float]]) -> dict[str, float]:
    """Medians of one over those of the other."""
    first, second = spread(ones), spread(others)
    return {name.removesuffix("_s"): round(first[name] / second[name], 2) for name in ones[0]}


if __name__ == "__main__":
    main()
