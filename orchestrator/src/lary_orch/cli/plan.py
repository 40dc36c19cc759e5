"""`lary-orch plan`: what `run` would do."""

import sys
from pathlib import Path
from typing import Any

import click
from lary_schema import commands
from lary_schema.jobs import ExtractJob, ProbeJob
from lary_schema.printable import json_text
from lary_schema.store.layout import row_bytes

from lary_orch.catalog.cards import Catalog
from lary_orch.cli.config import FILE, config_option, save
from lary_orch.cli.options import (
    catalog_options,
    json_option,
    option,
    request_options,
    runtime_options,
    workspace_options,
)
from lary_orch.plan.jobs import Plan, Request, error_lines
from lary_orch.runtimes.jobs import Job
from lary_orch.runtimes.plugins import Wanted
from lary_orch.workspace import Workspace


@click.command()
@request_options
@catalog_options
@workspace_options
@runtime_options
@config_option
@option("--save", "file", type=FILE, help="Write what is asked for to FILE.yaml, for `run --config`.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    request: Request,
    catalog: Catalog,
    workspace: Workspace,
    wanted: Wanted,
    file: Path | None,
    as_json: bool,
) -> None:
    """Show the jobs that `run` would launch, and their JSON.

    Launches none of them. Images are made ready, since their own `describe` gives the facts; demo
    sets are made. With --json, `jobs` holds the very documents that the images would get.

    \b
    lary-orch plan -m frame-diff -d demo_motion
    lary-orch plan -m vjepa2 -d calvin --runtime docker --json
    lary-orch plan -m vjepa2 -d calvin --runtime slurm        with the scripts for sbatch
    lary-orch plan -m frame-diff -d demo_motion --save asked.yaml
    """
    if file is not None:
        save(context, file)
    sys.exit(show_plan(request, catalog, workspace, wanted, as_json=as_json))


def show_plan(request: Request, catalog: Catalog, workspace: Workspace, wanted: Wanted, *, as_json: bool) -> int:
    """Print the plan, and what is wrong with the request; the exit code."""
    from lary_orch.plan.names import check_request
    from lary_orch.plan.planner import make_plan
    from lary_orch.runtimes.choose import needed_images, open_runtime

    check_request(request, catalog, workspace, _notify)
    images = needed_images(catalog, request.models if request.extracts else ())
    runtime, slots = open_runtime(wanted, workspace, images, _notify)
    plan = make_plan(request.on(slots), workspace, catalog, runtime, _notify)
    remarks = runtime.remarks(plan.todo)
    scripts = runtime.preview(workspace.run(plan.run), plan.todo, _notify)
    if as_json:
        submissions = {"submissions": scripts} if scripts is not None else {}
        click.echo(json_text(_document(plan, remarks) | submissions, indent=2))
    else:
        _show(plan, remarks)
        for submission in scripts or ():
            click.echo(f"\n{commands.joined(submission['command'])}\n{submission['script']}", nl=False)
    for line in error_lines(plan.problems):
        click.echo(line, err=True)
    return plan.exit_code


def _notify(line: str) -> None:
    click.echo(line, err=True)


def _document(plan: Plan, remarks: list[str]) -> dict[str, Any]:
    return {
        "run": plan.run,
        "jobs": [planned.document.model_dump(mode="json") for planned in plan.todo if planned.document],
        "finished": {probe.id: str(probe.result) for probe in plan.probes if probe.result is not None},
        "remarks": remarks,
        "problems": [{"what": p.what, "message": str(p.error), "code": int(p.code)} for p in plan.problems],
    }


def _show(plan: Plan, remarks: list[str]) -> None:
    from lary_terminal.tables import Table, show, size_text

    finished = len(plan.probes) - sum(probe.result is None for probe in plan.probes)
    whole = sum(not store.missing for store in plan.stores)
    table = Table(
        f"run {plan.run}: {len(plan.todo)} jobs",
        ("job", "rows", "shards", "size"),
        [_cells(planned) for planned in plan.todo],
        right=frozenset({1, 2, 3}),
        notes=(
            f"done already: {whole} of {len(plan.stores)} stores, {finished} of {len(plan.probes)} probes.",
            f"The latents volume will grow by about {size_text(plan.missing_bytes)}.",
            *(remark[0].upper() + remark[1:] for remark in remarks),
            *(f"{store.layout.path}: made anew, another differs in: {store.why}" for store in plan.stores if store.why),
        ),
    )
    show(table, sys.stdout)


def _cells(planned: Job) -> tuple[str, ...]:
    from lary_terminal.tables import size_text

    job = planned.document
    if isinstance(job, ProbeJob):
        return (planned.id, str(job.train.store.rows), "-", "-")
    if not isinstance(job, ExtractJob):
        return (planned.id, "-", "-", "-")
    rows = sum(len(job.store.shard_range(shard)) for shard in job.shards)
    return (planned.id, str(rows), str(len(job.shards)), size_text(rows * row_bytes(job.values.spec, job.values.dtype)))
