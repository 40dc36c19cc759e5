"""One run from its request to its table: what `lary-orch run` does."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import TextIO

from lary_results import export, leaderboard, scores
from lary_results.files import RESULT_FILE
from lary_results.run_state import superseded
from lary_schema.base import ContractError
from lary_schema.printable import json_text, printable_lines
from lary_schema.results import ProbeResult
from lary_schema.runs import PlanFile
from lary_terminal.progress import watching

from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.protocol_cards import protocol_titles
from lary_orch.plan.files import write_job, write_plan
from lary_orch.plan.jobs import Plan, Request
from lary_orch.plan.names import check_request
from lary_orch.plan.planner import make_plan
from lary_orch.run.drive import drive
from lary_orch.run.failures import report_failures, run_code
from lary_orch.run.scheduler import one_at_a_time, one_by_one
from lary_orch.runtimes.base import Opening, Runtime
from lary_orch.runtimes.choose import needed_images, open_runtime
from lary_orch.runtimes.devices import Slot
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
    check_request(request, catalog, workspace, notify)
    images = needed_images(catalog, request.models if request.extracts else ())
    runtime, slots = open_runtime(wanted, workspace, images, notify)
    for line in runtime.sweep():
        notify(line)
    plan = make_plan(request.on(slots), workspace, catalog, runtime, notify)
    code = carry_out(plan, workspace, runtime, slots, attempts=attempts, as_json=as_json, out=out, detach=detach)
    _show_scores(plan, out, as_json=as_json)
    return code


def carry_out(
    plan: Plan,
    workspace: Workspace,
    runtime: Runtime,
    slots: Sequence[Slot],
    *,
    attempts: int,
    as_json: bool,
    out: TextIO,
    detach: bool = False,
) -> int:
    """Do what of a plan is not done yet, and say what failed; the exit code."""
    with one_at_a_time(workspace.run(plan.run)):
        paths = write_plan(plan, workspace)
        document = PlanFile.read(paths.plan)
        notify(_opening(plan))
        for line in superseded(document, workspace.runs):
            notify(line)
        opening = Opening(paths, attempts, slots, partial(_written, plan, workspace), notify, one_by_one)
        observing_jobs = partial(watching, out=out, as_json=as_json)
        outcomes, interrupted = drive(runtime.open(opening), plan.run, observing_jobs, notify, detach=detach)
    report_failures(_unread(plan, document), plan.problems, outcomes, sys.stderr)
    if interrupted is not None:
        notify("stopped; the same command goes on from here")
    return run_code(plan.problems, outcomes, interrupted)


def _unread(plan: Plan, document: PlanFile) -> PlanFile:
    """Without the stores that planning found whole: whoever has hundreds of them does not wait for a second look."""
    pairs = zip(document.stores, plan.stores, strict=True)
    return document.model_copy(
        update={"stores": tuple(entry for entry, store in pairs if store.missing or store.failed)}
    )


def _written(plan: Plan, workspace: Workspace) -> list[Job]:
    """The jobs that are to be done, their folders written."""
    for job in plan.todo:
        write_job(job, workspace)
    return list(plan.todo)


def notify(line: str) -> None:
    sys.stderr.write(printable_lines(line) + "\n")
    sys.stderr.flush()


def _opening(plan: Plan) -> str:
    if not plan.stores and not plan.trainings:
        return f"run {plan.run}: nothing of what was requested can be run"
    if not plan.todo:
        return f"run {plan.run}: nothing to do, all of it is done already"
    trainings, probes = ([job for job in jobs if job.result is None] for jobs in (plan.trainings, plan.probes))
    finished = len(plan.probes) - len(probes)
    done = f"; {finished} probes are done already" if finished else ""
    trained = f"{len(trainings)} trainings, " if trainings else ""
    return f"run {plan.run}: {trained}{len(plan.extracts)} extractions, {len(probes)} probes{done}"


def _show_scores(plan: Plan, out: TextIO, *, as_json: bool) -> None:
    """The table of this plan's results, wherever they lie; with `as_json` one last line on stdout."""
    found = [probe.result or probe.mounts.out / RESULT_FILE for probe in plan.probes]
    listed = scores.collect((path, ProbeResult.read(path)) for path in found if path.is_file())
    if as_json:
        out.write(json_text({"event": "scores", "run": plan.run, "scores": export.as_json(listed)}) + "\n")
    elif listed:
        leaderboard.show_all(listed, out, protocol_titles())
