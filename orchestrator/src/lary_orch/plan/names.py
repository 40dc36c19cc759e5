"""What can be checked of a request from cards alone, before an environment, a demo set or a run's folder is made."""

import shutil
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from lary_schema.base import ContractError
from lary_schema.cards import DatasetCard, ModelCard
from lary_schema.jobs import IMPORTED
from lary_schema.store.layout import row_bytes
from lary_schema.trained import Checkpoint
from lary_terminal.tables import size_text

from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.splits import find_split, wanted_splits
from lary_orch.plan.jobs import Request
from lary_orch.runtimes.base import Notify
from lary_orch.weights.index import check_present
from lary_orch.workspace import Workspace

Found = TypeVar("Found")


def check_request(request: Request, catalog: Catalog, workspace: Workspace, notify: Notify) -> None:
    """Look at keys, variants and splits, at the presence of weights and CSVs, and at the room for new latents.

    What cannot be run of a request is said now, and left out by the planner, which does the rest. Raises ContractError
    with all of it where no model or no dataset is left, and where the latents that are to be made have no room.
    """
    trained = [key for key in request.models if Checkpoint.of(workspace.trained, key).is_whole]
    keys = [key for key in request.models if key not in trained] if request.extracts else []
    models, wrong = _each(keys, partial(_model, request, catalog, workspace))
    datasets, unusable = _each(request.datasets, partial(_rows, request, catalog, workspace))
    faults = wrong + unusable
    if faults and (not datasets or (request.extracts and not models and not trained)):
        raise type(faults[0])("\nerror: ".join(map(str, faults)))
    for fault in faults:
        notify(f"left out: {fault}")
    _check_room(_needed_bytes(request, workspace, models, list(datasets.values())), workspace)


def _each(keys: Iterable[str], look: Callable[[str], Found]) -> tuple[dict[str, Found], list[ContractError]]:
    """What a look at each key found, and what is wrong."""
    found: dict[str, Found] = {}
    faults: list[ContractError] = []
    for key in dict.fromkeys(keys):
        try:
            found[key] = look(key)
        except ContractError as error:
            faults.append(error)
    return found, faults


def variants_of(request: Request, card: ModelCard) -> tuple[str, ...]:
    """The requested variants that an image makes, or the model's default one."""
    wanted = dict.fromkeys(variant for variant in request.variants if variant != IMPORTED)
    return tuple(wanted) or card.variants[:1]


def check_variants(request: Request, card: ModelCard, key: str) -> None:
    """Raises ContractError for a requested variant that the model does not have."""
    unknown = [variant for variant in variants_of(request, card) if variant not in card.variants]
    if unknown:
        raise ContractError(
            f"model {key} has no variant {', '.join(map(repr, unknown))}; it has {', '.join(card.variants)}"
        )


def _model(request: Request, catalog: Catalog, workspace: Workspace, key: str) -> ModelCard:
    card = catalog.model_card(key)
    check_variants(request, card, key)
    check_present(card, key, workspace.weights)
    return card


def _rows(request: Request, catalog: Catalog, workspace: Workspace, key: str) -> tuple[DatasetCard, dict[str, int]]:
    """Rows of each split; of a set that is made at first use and is not there yet, nothing is known."""
    card = catalog.dataset(key)
    names = (card.splits.train, *wanted_splits(card, request.splits))
    try:
        return card, {split: find_split(card, split, workspace).source.metadata.rows for split in names}
    except ContractError:
        if card.generator is None:
            raise
        return card, {}


# --- room -------------------------------------------------------------------------------------


def _needed_bytes(
    request: Request,
    workspace: Workspace,
    models: dict[str, ModelCard],
    datasets: list[tuple[DatasetCard, dict[str, int]]],
) -> int:
    """Of latents that nothing was ever made of. What is there in part is not counted; cards of families neither."""
    total = 0
    for card, rows in datasets:
        for key, model in models.items():
            if model.pattern is None and card.mode in model.modes:
                new = sum(n for split, n in rows.items() if not (workspace.latents / card.key / split / key).exists())
                each = (
                    row_bytes(model.spec(card.mode, v), request.settings.dtype) for v in variants_of(request, model)
                )
                total += new * sum(each)
    return total


def _check_room(needed: int, workspace: Workspace) -> None:
    there = next(path for path in (workspace.latents, *workspace.latents.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise ContractError(
            f"{workspace.latents}: the latents take about {size_text(needed)}, and {size_text(free)} are free there; "
            "make room, choose another volume by --latents or LARY_LA_DIR, or request fewer models or datasets"
        )
