"""`lary-orch clean`: remove leftovers, and on request what can be made again."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import click
from lary_schema.base import ContractError

from lary_orch.cli import completing
from lary_orch.cli.options import option, workspace_options
from lary_orch.run.cleaning import (
    Target,
    cache,
    demo_sets,
    environments,
    leftovers,
    remove,
    results,
    runs,
    trained_models,
)
from lary_orch.run.cleaning import latents as latent_stores
from lary_orch.workspace import Workspace


@click.command()
@option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@option("--envs", is_flag=True, help="Environments of the process runtime too.")
@option("--cache", "caches", is_flag=True, help="What was cached: hashes, `describe` of images.")
@option("--runs", "all_runs", is_flag=True, help="Jobs, logs and results of all runs; asks first.")
@option("--stores", "keys", multiple=True, metavar="KEY", help="Latents of a dataset or model; repeatable; asks first.")
@option("--trained", "recipes", multiple=True, metavar="RECIPE", help="Models of a recipe or key; repeatable; asks.")
@option(
    "--results",
    "scored",
    multiple=True,
    metavar="MODEL|RUN",
    shell_complete=completing.results,
    help="Results of a model or run; repeatable; asks first.",
)
@option("--all", "everything", is_flag=True, help="All of these, all latents, models and the demo sets; asks first.")
@option("--yes", is_flag=True, help="Do not ask.")
@workspace_options
def command(
    workspace: Workspace,
    dry_run: bool,
    envs: bool,
    caches: bool,
    all_runs: bool,
    keys: tuple[str, ...],
    recipes: tuple[str, ...],
    scored: tuple[str, ...],
    everything: bool,
    yes: bool,
) -> None:
    """Remove what the bench left behind.

    By itself: containers and processes of dead runs, and files that were never finished. Datasets and
    weights are never touched.

    \b
    lary-orch clean --dry-run
    lary-orch clean --stores calvin
    lary-orch clean --results frame-diff
    """
    if not dry_run:
        _sweep(workspace)
    looks: list[tuple[Callable[[Workspace], Iterable[Target]], object]] = [
        (leftovers, True),
        (environments, envs),
        (cache, caches),
        (demo_sets, None),
        (runs, all_runs),
        (partial(latent_stores, keys=None if everything else keys), keys),
        (partial(results, names=scored), scored),
        (partial(trained_models, names=None if everything else recipes), recipes),
    ]
    found = chain.from_iterable(look(workspace) for look, chosen in looks if chosen or everything)
    targets = list(_outermost({target.path: target for target in found}))
    expensive = [target for target in targets if target.expensive]
    if expensive and not (yes or dry_run):
        _confirm(expensive)
    _remove(targets, dry_run=dry_run)


def _sweep(workspace: Workspace) -> None:
    from lary_orch.runtimes.choose import local, local_names

    lines = []
    for name in reversed(local_names()):
        try:
            lines += local(name, workspace).sweep()
        except ContractError as error:
            what = "containers" if name == "docker" else f"jobs of runtime {name}"
            lines.append(f"{what} are not looked for: {str(error).splitlines()[0]}")
    for line in lines:
        click.echo(line)


def _outermost(targets: dict[Path, Target]) -> Iterator[Target]:
    """Without what goes with a folder above it."""
    yield from (t for t in targets.values() if not any(parent in targets for parent in t.path.parents))


def _confirm(targets: list[Target]) -> None:
    from lary_terminal.tables import size_text

    for target in targets:
        click.echo(f"{target.path} ({size_text(target.size)}): {target.why}")
    click.confirm(f"Remove these {len(targets)}? They cost time to make again", abort=True)


def _remove(targets: list[Target], *, dry_run: bool) -> None:
    from lary_terminal.tables import size_text

    freed = 0
    for target in targets:
        size = target.size if dry_run else remove(target)
        click.echo(f"{'would remove' if dry_run else 'removed'} {target.path} ({size_text(size)}): {target.why}")
        freed += size
    click.echo(f"{len(targets)} in all, {size_text(freed)}" if targets else "nothing to remove")
