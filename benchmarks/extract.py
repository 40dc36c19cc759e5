"""Rows per second of a whole extraction, compared with the same model on tensors that lie in memory (the limit).

Models that need no weights, on the demo clips, each row many times over; the two alternated. `share` is what part of
the limit the extraction reaches; below 1 it waited for decoding or writing, and the split of its time says for which.
"""

import csv
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import lary_demo as demo
import numpy as np
import torch
from common import arguments, report
from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.protocol_cards import load_protocol
from lary_orch.plan.files import write_job
from lary_orch.plan.jobs import Request
from lary_orch.plan.planner import make_plan
from lary_orch.runtimes.choose import process_runtime
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.jobs import Job
from lary_orch.runtimes.process import ProcessRuntime
from lary_orch.workspace import Workspace
from lary_schema.events import Finished, from_line
from lary_worker.registry import make_model

CARD = """
key: many
title: the demo clips, many times
task: classification
columns: {input: video}
metadata: many_{split}.csv
media: demo_motion
splits: {train: train, evaluate: [val]}
labels: {column: action}
license: MIT
source: this project
"""


def prepared(model: str, folder: Path, workers: int) -> tuple[Job, ProcessRuntime]:
    """The extraction of the training split as a job."""
    workspace = Workspace.locate(folder / "work", data=folder)
    runtime = process_runtime(workspace, "current")
    request = Request(
        (model,), ("many",), load_protocol("smoke"), workers=workers, control=False, threads=torch.get_num_threads()
    )
    plan = make_plan(request, workspace, Catalog.load([folder / "cards"]), runtime, lambda _: None)
    job = of_train(plan.extracts)
    write_job(job, workspace)
    return job, runtime


def extraction(job: Job, runtime: ProcessRuntime, log: Path) -> Finished:
    """Do the job anew; its last event."""
    for store in job.stores:
        shutil.rmtree(job.mounts.latents / store, ignore_errors=True)
    job.make_stores()
    running = runtime.start(job, Slot(), log)
    events = [from_line(line) for line in running.lines()]
    if running.wait() or not isinstance(events[-1], Finished):
        sys.exit(log.read_text())
    return events[-1]


def make_set(folder: Path, count: int) -> None:
    """The set of `CARD` below `folder`, card included: so many rows to train on, and one to evaluate, which a dataset
    has to have."""
    demo.ensure("demo_motion", folder)
    (folder / "cards").mkdir()
    (folder / "cards/many.yaml").write_text(CARD)
    with (folder / "demo_motion/metadata_train.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    for split, rows_of in {"train": count, "val": 1}.items():
        with (folder / f"many_{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *(rows[i % len(rows)] for i in range(rows_of))])


def of_train(jobs: Sequence[Job]) -> Job:
    return next(job for job in jobs if "/train/" in job.stores[0])


def limit(model: str, rows: int) -> float:
    """Rows per second of the module called in a loop."""
    os.environ["LARY_IMAGE"] = Catalog.load().image_for(model).card.name
    instance = make_model(model, "video", "corrected")
    instance.load({}, torch.device("cpu"), torch.float32, 0)
    size = instance.card.batch_size
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (size, *instance.spec.input.shape), np.uint8))
    numbers = np.arange(size)
    with torch.inference_mode():
        instance.encode(batch, numbers)
        start = time.perf_counter()
        for _ in range(max(1, rows // size)):
            instance.encode(batch, numbers)
    return max(1, rows // size) * size / (time.perf_counter() - start)


def _spread(values: list[float]) -> dict[str, Any]:
    return {"median": round(median(values), 1), "range": [round(min(values), 1), round(max(values), 1)]}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", action="append", help="repeatable [frame-diff, pixels, random-vit]")
    options = parser.parse_args()
    figures: dict[str, Any] = {"rows": options.rows, "workers": options.workers, "rounds": options.rounds}
    figures["clock"] = "wall time"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_set(folder, options.rows)
        for model in options.model or ["frame-diff", "pixels", "random-vit"]:
            job, runtime = prepared(model, folder, options.workers)
            rounds = [
                (extraction(job, runtime, folder / f"{model}.log"), limit(model, options.rows))
                for _ in range(options.rounds)
            ]
            shares = sorted(done.per_second / bare for done, bare in rounds)
            figures[model] = {
                "rows_per_s": _spread([done.per_second for done, _ in rounds]),
                "limit_rows_per_s": _spread([bare for _, bare in rounds]),
                "share": round(median(shares), 3),
                "share_range": [round(shares[0], 3), round(shares[-1], 3)],
                "seconds": rounds[-1][0].seconds.model_dump(),
            }
    report("extract", figures, options.save)


if __name__ == "__main__":
    main()
