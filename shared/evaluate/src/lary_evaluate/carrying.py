"""A plan from jobs to results: both sides of each pair started, watched and ended by the one attempt machine."""

import sys
from dataclasses import replace
from functools import partial
from typing import TextIO

from lary_orch.plan.files import write_job
from lary_orch.run.drive import drive
from lary_orch.run.failures import report_failures, run_code
from lary_orch.run.run import notify
from lary_orch.run.scheduler import one_at_a_time, one_by_one
from lary_orch.runtimes.base import LocalRuntime, Opening
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.jobs import Job
from lary_orch.workspace import Workspace
from lary_schema.atomic import publish_text
from lary_schema.evaluation import EvaluateJob
from lary_schema.runs import PlanFile, RunEvaluation
from lary_terminal.progress import watching

from lary_evaluate.pair import starting
from lary_evaluate.planning import SOCKETS, Evaluation, Plan
from lary_evaluate.serving import Policies
from lary_evaluate.videos import video_jobs

PROTOCOL = "evaluate"
"""What `plan.json` calls a run of this kind."""


def carry_out(
    plan: Plan,
    workspace: Workspace,
    runtime: LocalRuntime,
    slots: list[Slot],
    *,
    attempts: int,
    as_json: bool,
    out: TextIO,
) -> int:
    """Do what is not done yet; the exit code."""
    paths = workspace.run(plan.run)
    document = _plan_file(plan, workspace)
    todo, total = plan.todo, len(plan.evaluations)
    policies = {one.simulator.id: one.policy for one in todo if one.policy is not None}

    def jobs() -> list[Job]:
        for one in todo:
            for job in (one.simulator, *([one.policy] if one.policy else [])):
                write_job(job, workspace)
        return [one.simulator for one in todo]

    with one_at_a_time(paths):
        publish_text(paths.plan, document.to_json())
        notify(f"run {plan.run}: {len(todo)} of {total} evaluations to do")
        opening = Opening(paths, attempts, slots, jobs, notify, one_by_one)
        watch = partial(watching, out=out, as_json=as_json)
        serving = Policies(runtime.start, len(slots), paths.root / SOCKETS)
        execution = one_by_one(opening, starting(runtime.start, policies, serving), serving.rest)
        outcomes, interrupted = drive(execution, plan.run, watch, notify)
        if interrupted is None and (made := _videos(plan, workspace)):
            notify(f"{sum(len(job.outputs) for job in made)} videos to make")
            after = replace(opening, make_jobs=lambda: made)
            filmed, interrupted = drive(one_by_one(after, runtime.start), plan.run, watch, notify)
            outcomes = [*outcomes, *filmed]
    report_failures(document, (), outcomes, sys.stderr)
    if interrupted is not None:
        notify("stopped; the same command goes on from here")
    return run_code((), outcomes, interrupted)


def _plan_file(plan: Plan, workspace: Workspace) -> PlanFile:
    return PlanFile(
        run=plan.run,
        protocol=PROTOCOL,
        latents=str(workspace.latents),
        stores=(),
        probes=(),
        evaluations=tuple(_entry(one) for one in plan.evaluations),
        problems=(),
    )


def _entry(one: Evaluation) -> RunEvaluation:
    job = one.simulator.document
    assert isinstance(job, EvaluateJob)
    values = job.values
    return RunEvaluation(
        id=job.id,
        policy=values.policy,
        benchmark=values.benchmark,
        task=values.task,
        seed=values.seed,
        fingerprint=values.fingerprint,
        states=values.states,
        result=str(one.file),
    )


def _videos(plan: Plan, workspace: Workspace) -> list[Job]:
    """Their jobs, ready to be started."""
    jobs = video_jobs(plan.evaluations, workspace, plan.videos, notify) if plan.videos else []
    for job in jobs:
        write_job(job, workspace)
    return jobs
