"""`lary-orch doctor`: is this machine ready?"""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from lary_orch.catalog.cards import Catalog
from lary_orch.cli.options import catalog_options, json_option, option, runtime_name_options, workspace_options
from lary_orch.runtimes.plugins import Wanted
from lary_orch.workspace import Workspace
from lary_schema.printable import json_text

if TYPE_CHECKING:
    from lary_doctor.check import Finding


@click.command()
@option("-m", "--model", "models", multiple=True, help="Check for this model; repeatable.")
@option("-d", "--dataset", "datasets", multiple=True, help="Check for this dataset; repeatable.")
@runtime_name_options
@catalog_options
@workspace_options
@json_option
def command(
    models: tuple[str, ...],
    datasets: tuple[str, ...],
    wanted: Wanted,
    catalog: Catalog,
    workspace: Workspace,
    as_json: bool,
) -> None:
    """Check this machine, with a remedy for each fault.

    Changes nothing; with --runtime slurm, a job of a minute looks at a node. Exits with 1 where a check
    fails; warnings and skipped checks do not count.

    \b
    lary-orch doctor
    lary-orch doctor -m vjepa2 -d calvin --runtime docker
    lary-orch doctor --runtime slurm --profile cluster.yaml
    """
    from lary_doctor import examine
    from lary_doctor.check import Context

    findings = list(examine(Context(workspace, catalog, models, datasets, wanted.runtime, wanted.own)))
    if as_json:
        click.echo(json_text([{"check": name, **asdict(finding)} for name, finding in findings], indent=2))
    else:
        _show(findings)
    if any(finding.status == "fail" for _, finding in findings):
        sys.exit(1)


def _show(findings: list[tuple[str, "Finding"]]) -> None:
    """A line per check, its remedy below, so that a command in it can be copied."""
    for name, finding in findings:
        click.echo(f"{finding.status:4}  {name}: {finding.message}")
        if finding.remedy:
            click.echo(f"      -> {finding.remedy}")
