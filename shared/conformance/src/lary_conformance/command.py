"""`lary-orch conformance`: is this image what the bench expects?"""

import sys
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from lary_orch.catalog.cards import Catalog
from lary_orch.cli.options import catalog_options, json_option, option, workspace_options
from lary_orch.workspace import Workspace
from lary_schema.printable import json_text

if TYPE_CHECKING:
    from lary_orch.catalog.source import ImageSource
    from lary_orch.runtimes.base import LocalRuntime
    from lary_schema.training import Recipe

    from lary_conformance.case import Verdict
    from lary_conformance.subject import Subject


@click.command()
@click.argument("image")
@option("-m", "--model", "models", multiple=True, help="This model or policy alone; repeatable [all].")
@option(
    "-r",
    "--recipe",
    "recipes",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="FILE of what it is to train; repeatable [those in the image's folder `recipes`].",
)
@option("--runtime", help="[process for a folder, else docker]")
@option("--env", "environment", type=click.Choice(["own", "current"]), default="own", help="Of the process runtime.")
@option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="What jobs compute on.")
@catalog_options
@workspace_options
@json_option
def command(
    image: str,
    models: tuple[str, ...],
    recipes: tuple[Path, ...],
    runtime: str | None,
    environment: str,
    device: str,
    catalog: Catalog,
    workspace: Workspace,
    as_json: bool,
) -> None:
    """Check any image against the contract.

    IMAGE is an image of the catalog, a container reference, or the folder an image is made from. It gets
    tiny clips and images made on the spot. Models whose weights are not on this disk are skipped, saying so.
    An image that trains is given recipes of seconds: each is trained about five times. A policy is shown pictures
    of nothing, as a benchmark of the catalog that it fits would show them. Exits with 1 where a check fails.

    \b
    lary-orch conformance baseline
    lary-orch conformance somebody/their-lam:1.2
    lary-orch conformance ./my-lam --runtime process
    """
    import tempfile

    from lary_orch.runtimes.devices import Device

    from lary_conformance.subject import open_subject

    chosen = runtime or ("process" if Path(image).is_dir() else "docker")
    ours, unknown_user = _runtimes(chosen, environment, workspace)
    found = _find(image, catalog)
    trained = _recipes(recipes, found)
    options = {
        "unknown_user": unknown_user, "chosen": models, "device": Device(device), "python": _python(workspace),
        "recipes": tuple(trained.values()), "starts": _starts(trained),
        "benchmarks": tuple(card for _, source in catalog.images for card in source.card.benchmarks),
    }  # fmt: skip
    # What an unknown user has written in a container may not be ours to remove.
    with tempfile.TemporaryDirectory(prefix="lary-conformance-", ignore_cleanup_errors=True) as folder:
        verdicts = _shown(open_subject(ours, found, Path(folder), workspace.weights, **options), as_json)
    sys.exit(any(verdict.state == "failed" for verdict in verdicts))


def _shown(subject: "Subject", as_json: bool) -> "list[Verdict]":
    """Examine an image, and print each verdict as it comes, or all at the end."""
    from lary_conformance import examine

    verdicts = []
    for verdict in examine(subject):
        verdicts.append(verdict)
        if not as_json:
            _show(verdict)
    click.echo(json_text([asdict(verdict) for verdict in verdicts], indent=2) if as_json else _summary(verdicts))
    return verdicts


def _python(workspace: Workspace) -> Path:
    from lary_orch.runtimes.generated import demo_python

    return demo_python(workspace, partial(click.echo, err=True))


def _find(image: str, catalog: Catalog) -> "ImageSource | str":
    """What the catalog knows, or the reference as it was given."""
    from lary_orch.runtimes.images import reference

    folder = Path(image).absolute()
    known = [source for _, source in catalog.images]
    if folder.is_dir() and folder not in [source.folder for source in known]:
        known = [source for _, source in Catalog.load([folder]).images]
    for source in known:
        if image in (source.card.name, reference(source.card)) or source.folder == folder:
            return source
    return image


def _recipes(files: tuple[Path, ...], image: "ImageSource | str") -> "dict[Path, Recipe]":
    """Those that were given, else those in the folder of an image, in the order of their names."""
    from lary_schema.training import Recipe

    from lary_conformance.subject import STARTS

    if not files and not isinstance(image, str) and image.folder is not None:
        files = tuple(sorted(path for path in image.folder.glob("recipes/*") if path.suffix in (".yaml", ".yml")))
    return {file: Recipe.load(file) for file in files if file.name != STARTS}


def _starts(files: "Iterable[Path]") -> dict[str, str]:
    """What `starts.yaml` next to recipes says: recipe -> the one whose checkpoint it goes on from."""
    from lary_schema.yaml_files import read_yaml

    from lary_conformance.subject import STARTS, Starts

    found: dict[str, str] = {}
    for path in sorted({file.parent / STARTS for file in files}):
        if path.is_file():
            found |= Starts.parse(read_yaml(path), str(path)).starts
    return found


def _runtimes(name: str, environment: str, workspace: Workspace) -> "tuple[LocalRuntime, LocalRuntime | None]":
    from lary_orch.runtimes.choose import local

    from lary_conformance.isolation import UNKNOWN_USER

    runtime = local(name, workspace, environment)
    return runtime, runtime.as_user(*UNKNOWN_USER)


def _show(verdict: "Verdict") -> None:
    first, *more = verdict.message.splitlines() or [""]
    click.echo(f"{verdict.state:8} {verdict.check:16} {verdict.of:36} {first}")
    for line in more:
        click.echo(f"{'':8} | {line}")
    if verdict.remedy:
        click.echo(f"{'':8} -> {verdict.remedy}")


def _summary(verdicts: "list[Verdict]") -> str:
    return ", ".join(f"{sum(v.state == state for v in verdicts)} {state}" for state in ("ok", "failed", "skipped"))
