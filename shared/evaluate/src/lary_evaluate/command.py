"""`lary-orch evaluate`: policies in closed loop."""

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from lary_orch.catalog.cards import Catalog
from lary_orch.cli.options import (
    attempts_option,
    catalog_options,
    json_option,
    keys_option,
    option,
    runtime_options,
    together,
    workspace_options,
)
from lary_orch.runtimes.plugins import Wanted
from lary_orch.workspace import Workspace
from lary_schema.evaluation import LONGEST_CHUNK
from lary_schema.option_types import SECONDS

if TYPE_CHECKING:
    from lary_results.evaluations import Board

    from lary_evaluate.request import Request

_USE, _FIRST = click.IntRange(1, LONGEST_CHUNK), click.IntRange(0, LONGEST_CHUNK - 1)
_PROTOCOL = together(
    [
        option("--horizon", type=click.IntRange(1), help="Steps after which an episode has failed [the benchmark's]."),
        option(
            "--settle", type=click.IntRange(0), help="Idle steps before the policy sees anything [the benchmark's]."
        ),
        option(
            "--use",
            type=_USE,
            help="Actions of a chunk that are done before the next one [all].",
        ),
        option(
            "--first",
            type=_FIRST,
            default=0,
            help="Index in a chunk of the first action that is done.",
        ),
        option(
            "--hold", type=click.IntRange(0), default=0, help="Steps after success until it is looked at once more."
        ),
    ]
)
_REQUEST = together(
    [
        keys_option("-m", "--policy", "policies", help="Trained or other policies, scripted, random, zero, replay."),
        option("-b", "--benchmark", help="What they are tried on, such as demo_turn."),
        keys_option("--task", "tasks", help="These tasks alone; repeatable, or joined by commas [all]."),
        option("--episodes", type=click.IntRange(1), help="Of each task: its first initial states [all]."),
        option("--seed", "seeds", type=click.IntRange(0, 2**63 - 1), multiple=True, default=(0,), help="Repeatable."),
        option(
            "--record/--no-record",
            default=True,
            help="Keep the actions of every episode, for replay and videos.",
        ),
        option(
            "--videos",
            type=click.IntRange(0),
            default=2,
            help="Of each policy, videos of at most so many successes and as many failures.",
        ),
        option("--recording", metavar="POLICY", help="Whose recorded actions replay sends [scripted]."),
        option(
            "--again",
            is_flag=True,
            help="Try once more what failed by the policy's own fault, and videos that could not be made.",
        ),
        option("--act-timeout", "act_timeout_s", type=SECONDS, default=60.0, help="Seconds for one chunk."),
        option("--connect-timeout", "connect_timeout_s", type=SECONDS, default=600.0, help="For a policy to load."),
        option("--stall-timeout", "stall_timeout_s", type=SECONDS, default=600.0, help="Seconds without progress."),
    ]
)


