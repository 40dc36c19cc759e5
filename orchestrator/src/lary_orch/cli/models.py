"""`lary-orch models`: what the catalog has, and whether its weights are here."""

import sys
from collections.abc import Iterator
from typing import Any

import click
from lary_schema.cards import ModelCard
from lary_schema.printable import json_text
from lary_schema.trained import Checkpoint

from lary_orch.catalog.cards import Catalog, shown_key
from lary_orch.catalog.source import ImageSource
from lary_orch.cli import completing
from lary_orch.cli.options import catalog_options, json_option, option, workspace_options
from lary_orch.workspace import Workspace


@click.command()
@click.argument("key", required=False, shell_complete=completing.models)
@option("--trained", is_flag=True, help="Those that were trained in this workspace, and nothing else.")
@workspace_options
@catalog_options
@json_option
def command(key: str | None, trained: bool, workspace: Workspace, catalog: Catalog, as_json: bool) -> None:
    """List the models and what they need.

    With KEY, all about that one. Reads the catalog's cards alone: no image is built and no weight is hashed.
    Tokens are T x N x D: time steps, tokens per step, width. Published scores are top-1 in percent and MSE.

    \b
    lary-orch models
    lary-orch models vjepa2
    lary-orch models --catalog ~/my-models --json
    lary-orch models --trained
    """
    from lary_results.listings import model_page, models_table
    from lary_results.trained import trained_rows, trained_table
    from lary_terminal.tables import show

    if key is not None:
        found: Any = _one(key, catalog, workspace)
    else:
        found = list(trained_rows(workspace.trained) if trained else rows(catalog, workspace))
    if as_json:
        click.echo(json_text(found, indent=2))
    elif key is not None:
        show(model_page(found), sys.stdout)
    else:
        show(trained_table(found, workspace.trained) if trained else models_table(found), sys.stdout)


def _one(key: str, catalog: Catalog, workspace: Workspace) -> dict[str, Any]:
    """Of a model that was trained here, what stands in its checkpoint; of any other key what its card says."""
    checkpoint = Checkpoint.of(workspace.trained, key)
    if not checkpoint.is_whole:
        return _record(catalog.image_for(key), catalog.model_card(key), workspace, key)
    own = {"key": key, "pattern": None, "example": None, "weights": checkpoint.further_weights}
    source = catalog.image(checkpoint.card.image)
    return _record(source, checkpoint.card.card.model_copy(update=own), workspace, key)


def rows(catalog: Catalog, workspace: Workspace) -> Iterator[dict[str, Any]]:
    """One record per model card."""
    from lary_orch.weights.index import keys_found

    for source, card in catalog.models():
        yield _record(source, card, workspace)
        yield from (_record(source, card, workspace, key) for key in keys_found(card, workspace.weights))


def _record(source: ImageSource, card: ModelCard, workspace: Workspace, key: str | None = None) -> dict[str, Any]:
    """`key` is one of a family."""
    from lary_results.listings import model_facts

    from lary_orch.weights.index import how_to_get, is_needed, weight_path, weights_at, without_own

    specs = without_own(card).weights if key is None else weights_at(card, key) or card.weights
    paths = [(spec, weight_path(spec, workspace.weights)) for spec in specs]
    name = shown_key(card) if key is None else key
    return {
        **model_facts(card),
        "name": name,
        "image": source.card.name,
        "weights": [
            {
                "name": spec.name,
                "path": str(path),
                "found": path.exists(),
                "needed": is_needed(spec),
                "license": spec.license,
                "how": how_to_get(spec, path, name),
            }
            for spec, path in paths
        ],
        "card": source.card.ref or str(source.folder),
    }
