"""`lary-orch results`: the leaderboard."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from lary_schema.base import ExitCode
from lary_schema.option_types import FiniteRange
from lary_schema.printable import printable_lines

from lary_orch.cli import completing
from lary_orch.cli.config import FILE
from lary_orch.cli.options import json_option, max_failed_option, option, workspace_options
from lary_orch.workspace import Workspace

OUTSIDE = 6
"""Exit code of `--against` where a comparable score is further off than the tolerance."""


@click.command()
@workspace_options
@option(
    "--run", default="*", shell_complete=completing.runs_with_results, help="One run's results alone; * stands for all."
)
@option("--protocol", help="Results of one protocol alone [all, a table each].")
@option("--study", "key", help="The arms of a study and their differences, and nothing else.")
@option("--csv", "as_csv", is_flag=True, help="CSV, one line a score, instead of text for people.")
@option(
    "--paired",
    nargs=2,
    metavar="A B",
    help="Is model A better than B? Differences on the rows that both have. MODEL/VARIANT where variants differ.",
)
@option(
    "--against",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Compare with FILE: published tables, or what --json printed earlier. Exit code 6 where a score is outside.",
)
@option(
    "--tolerance",
    type=FiniteRange(0),
    default=0.01,
    help="Of --against: largest difference, in MSE and in top-1 as a share (0.01: one percentage point).",
)
@option(
    "--diff",
    nargs=2,
    metavar="RUN RUN",
    shell_complete=completing.runs_with_results,
    help="Scores of two runs side by side, the second minus the first, and what made them different.",
)
@option("--export", "to", type=FILE, help="Write what is finished to FILE.zip, to be shared; with --run, one run's.")
@option("--import", "files", type=FILE, multiple=True, help="Take what --export wrote into the tables; repeatable.")
@max_failed_option
@json_option
def command(
    workspace: Workspace,
    run: str,
    protocol: str | None,
    as_csv: bool,
    paired: tuple[str, str] | None,
    against: Path | None,
    tolerance: float,
    max_failed: float,
    as_json: bool,
    **others: Any,
) -> None:
    """Print the table of results.

    Of several results for one cell the newest is shown. Scores of other recipes (an edited protocol) stand in
    tables of their own. Published scores are shown with ours where model, dataset, rows, variant and protocol
    make them comparable; footnotes say why elsewhere.

    \b
    lary-orch results
    lary-orch results --run smoke-1a2b3c4d
    lary-orch results --paired vjepa2 dinov2-origin
    lary-orch results --study lara-demo
    lary-orch results --csv > scores.csv
    lary-orch results --json > before.json
    lary-orch results --against before.json --tolerance 0.005
    lary-orch results --diff smoke-1a2b3c4d smoke-5e6f7a8b
    lary-orch results --export ours.zip
    """
    _check_together(as_csv, as_json, paired, against, *others.values())
    if _otherwise(workspace, run, protocol, as_json=as_json, **others):
        return
    _show(workspace, run, protocol, paired, against, tolerance, max_failed, as_json=as_json, as_csv=as_csv)


def _check_together(as_csv: bool, as_json: bool, *kinds: object) -> None:
    chosen = sum(map(bool, kinds))
    if (as_csv and as_json) or chosen > 1 or (as_csv and chosen):
        raise click.UsageError(
            "take one of --json and --csv, and one of --paired, --against, --study, --diff, --export and --import; "
            "--csv is for the table"
        )


def _otherwise(
    workspace: Workspace,
    run: str,
    protocol: str | None,
    *,
    key: str | None,
    diff: tuple[str, str] | None,
    to: Path | None,
    files: tuple[Path, ...],
    as_json: bool,
) -> bool:
    """Do what is asked for in place of the table; False: nothing is."""
    if key is not None:
        from lary_results.study.tables import print_study

        print_study(workspace.root, key, sys.stdout, as_json=as_json)
    elif diff:
        from lary_results.printing import print_difference

        print_difference(workspace.results, diff, sys.stdout, as_json=as_json)
    elif to is not None:
        from lary_results.archive import export
        from lary_results.parts import counted

        click.echo(printable_lines(f"{counted(export(workspace.results, run, protocol, to))} in {to}"))
    elif files:
        _import(workspace, files)
    else:
        return False
    return True


def _import(workspace: Workspace, files: Sequence[Path]) -> None:
    from lary_results.archive import import_results

    for file in files:
        made = import_results(file, workspace.results)
        click.echo(printable_lines(f"{'imported' if made.is_new else 'there already:'} {made.text}"))


def _show(
    workspace: Workspace,
    run: str,
    protocol: str | None,
    paired: tuple[str, str] | None,
    against: Path | None,
    tolerance: float,
    max_failed: float,
    *,
    as_json: bool,
    as_csv: bool,
) -> None:
    from lary_results import printing

    from lary_orch.catalog.protocol_cards import protocol_titles

    found, is_whole = printing.read_scores(workspace.results, run, protocol)
    if paired:
        printing.print_paired(found, paired, max_failed, sys.stdout, as_json=as_json)
    elif against is not None:
        if not printing.print_comparison(found, against, tolerance, sys.stdout, as_json=as_json):
            sys.exit(OUTSIDE)
    elif found or as_json or as_csv:
        printing.print_scores(found, protocol_titles(), max_failed, sys.stdout, as_json=as_json, as_csv=as_csv)
    else:
        click.echo(printable_lines(printing.nothing_yet(workspace.results)))
    if not is_whole:
        sys.exit(ExitCode.BAD_JOB)
