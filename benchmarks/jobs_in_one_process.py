"""Small extractions of one model, each in a process of its own and one after the other in one.

    python benchmarks/jobs_in_one_process.py --rounds 5 --save

Jobs of `--rows` rows of demo clips (one decode process, one thread), and jobs whose store is there already. `bare`
is the same rows decoded, preprocessed and encoded in a loop, by functions and a model that are loaded: what a job with
rows takes more than that is its overhead. Processor and wall time a job, all alternated; the first job of a process is
not counted in the second way. Everything was imported once before, so that nothing is compiled.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from common import arguments, report
from extract import make_set, of_train
from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.protocol_cards import load_protocol
from lary_orch.plan.files import write_job
from lary_orch.plan.jobs import Request
from lary_orch.plan.planner import make_plan
from lary_orch.runtimes.base import Opening
from lary_orch.runtimes.choose import process_runtime
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.jobs import Job
from lary_orch.runtimes.process import ProcessRuntime
from lary_orch.workspace import Workspace
from lary_schema.jobs import ExtractJob
from lary_schema.mounts import Mounts
from lary_schema.store.layout import Failure
from lary_worker.chunks import metadata_of
from lary_worker.decode import read_clip
from lary_worker.registry import make_model


def one_job(model: str, folder: Path, rows: int) -> tuple[Job, ProcessRuntime, Workspace]:
    make_set(folder, rows)
    workspace = Workspace.locate(folder / "work", data=folder)
    runtime = process_runtime(workspace, "current")
    request = Request((model,), ("many",), load_protocol("smoke"), workers=1, control=False, threads=1)
    plan = make_plan(request, workspace, Catalog.load([folder / "cards"]), runtime, lambda _: None)
    job = of_train(plan.extracts)
    write_job(job, workspace)
    return job, runtime, workspace


def bare(job: Job) -> Callable[[], None]:
    """The job's rows decoded and encoded, without anything around it."""
    document = job.document
    assert isinstance(document, ExtractJob)
    values = document.values
    with mounted(job):
        tasks = list(metadata_of(document, Mounts.from_env()).tasks([range(document.store.rows)]))
    model = make_model(values.model, values.mode, values.variant)
    model.load({}, torch.device("cpu"), torch.float32, values.seed)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    def work() -> None:
        rows = []
        for task in tasks:
            assert not isinstance(task, Failure)
            frames, _ = read_clip(Path(task.paths[0]), task.names[0], task.indices, values.decoder)
            rows.append(model.preprocess(frames))
        with torch.inference_mode():
            for start in range(0, len(rows), document.batch_size):
                batch = torch.from_numpy(np.stack(rows[start : start + document.batch_size]))
                model.encode(batch, np.arange(start, start + len(batch)))

    return work


@contextmanager
def mounted(job: Job) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(job.mounts.to_env() | {"LARY_IMAGE": job.image.source.card.name})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def processor_s() -> float:
    """Of this process and all that it started, living and dead."""
    me = psutil.Process()
    total = 0.0
    for one in (me, *me.children(recursive=True)):
        times = one.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def timed(work: Callable[[], None]) -> dict[str, float]:
    wall, processor = time.perf_counter(), processor_s()
    work()
    return {"wall_s": time.perf_counter() - wall, "processor_s": processor_s() - processor}


def done(start: Callable[[Job, Slot, Path], Any], job: Job, log: Path) -> None:
    running = start(job, Slot(), log)
    list(running.lines())
    if running.wait():
        raise SystemExit(log.read_text())


def emptied(job: Job) -> None:
    for store in job.stores:
        shutil.rmtree(job.mounts.latents / store)
    job.make_stores()


def summary(found: list[dict[str, float]]) -> dict[str, Any]:
    """Of each clock the median, and the range."""
    figures: dict[str, Any] = {}
    for clock in ("wall_s", "processor_s"):
        values = sorted(one[clock] for one in found)
        figures |= {clock: round(statistics.median(values), 3)}
        figures |= {f"{clock}_range": [round(values[0], 3), round(values[-1], 3)]}
    return figures


def less(jobs: list[dict[str, float]], alone: list[dict[str, float]]) -> dict[str, float]:
    """How much more a job took than its rows alone in the same round; medians."""
    pairs = list(zip(jobs, alone, strict=True))
    return {clock: round(statistics.median(a[clock] - b[clock] for a, b in pairs), 3) for clock in jobs[0]}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--model", default="random-vit")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job, runtime, workspace = one_job(options.model, folder, options.rows)
        opened: list[Any] = []
        opening = Opening(
            workspace.run(job.run), 3, [Slot()], list, lambda _: None, lambda *given: opened.extend(given)
        )
        runtime.open(opening)
        _, in_one, rest = opened
        log = folder / "log"
        done(in_one, job, log)
        with mounted(job):
            alone = bare(job)
        alone()
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for way, start in {"own process": runtime.start, "same process": in_one}.items():
                emptied(job)
                for what in ("rows", "nothing to do"):
                    found.setdefault(f"{way}, {what}", []).append(timed(lambda start=start: done(start, job, log)))
            found.setdefault("bare", []).append(timed(alone))
        rest()
    overhead = {way: less(found[f"{way}, rows"], found["bare"]) for way in ("own process", "same process")}
    figures = {way: summary(each) for way, each in found.items()}
    settings = {"model": options.model, "rows": options.rows, "rounds": options.rounds}
    report("jobs_in_one_process", settings | {"ways": figures, "overhead": overhead}, options.save)


if __name__ == "__main__":
    main()
