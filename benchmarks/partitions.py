"""One extraction over all cores against its store divided over slots of fewer cores each, as a run does it.

    python benchmarks/partitions.py --rounds 5 --save

`one` is one job with all cores' threads (`--cpu-slots 1`), `divided` as many jobs at once as the orchestrator has slots
without a GPU, each with its share. Both with two decode processes a job, from the start of the first process to the end
of the last one, so that two starts are counted where there are two. Alternated; processor and wall time, and whether
the stores are the same bytes (threads may round sums in another order). Needs psutil.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import arguments, report
from extract import make_set
from jobs_in_one_process import summary, timed
from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.protocol_cards import load_protocol
from lary_orch.plan.files import write_job
from lary_orch.plan.jobs import Request
from lary_orch.plan.planner import make_plan
from lary_orch.runtimes.choose import process_runtime
from lary_orch.runtimes.devices import Slot, cpu_count, make_slots
from lary_orch.runtimes.jobs import Job
from lary_orch.runtimes.process import ProcessRuntime
from lary_orch.workspace import Workspace

SHARDS = 8


def prepared(model: str, folder: Path, rows: int, slots: Sequence[Slot]) -> tuple[list[Job], ProcessRuntime]:
    """The extraction of the training split, divided over `slots`."""
    workspace = Workspace.locate(folder / f"work{len(slots)}", data=folder)
    runtime = process_runtime(workspace, "current")
    request = Request((model,), ("many",), load_protocol("smoke"), control=False, shard_rows=-(-rows // SHARDS))
    plan = make_plan(request.on(slots), workspace, Catalog.load([folder / "cards"]), runtime, lambda _: None)
    jobs = [job for job in plan.extracts if "/train/" in job.stores[0]]
    for job in jobs:
        write_job(job, workspace)
    return jobs, runtime


def emptied(jobs: Sequence[Job]) -> None:
    for job in jobs:
        for store in job.stores:
            shutil.rmtree(job.mounts.latents / store, ignore_errors=True)
        job.make_stores()


def side_by_side(jobs: Sequence[Job], runtime: ProcessRuntime, slots: Sequence[Slot], folder: Path) -> None:
    started = [runtime.start(job, slot, folder / f"{job.id}.log") for job, slot in zip(jobs, slots, strict=True)]
    for job, running in zip(jobs, started, strict=True):
        list(running.lines())
        if running.wait():
            raise SystemExit((folder / f"{job.id}.log").read_text())


def store_sha256(job: Job) -> str:
    """Of the latents alone: markers say who made them."""
    root = job.mounts.latents / job.stores[0]
    files = sorted(path for path in root.rglob("*") if path.is_file() and "c" in path.parts)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--model", action="append", help="repeatable [frame-diff, random-vit]")
    options = parser.parse_args()
    cores = cpu_count()
    ways = {"one": make_slots("cpu", [], cpu_slots=1, cpus=cores), "divided": make_slots("cpu", [], cpus=cores)}
    figures: dict[str, Any] = {"rows": options.rows, "rounds": options.rounds, "shards": SHARDS}
    figures |= {"jobs": {way: len(slots) for way, slots in ways.items()}, "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_set(folder, options.rows)
        for model in options.model or ["frame-diff", "random-vit"]:
            made = {way: prepared(model, folder, options.rows, slots) for way, slots in ways.items()}
            found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
            for _ in range(options.rounds):
                for way, (jobs, runtime) in made.items():
                    emptied(jobs)
                    found[way].append(timed(partial(side_by_side, jobs, runtime, ways[way], folder)))
            of = {way: summary(each) for way, each in found.items()}
            over = {clock: round(of["divided"][clock] / of["one"][clock], 3) for clock in ("wall_s", "processor_s")}
            equal = len({store_sha256(jobs[0]) for jobs, _ in made.values()}) == 1
            figures[model] = {**of, "divided_over_one": over, "equal_bytes": equal}
    report("partitions", figures, options.save)


if __name__ == "__main__":
    main()
