"""`lary-orch weights`: list, verify, fetch, convert."""

import sys
from pathlib import Path
from typing import Any

import click
from lary_schema.base import ContractError, ExitCode
from lary_schema.printable import json_text

from lary_orch.catalog.cards import Catalog
from lary_orch.cli.options import catalog_options, environment_option, json_option, option, workspace_options
from lary_orch.weights.files import Weight
from lary_orch.workspace import Workspace

CONVERTER = "frame-diff"
"""A model of the smallest image that has torch."""


@click.group()
def command() -> None:
    """List, verify and fetch weights.

    A weight is looked for at its variable's path (DINO_V2_PATH, ...) where that is set, else below the
    weights root.

    \b
    lary-orch weights ls
    lary-orch weights fetch vjepa2 --weights-dir /mnt/weights
    lary-orch weights verify
    """


_models = click.argument("models", nargs=-1, metavar="[MODEL]...")


@command.command()
@_models
@workspace_options
@catalog_options
@json_option
def ls(models: tuple[str, ...], workspace: Workspace, catalog: Catalog, as_json: bool) -> None:
    """List the files that models need, and where they are looked for."""
    from lary_results.listings import weight_cells
    from lary_terminal.tables import Table, show

    from lary_orch.weights.files import chosen_cards, list_weights

    found = [_record(weight) for weight in list_weights(chosen_cards(catalog, models), workspace.weights)]
    if as_json:
        click.echo(json_text(found, indent=2))
        return
    columns = ("models", "weight", "path", "size", "licence", "how to get it")
    show(
        Table(f"weights ({workspace.weights})", columns, [weight_cells(row) for row in found], frozenset({3})),
        sys.stdout,
    )


@command.command()
@_models
@workspace_options
@catalog_options
@json_option
def verify(models: tuple[str, ...], workspace: Workspace, catalog: Catalog, as_json: bool) -> None:
    """Read the weights and compare their hashes.

    Exits with 4 where a weight is bad, or one of a named model is missing.
    """
    from lary_orch.weights.files import chosen_cards, list_weights
    from lary_orch.weights.files import verify as look

    states = []
    missing = False
    for weight in list_weights(chosen_cards(catalog, models), workspace.weights):
        state, why = look(weight, workspace.cache)
        states.append(state)
        missing = missing or (state == "missing" and weight.needed)
        if as_json:
            record = {"path": str(weight.path), "models": weight.models, "state": state, "why": why}
            click.echo(json_text(record))
        else:
            click.echo(f"{state:8} {weight.path}: {why}")
    if "bad" in states or (models and missing):
        sys.exit(ExitCode.WEIGHTS)


@command.command()
@_models
@option("--all", "everything", is_flag=True, help="The weights of all models.")
@option("--repo", metavar="OWNER/NAME", help="Repository of one model's folder, where its card names none (hf-NAME).")
@option("--revision", help="Commit, tag or branch of the repository [the card's, else its newest commit].")
@workspace_options
@catalog_options
def fetch(
    models: tuple[str, ...],
    everything: bool,
    repo: str | None,
    revision: str | None,
    workspace: Workspace,
    catalog: Catalog,
) -> None:
    """Fetch missing weights: from the hub, at one commit, or from a plain address.

    The hub needs the extra `lary-orch[hub]`. HF_TOKEN opens gated repositories that your account was let
    into, HF_ENDPOINT names a mirror. An interrupted download goes on by the same command. Exits with 4 where
    one could not be had; the others are fetched all the same.
    """
    from lary_orch.weights.files import chosen_cards, fetchable, from_repo, list_weights

    if bool(models) == everything or (repo and len(models) != 1):
        raise click.UsageError("name the models, or say --all; with --repo, name one")
    weights = from_repo(list_weights(chosen_cards(catalog, models), workspace.weights), repo)
    wanted = fetchable(weights)
    problems = [f"{w.path}: {w.how}" for w in weights if w.needed and not w.found and w not in wanted]
    for weight in wanted:
        problems += _fetch_one(weight, revision)
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    counted = [weight.found for weight in weights if weight.found or weight.needed]
    click.echo(f"{sum(counted)} of {len(counted)} weights are here")
    if problems:
        sys.exit(ExitCode.WEIGHTS)


@command.command()
@click.argument("source", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@option("--entry", help="Keys under which SOURCE keeps its tensors (`model`, `ckpt.ema`) [its largest set of them].")
@option("--i-trust-this-file", "trusted", is_flag=True, help="Required: SOURCE is unpickled, with nothing imported.")
@option(
    "--runtime",
    type=click.Choice(["auto", "process", "docker"]),
    default="auto",
    help="Where SOURCE is unpickled: auto takes a container where an engine is reachable and the image is built.",
)
@environment_option
@workspace_options
@catalog_options
def convert(
    source: Path,
    target: Path,
    entry: str | None,
    trusted: bool,
    runtime: str,
    environment: str,
    workspace: Workspace,
    catalog: Catalog,
) -> None:
    """Write a checkpoint that holds pickled objects as safetensors, once.

    The tensors of SOURCE go to TARGET under their names; what else was in it is listed. Where several sets of
    tensors may be the network, they are named, and --entry chooses. Exits with 4 for a file that is no such
    checkpoint, or holds a tensor that cannot be written. A container sees SOURCE and an empty folder, and no
    network.
    """
    from lary_orch.runtimes.choose import open_runtime
    from lary_orch.runtimes.plugins import Wanted
    from lary_orch.weights.convert import Conversion, summary
    from lary_orch.weights.convert import convert as convert_file

    def notify(line: str) -> None:
        click.echo(line, err=True)

    if not trusted:
        raise ContractError(f"{source}: would be unpickled; if you trust it, say so with --i-trust-this-file")
    image = catalog.image_for(CONVERTER)
    wanted = Wanted(runtime, environment, device="cpu", cpu_slots=1)
    chosen, _ = open_runtime(wanted, workspace, [image], notify)
    options = ["--i-trust-this-file", *(["--entry", entry] if entry else [])]
    reply = convert_file(Conversion(source, target, tuple(options)), image, chosen, notify)
    click.echo(reply, nl=False)
    notify(summary(reply))


def _fetch_one(weight: Weight, revision: str | None) -> list[str]:
    from lary_orch.weights.fetch import fetch as fetch_from_hub
    from lary_orch.weights.url import fetch_url

    def notify(line: str) -> None:
        click.echo(line, err=True)

    try:
        if weight.spec.url is not None:
            fetch_url(weight.spec, weight.path, notify)
        else:
            fetch_from_hub(weight.spec, weight.path, notify, revision)
    except ContractError as error:
        return [str(error)]
    return []


def _record(weight: Weight) -> dict[str, Any]:
    spec = weight.spec
    return {
        "models": list(weight.models),
        "name": spec.name,
        "path": str(weight.path),
        "variable": spec.env,
        "found": weight.found,
        "bytes": weight.size,
        "license": spec.license,
        "repo": spec.repo,
        "url": spec.url,
        "needed": weight.needed,
        "gated": spec.gated,
        "how": weight.how,
    }
