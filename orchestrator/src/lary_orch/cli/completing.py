"""What a shell offers for keys and runs. A catalog or workspace that cannot be read offers nothing."""

from collections.abc import Iterable

import click
from lary_schema.base import ContractError
from lary_schema.jobs import IMPORTED

from lary_orch.catalog.cards import Catalog
from lary_orch.workspace import Workspace


def models(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Keys of the catalog, of folders below the weights root, and of what was trained here."""
    return _after_commas(typed, _models(context))


def datasets(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Keys of the catalog."""
    return _after_commas(typed, (card.key for _, card in _catalog(context).datasets))


def variants(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Of the models that were named, or of all."""
    wanted = set(context.params.get("models") or ())
    cards = [card for _, card in _catalog(context).models() if not wanted or any(map(card.serves, wanted))]
    return _after_commas(typed, (variant for card in cards for variant in (*card.variants, IMPORTED)))


def results(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Models and runs that have results."""
    folder = _workspace(context).results
    return _after_commas(typed, (path.name for pattern in ("*", "*/*") for path in folder.glob(pattern)))


def runs_with_results(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    return _after_commas(typed, (path.name for path in _workspace(context).results.glob("*")))


def runs(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """Names of planned runs."""
    return _after_commas(typed, (path.parent.name for path in _workspace(context).runs.glob("*/plan.json")))


def _models(context: click.Context) -> Iterable[str]:
    from lary_orch.weights.index import keys_found

    workspace = _workspace(context)
    for _, card in _catalog(context).models():
        yield from [card.key] if card.pattern is None else keys_found(card, workspace.weights)
    yield from (path.name for path in workspace.trained.glob("*"))


def _catalog(context: click.Context) -> Catalog:
    try:
        return Catalog.load(context.params.get("catalog_folders") or ())
    except ContractError:
        return Catalog((), ())


def _workspace(context: click.Context) -> Workspace:
    return Workspace.locate(context.params.get("root"), weights=context.params.get("weights_dir"))


def _after_commas(typed: str, names: Iterable[str]) -> list[str]:
    """The names that go on from what stands after the last comma."""
    before, comma, begun = typed.rpartition(",")
    return sorted(f"{before}{comma}{name}" for name in set(names) if name.startswith(begun))
