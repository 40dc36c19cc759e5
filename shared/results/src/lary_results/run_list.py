"""The runs of a workspace, newest first: what each is of, and how far it is. Opens no array."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lary_schema.base import ContractError
from lary_schema.files import unlisted
from lary_schema.runs import PlanFile, RunPaths, RunProbe, RunStore
from lary_terminal.tables import Table

from lary_results.run_state import DiskState, is_complete, run_state
from lary_results.running import duration, is_worked_on


def run_records(runs: Path, results: Path) -> Iterator[dict[str, Any]]:
    """One record per run; one whose plan cannot be read says why."""
    disk = DiskState()
    yield from ({"run": "-", "error": message} for message in unlisted(runs, 1))
    plans = sorted(runs.glob("*/plan.json"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
    for file in plans:
        paths = RunPaths(file.parent, results / file.parent.name)
        try:
            yield _record(PlanFile.read(file), paths, disk)
        except ContractError as error:
            yield {"run": file.parent.name, "error": str(error)}


def _record(plan: PlanFile, paths: RunPaths, disk: DiskState) -> dict[str, Any]:
    state = run_state(plan, disk)
    parts: list[RunStore | RunProbe] = [*plan.stores, *plan.probes]
    models = (
        {part.model for part in parts} | {one.key for one in plan.trainings} | {one.policy for one in plan.evaluations}
    )
    datasets = {part.dataset for part in parts} | {one.benchmark for one in plan.evaluations}
    jobs = [store["shards_done"] == store["shards"] for store in state["stores"]]
    jobs += [job["done"] for job in (*state["trainings"], *state["probes"], *state["evaluations"])]
    return {
        "run": plan.run,
        "protocol": plan.protocol,
        "state": _word(state, running=is_worked_on(paths)),
        "done": sum(jobs),
        "parts": len(jobs),
        "rows_failed": sum(store["rows_failed"] for store in state["stores"]),
        "problems": len(plan.problems),
        "models": sorted(models),
        "datasets": sorted(datasets),
        "planned": paths.plan.stat().st_mtime,
    }


def _word(state: dict[str, Any], *, running: bool) -> str:
    if running:
        return "running"
    if not is_complete(state):
        return "not complete"
    return "not all of it could be planned" if state["problems"] else "complete"


def run_table(records: list[dict[str, Any]], runs: Path) -> Table:
    """`run_records`, a line each."""
    well = [record for record in records if "error" not in record]
    return Table(
        f"{len(well)} runs in {runs}",
        ("run", "state", "done", "models", "datasets", "failed rows", "planned"),
        [_cells(record) for record in well],
        right=frozenset({2, 5}),
        details=frozenset({6}),
        notes=tuple(
            f"{record['run']}: {record['error']}".removeprefix("-: ") for record in records if "error" in record
        ),
    )


def _cells(record: dict[str, Any]) -> tuple[str, ...]:
    done = f"{record['done']}/{record['parts']}"
    names = (", ".join(record["models"]) or "-", ", ".join(record["datasets"]) or "-")
    age = f"{duration(max(0.0, time.time() - record['planned']))} ago"
    return (record["run"], record["state"], done, *names, f"{record['rows_failed']:,}", age)
