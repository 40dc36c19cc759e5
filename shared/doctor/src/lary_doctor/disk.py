"""Is there room for the latents?"""

import shutil
from pathlib import Path

from lary_orch.catalog.splits import find_split
from lary_schema.base import ContractError
from lary_schema.store.layout import row_bytes
from lary_terminal.tables import size_text

from lary_doctor.check import Context, Finding

NAME = "disk"
MARGIN = 1.1
"""Shard indices, checksums and results come on top of the latents."""
LITTLE = 5 << 30


def run(context: Context) -> Finding:
    free = shutil.disk_usage(nearest_existing(context.workspace.latents)).free
    message = f"{size_text(free)} free for latents ({context.workspace.latents})"
    remedy = "free the disk, or choose another volume by --latents or LARY_LA_DIR"
    if not (context.models and context.datasets):
        message += "; name models and datasets to compare"
        return Finding("warn", message, remedy) if free < LITTLE else Finding("ok", message)
    needed, unknown = needed_bytes(context)
    message += f", {size_text(needed)} needed at most"
    if unknown:
        message += f", {', '.join(unknown)} not counted"
    if needed > free:
        return Finding("fail", message, remedy)
    if needed * MARGIN > free:
        return Finding("warn", f"{message}: tight", remedy)
    return Finding("ok", message)


def nearest_existing(path: Path) -> Path:
    """The folder itself, or the one that it would be made in."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def needed_bytes(context: Context) -> tuple[int, list[str]]:
    """Bytes of all stores of the chosen models and datasets by their cards, in float16; what could not be counted."""
    total, unknown = 0, []
    for key in context.datasets:
        card = context.catalog.dataset(key)
        try:
            rows = sum(find_split(card, split, context.workspace).rows for split in card.splits.all)
            total += rows * sum(_row_bytes(context, model, key) for model in context.models)
        except ContractError:
            unknown.append(key)
    return total, unknown


def _row_bytes(context: Context, model: str, dataset: str) -> int:
    card = context.catalog.model_card(model)
    return row_bytes(card.spec(context.catalog.dataset(dataset).mode, card.variants[0]), "float16")
