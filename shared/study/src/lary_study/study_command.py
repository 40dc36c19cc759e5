"""`lary-orch study`: arms x seeds of trainings, extracted and probed, as one run."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from lary_orch.catalog.cards import Catalog
from lary_orch.cli.options import attempts_option, json_option, option, runtime_options, workspace_options
from lary_orch.runtimes.plugins import Wanted
from lary_orch.workspace import Workspace
from lary_schema.printable import json_text

from lary_study.options import folders_options, on_slots, settings_options
from lary_study.trainings import Settings

if TYPE_CHECKING:
    from lary_orch.plan.jobs import Plan


@click.command()
@click.argument("study")
@option("--plan", "only_plan", is_flag=True, help="Print the jobs and start none.")
@option("--seeds", help="Of the trainings: 0-2, or 0,3 [the study's].")
@option("--arms", help="These arms alone, by commas [all]; baselines always.")
@settings_options
@folders_options
@workspace_options
@runtime_options
@attempts_option
@json_option
def command(
    study: str,
    only_plan: bool,
    seeds: str | None,
    arms: str | None,
    settings: Settings,
    catalog: Catalog,
    folders: Sequence[Path],
    workspace: Workspace,
    wanted: Wanted,
    attempts: int,
    as_json: bool,
) -> None:
    """Train, extract and probe all arms of a study, then print its table.

    STUDY is the key of a built-in study or of one in a catalog folder's studies/, or a YAML file. Equal trainings are
    done once. Does only what is not done yet: the same command goes on after a fault or Ctrl-C.

    \b
    lary-orch study lara-demo --seeds 0
    lary-orch results --study lara-demo
    """
    from lary_orch.run.run import carry_out, notify
    from lary_orch.runtimes.choose import open_runtime

    from lary_study.card import StudyCard
    from lary_study.planning import Study, parse_arms, parse_seeds, write_record
    from lary_study.recipes import load
    from lary_study.trainings import Trainings

    card = load(StudyCard, "study", study, folders)
    asked, named = parse_seeds(seeds, card), parse_arms(arms, card)
    whole = Study(card, catalog, folders, workspace)
    runtime, slots = open_runtime(wanted, workspace, whole.images(), notify)
    trainings = Trainings(workspace, catalog, runtime, notify, on_slots(settings, slots), card.data.train)
    planned = whole.plan(runtime, slots, trainings, notify, asked, named)
    if only_plan:
        sys.exit(_show_plan(planned.plan, as_json=as_json))
    write_record(planned.record, workspace)
    out = sys.stdout if as_json else sys.stderr
    code = carry_out(planned.plan, workspace, runtime, slots, attempts=attempts, as_json=as_json, out=out)
    if not as_json:
        _show_table(card.key, workspace)
    sys.exit(code)


def _show_plan(plan: "Plan", *, as_json: bool) -> int:
    from lary_orch.plan.jobs import error_lines
    from lary_orch.run.attempts import some

    if as_json:
        jobs = [job.document.model_dump(mode="json") for job in plan.todo if job.document]
        click.echo(json_text({"run": plan.run, "jobs": jobs}, indent=2))
    else:
        from lary_terminal.tables import Table, show

        rows: list[tuple[str, ...]] = [(job.id, some(job.needs, most=2) or "-") for job in plan.todo]
        done = sum(job.result is not None for job in (*plan.trainings, *plan.probes))
        notes = (f"done already: {done} trainings and probes, {_whole(plan)} of {len(plan.stores)} stores.",)
        show(Table(f"run {plan.run}: {len(rows)} jobs", ("job", "needs"), rows, notes=notes), sys.stdout)
    for line in error_lines(plan.problems):
        click.echo(line, err=True)
    return plan.exit_code


def _whole(plan: "Plan") -> int:
    return sum(not store.missing for store in plan.stores)


def _show_table(key: str, workspace: Workspace) -> None:
    from lary_results.study.tables import print_study

    print_study(workspace.root, key, sys.stdout)