def request_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hands over `wished`, all of it by name."""
    names = (
        *("policies", "benchmark", "tasks", "episodes", "seeds", "record", "videos", "recording", "again"),
        *("act_timeout_s", "connect_timeout_s", "stall_timeout_s", "horizon", "settle", "use", "first", "hold"),
    )

    @functools.wraps(function)
    def gathered(*args: Any, **given: Any) -> Any:
        wished = {name: given.pop(name) for name in names}
        return function(*args, wished=wished, **given)

    return _REQUEST(_PROTOCOL(gathered))


@click.command()
@request_options
@option("--plan", "only_plan", is_flag=True, help="Print the jobs and start nothing.")
@option("--results", "only_results", is_flag=True, help="Print the table of all that was evaluated; start nothing.")
@option("--paired", nargs=2, metavar="A B", help="Is policy A better than B? On the initial states that both have.")
@catalog_options
@workspace_options
@runtime_options
@attempts_option
@json_option
def command(
    wished: dict[str, Any],
    only_plan: bool,
    only_results: bool,
    paired: tuple[str, str] | None,
    catalog: Catalog,
    workspace: Workspace,
    wanted: Wanted,
    attempts: int,
    as_json: bool,
) -> None:
    """Run policies against a simulator, each in its own container, and print how often they succeed.

    Does only what is not done yet: the same command goes on after a fault or Ctrl-C, and more --episodes add to those
    that are there. With --json, stdout carries events and, last, the table.

    \b
    lary-orch evaluate -m scripted,random,zero -b demo_turn --episodes 10
    lary-orch evaluate -m lara-demo-0123456789ab -b demo_turn --seed 0 --seed 1
    lary-orch evaluate --results --paired lara-demo-0123456789ab random
    """
    if only_results or paired:
        _show(workspace, wished["benchmark"], paired, as_json=as_json)
        return
    if not wished["policies"] or wished["benchmark"] is None:
        raise click.UsageError("name policies by -m and a benchmark by -b; or give --results")
    sys.exit(_run(_request(wished), only_plan, catalog, workspace, wanted, attempts, as_json=as_json))


def _request(wished: dict[str, Any]) -> "Request":
    from lary_evaluate.request import Request, Wishes

    wishes = Wishes(**{name: wished.pop(name) for name in ("horizon", "settle", "first", "use", "hold")})
    listed: dict[str, Any] = {name: tuple(dict.fromkeys(wished.pop(name))) for name in ("policies", "tasks", "seeds")}
    return Request(wishes=wishes, **listed, **wished)


def _run(
    request: "Request",
    only_plan: bool,
    catalog: Catalog,
    workspace: Workspace,
    wanted: Wanted,
    attempts: int,
    *,
    as_json: bool,
) -> int:
    from lary_orch.run.run import notify
    from lary_orch.runtimes.signals import exit_at_sigterm

    from lary_evaluate.carrying import carry_out
    from lary_evaluate.opening import opened

    exit_at_sigterm()
    runtime, slots, plan = opened(request, catalog, workspace, wanted, notify)
    if only_plan:
        return _show_plan(plan)
    out = sys.stdout if as_json else sys.stderr
    code = carry_out(plan, workspace, runtime, slots, attempts=attempts, as_json=as_json, out=out)
    _show(workspace, request.benchmark, None, as_json=as_json, event=True)
    return code


def _show_plan(plan: Any) -> int:
    from lary_schema.printable import json_text

    jobs = [job for one in plan.todo for job in (one.simulator, one.policy) if job is not None]
    click.echo(json_text({"run": plan.run, "jobs": [job.document.model_dump(mode="json") for job in jobs]}, indent=2))
    return 0


def _show(
    workspace: Workspace,
    benchmark: str | None,
    paired: tuple[str, str] | None,
    *,
    as_json: bool,
    event: bool = False,
) -> None:
    """With `as_json` a document, or as the last of the events one line. A run (`event`) may have left nothing yet."""
    from lary_results.evaluation_tables import as_json as boards_json
    from lary_results.evaluation_tables import print_evaluations
    from lary_schema.base import ExitCode
    from lary_schema.commands import command as typed
    from lary_schema.printable import json_text, printable_lines

    found, broken = _boards(workspace, benchmark, must_be=not event)
    for message in broken:
        click.echo(printable_lines(f"error: {message}"), err=True)
    if as_json and event:
        click.echo(json_text({"event": "evaluations", "boards": boards_json(found)}))
    elif found or as_json or paired:
        print_evaluations(found, paired, json=as_json)
    else:
        click.echo(f"no evaluations in {workspace.results}; `{typed('evaluate', '-m', 'KEY', '-b', 'KEY')}` makes them")
    if broken and not event:
        sys.exit(ExitCode.BAD_JOB)


def _boards(workspace: Workspace, benchmark: str | None, *, must_be: bool) -> "tuple[list[Board], list[str]]":
    """Those of a benchmark, or of all, and what is wrong with files that are none. Raises ContractError for a benchmark
    of which there is none although there are others."""
    from lary_results.evaluations import boards, read_evaluations
    from lary_schema.base import unknown_key

    broken: list[str] = []
    every = boards(read_evaluations(workspace.results, broken))
    found = [board for board in every if benchmark in (None, board.benchmark)]
    if must_be and every and not found and benchmark is not None:
        raise unknown_key("evaluated benchmark", benchmark, {board.benchmark for board in every})
    return found, broken
