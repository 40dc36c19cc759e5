"""One run from its request to its table: what `lary-orch run` does."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TextIO

from lary_results import export, leaderboard, scores
from lary_results.files import RESULT_FILE
from lary_results.run_state import is_complete, run_state
from lary_schema.base import ContractError
from lary_schema.printable import json_text, printable_lines
from lary_schema.results import ProbeResult
from lary_schema.runs import PlanFile

from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.protocol_cards import protocol_titles
from lary_orch.plan.files import write_job, write_plan
from lary_orch.plan.jobs import Plan, Request
from lary_orch.plan.planner import make_plan
from lary_orch.run.drive import drive
from lary_orch.run.failures import report_failures, run_code
from lary_orch.run.progress import watching
from lary_orch.run.scheduler import one_at_a_time, one_by_one
from lary_orch.runtimes.base import Opening
from lary_orch.runtimes.choose import needed_images, open_runtime
from lary_orch.runtimes.jobs import Job
from lary_orch.runtimes.plugins import Wanted, detachable
from lary_orch.workspace import Workspace


def run(
    request: Request,
    catalog: Catalog,
    workspace: Workspace,
    wanted: Wanted,
    *,
    attempts: int,
    as_json: bool,
    out: TextIO,
    detach: bool = False,
) -> int:
    """Plan, run what is missing, print the table and what failed; the exit code.

    Raises ContractError where nothing can be started at all.
    """
    if detach and wanted.runtime not in detachable():
        names = " or ".join(detachable()) or "RUNTIME (none is installed that can)"
        raise ContractError(f"--detach goes with --runtime {names} alone: elsewhere a run's jobs end with it")
    images = needed_images(catalog, request.models if request.extracts else ())
    runtime, slots = open_runtime(wanted, workspace, images, _notify)
    for line in runtime.sweep():
        _notify(line)
    plan = make_plan(request.on(slots), workspace, catalog, runtime, _notify)
    with one_at_a_time(workspace.run(plan.run)):
        paths = write_plan(plan, workspace)
        _notify(_opening(plan))
        for line in superseded(plan, workspace.runs):
            _notify(line)
        opening = Opening(paths, attempts, slots, partial(_written, plan, workspace), _notify, one_by_one)
        observing_jobs = partial(watching, out=out, as_json=as_json)
        outcomes, interrupted = drive(runtime.open(opening), plan.run, observing_jobs, _notify, detach=detach)
    _show_scores(plan, out, as_json=as_json)
    report_failures(PlanFile.read(paths.plan), plan.problems, outcomes, sys.stderr)
    if interrupted is not None:
        _notify("stopped; the same command goes on from here")
    return run_code(plan.problems, outcomes, interrupted)


def superseded(plan: Plan, runs: Path) -> Iterator[str]:
    """A line for each earlier run that requested the same and will not be continued, though it is not complete.

    Another version of an image or of the bench makes other fingerprints, and so another run.
    """
    for file in sorted(runs.glob(f"{plan.protocol}-*/plan.json")):
        try:
            earlier = PlanFile.read(file)
            same = {probe.id for probe in earlier.probes} == {probe.id for probe in plan.probes}
            if earlier.run == plan.run or not same or is_complete(run_state(earlier)):
                continue
        except ContractError:
            continue
        yield (
            f"run {earlier.run} requested the same and is not complete. It was planned with other images, data or "
            f"settings, or by another version of the bench, and is not continued; run {plan.run} uses what it has done "
            f"of the same latents. `lary-orch status {earlier.run}` shows it; `lary-orch cancel {earlier.run}` ends "
            "what it still has on a cluster"
        )


def _written(plan: Plan, workspace: Workspace) -> list[Job]:
    """The jobs that are to be done, their folders written."""
    for job in plan.todo:
        write_job(job, workspace)
    return list(plan.todo)


def _notify(line: str) -> None:
    sys.stderr.write(printable_lines(line) + "\n")
    sys.stderr.flush()


def _opening(plan: Plan) -> str:
    if not plan.stores:
        return f"run {plan.run}: nothing of what was requested can be run"
    if not plan.todo:
        return f"run {plan.run}: nothing to do, all of it is done already"
    finished = len(plan.probes) + len(plan.extracts) - len(plan.todo)
    done = f"; {finished} probes are done already" if finished else ""
    return f"run {plan.run}: {len(plan.extracts)} extractions, {len(plan.todo) - len(plan.extracts)} probes{done}"


def _show_scores(plan: Plan, out: TextIO, *, as_json: bool) -> None:
    """The table of this plan's results, wherever they lie; with `as_json` one last line on stdout."""
    found = [probe.result or probe.mounts.out / RESULT_FILE for probe in plan.probes]
    listed = scores.collect((path, ProbeResult.read(path)) for path in found if path.is_file())
    if as_json:
        out.write(json_text({"event": "scores", "run": plan.run, "scores": export.as_json(listed)}) + "\n")
    elif listed:
        leaderboard.show_all(listed, out, protocol_titles())
