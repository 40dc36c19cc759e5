"""Small extractions of one model, each in a process of its own and one after the other in one.

    python benchmarks/jobs_in_one_process.py --rounds 5 --save

Jobs of `--rows` rows of demo clips (one decode process), and jobs whose store is there already, so that nothing but the
overhead is left. Processor and wall time a job, alternated; the first job of a process is not counted in the second
way. Everything was imported once before, so that nothing is compiled.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lary_demo as demo
import psutil
from common import arguments, report
from extract import CARD, of_train, write_csvs
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


def one_job(model: str, folder: Path, rows: int) -> tuple[Job, ProcessRuntime, Workspace]:
    demo.ensure("demo_motion", folder)
    (folder / "cards").mkdir()
    (folder / "cards/many.yaml").write_text(CARD)
    write_csvs(folder, rows)
    workspace = Workspace.locate(folder / "work", data=folder)
    runtime = process_runtime(workspace, "current")
    request = Request((model,), ("many",), load_protocol("smoke"), workers=1, control=False, threads=1)
    plan = make_plan(request, workspace, Catalog.load([folder / "cards"]), runtime, lambda _: None)
    job = of_train(plan.extracts)
    write_job(job, workspace)
    return job, runtime, workspace


def processor_s() -> float:
    """Of this process's children, living and dead, and theirs."""
    me = psutil.Process()
    dead = me.cpu_times()
    total = dead.children_user + dead.children_system
    for child in me.children():
        times = child.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def timed(start: Callable[[Job, Slot, Path], Any], job: Job, log: Path) -> dict[str, float]:
    wall, processor = time.perf_counter(), processor_s()
    running = start(job, Slot(), log)
    list(running.lines())
    if running.wait():
        raise SystemExit(log.read_text())
    return {"wall_s": time.perf_counter() - wall, "processor_s": processor_s() - processor}


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
        timed(in_one, job, folder / "log")
        ways = {"own process": runtime.start, "same process": in_one}
        found: dict[str, dict[str, list[dict[str, float]]]] = {way: {"rows": [], "nothing to do": []} for way in ways}
        for _ in range(options.rounds):
            for way, start in ways.items():
                for store in job.stores:
                    shutil.rmtree(job.mounts.latents / store)
                job.make_stores()
                found[way]["rows"].append(timed(start, job, folder / "log"))
                found[way]["nothing to do"].append(timed(start, job, folder / "log"))
        rest()
    figures = {
        way: {
            what: {
                clock: round(statistics.median(one[clock] for one in each), 3) for clock in ("wall_s", "processor_s")
            }
            for what, each in kinds.items()
        }
        for way, kinds in found.items()
    }
    report("jobs_in_one_process", {"model": options.model, "rows": options.rows, "ways": figures}, options.save)


if __name__ == "__main__":
    main()
