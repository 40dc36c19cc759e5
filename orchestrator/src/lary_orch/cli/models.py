"""`lary-orch models`: what the catalog has, and whether its weights are here."""

import sys
from collections.abc import Iterator
from typing import Any

import click
from lary_schema.printable import json_text

from lary_orch.catalog.cards import Catalog
from lary_orch.cli.options import catalog_options, json_option, option, workspace_options
from lary_orch.workspace import Workspace


@click.command()
@option("--trained", is_flag=True, help="Those that were trained in this workspace, and nothing else.")
@workspace_options
@catalog_options
@json_option
def command(trained: bool, workspace: Workspace, catalog: Catalog, as_json: bool) -> None:
    """List the models and what they need.

    Reads the catalog's cards alone: no image is built and no weight is hashed. Tokens are T x N x D:
    time steps, tokens per step, width. Published scores are top-1 in percent and MSE.

    \b
    lary-orch models
    lary-orch models --catalog ~/my-models --json
    lary-orch models --trained
    """
    from lary_results.trained import trained_rows, trained_table
    from lary_terminal.tables import Table, show

    found = list(trained_rows(workspace.trained) if trained else rows(catalog, workspace))
    if as_json:
        click.echo(json_text(found, indent=2))
        return
    if trained:
        show(trained_table(found, workspace.trained), sys.stdout)
        return
    columns = ("key", "image", "what it is", "tokens", "variants", "weights", "licence", "published")
    notes = ("How to get weights that are missing: `lary-orch weights ls`.",)
    show(Table("models", columns, [_cells(row) for row in found], notes=notes), sys.stdout)


def rows(catalog: Catalog, workspace: Workspace) -> Iterator[dict[str, Any]]:
    """One record per model card."""
    from lary_results.published import published_scores

    from lary_orch.weights.index import how_to_get, is_needed, weight_path

    for source, card in catalog.models():
        paths = [(spec, weight_path(spec, workspace.weights)) for spec in card.weights]
        yield {
            "key": card.key if card.pattern is None else card.pattern,
            "image": source.card.name,
            "title": card.title,
            "paradigm": card.paradigm,
            "tokens": {mode: list(spec.tokens) for mode, spec in card.modes.items()},
            "variants": list(card.variants),
            "weights": [
                {
                    "name": spec.name,
                    "path": str(path),
                    "found": path.exists(),
                    "needed": is_needed(spec),
                    "license": spec.license,
                    "how": how_to_get(spec, path),
                }
                for spec, path in paths
            ],
            "license": card.license,
            "source": card.source,
            "published": published_scores(card.key),
        }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    from lary_results.published import PRINTED_DIGITS

    return (
        row["key"],
        row["image"],
        row["title"],
        ", ".join(f"{mode} {'x'.join(map(str, shape))}" for mode, shape in row["tokens"].items()),
        ", ".join(row["variants"]),
        _weights(row["weights"]),
        row["license"],
        ", ".join(f"{name} {value:.{PRINTED_DIGITS}f}" for name, value in row["published"].items()) or "-",
    )


def _weights(weights: list[dict[str, Any]]) -> str:
    if not weights:
        return "needs none"
    shown = [weight for weight in weights if weight["found"] or weight["needed"]]
    return ", ".join(f"{w['name']} {'found' if w['found'] else 'missing'}" for w in shown)
