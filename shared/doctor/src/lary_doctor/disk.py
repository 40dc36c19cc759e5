"""Is there room for the latents, and for what is made at first use?"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lary_demo
from lary_orch.catalog.cards import repository
from lary_orch.catalog.source import ImageSource
from lary_orch.catalog.splits import find_split
from lary_orch.runtimes.environments import MARKER, Checkout, make_recipe, torch_source
from lary_schema.base import ContractError
from lary_schema.package_sources import with_pip_files
from lary_schema.store.layout import row_bytes
from lary_terminal.tables import size_text

from lary_doctor.check import Context, Finding

NAME = "disk"
MARGIN = 1.1
"""Shard indices, checksums and results come on top of the latents."""
LITTLE = 5 << 30
LEAST = 64 << 20
"""Jobs, logs and results of a small run, and room for drafts."""
ENVIRONMENT, ONE_MORE = 1229 << 20, 145 << 20
"""Measured, with torch's CPU build (one for GPUs takes several times as much): of `baseline`, whose files uv links from
its cache, and what `probe` adds to it. On another volume than the cache each is a whole one."""
DEMO_SETS = {"demo_arm_long": 233 << 20}
DEMO_SET = 16 << 20
"""Measured: the largest, and more than any other."""


class Need(NamedTuple):
    """Bytes that will be written below a folder."""

    what: str
    folder: Path
    bytes: int


def run(context: Context) -> Finding:
    workspace = context.workspace
    latents, unknown = needed_bytes(context)
    needs = [
        Need("latents", workspace.latents, latents),
        *_environments(context),
        *_demo_sets(context),
        Need("jobs and results", workspace.root, LEAST),
    ]
    volumes: dict[int, list[Need]] = {}
    for need in needs:
        volumes.setdefault(nearest_existing(need.folder).stat().st_dev, []).append(need)
    findings = [_volume(found, named=bool(context.models and context.datasets)) for found in volumes.values()]
    left_out = f"; {', '.join(unknown)} not counted" if unknown else ""
    status = next(one.status for one in sorted(findings, key=lambda one: ("fail", "warn", "ok").index(one.status)))
    remedies = dict.fromkeys(finding.remedy for finding in findings if finding.remedy)
    return Finding(status, "; ".join(finding.message for finding in findings) + left_out, "; ".join(remedies))


def _volume(needs: list[Need], *, named: bool) -> Finding:
    """`named`: whether models and datasets are, so that what latents take is known."""
    folder = needs[0].folder
    free, needed = shutil.disk_usage(nearest_existing(folder)).free, sum(need.bytes for need in needs)
    parts = ", ".join(f"{size_text(need.bytes)} {need.what}" for need in needs if need.bytes)
    message = f"{size_text(free)} free in {folder}"
    if needed:
        message += f", at least {size_text(needed)} needed ({parts})"
    for_latents = any(need.what == "latents" for need in needs)
    if for_latents and not named:
        message += "; name models and datasets to compare"
    options = "--latents or LARY_LA_DIR" if for_latents else "--workspace or LARY_HOME"
    remedy = f"free the disk, or choose another volume by {options}"
    if needed > free:
        return Finding("fail", message, remedy)
    if named and needed * MARGIN > free:
        return Finding("warn", f"{message}: tight", remedy)
    return Finding("warn", message, remedy) if not named and free < LITTLE else Finding("ok", message)


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


def _environments(context: Context) -> Iterator[Need]:
    """Those of the chosen models and of probes that are still to be made."""
    by_process = context.runtime == "process" or (context.runtime == "auto" and isinstance(context.engine, str))
    if not (by_process and context.models):
        return
    folder = context.workspace.envs
    sources = {source.card.name: source for source in (*map(context.catalog.image_for, context.models),)}
    wanted = [_environment(source, folder) for source in (*sources.values(), context.catalog.probe())]
    missing = [path for path in dict.fromkeys(wanted) if path is not None and not (path / MARKER).is_file()]
    if missing:
        first = ONE_MORE if any(folder.glob(f"*/{MARKER}")) and _links(folder) else ENVIRONMENT
        rest = ONE_MORE if _links(folder) else ENVIRONMENT
        yield Need(f"{len(missing)} environments", folder, first + rest * (len(missing) - 1))


def _environment(source: ImageSource, folder: Path) -> Path | None:
    """Where an image's environment belongs; None for one that is a container alone."""
    try:
        return folder / make_recipe(source, Checkout(repository()), torch_source(with_pip_files(os.environ))).name
    except ContractError:
        return None


def _links(folder: Path) -> bool:
    """Whether uv's cache is on the volume, so that environments share their files."""
    cache = Path(os.environ.get("UV_CACHE_DIR") or Path.home() / ".cache/uv")
    return nearest_existing(folder).stat().st_dev == nearest_existing(cache).stat().st_dev


def _demo_sets(context: Context) -> Iterator[Need]:
    folder = context.workspace.generated
    names = {card.generator for card in map(context.catalog.dataset, context.datasets) if card.generator is not None}
    missing = [name for name in sorted(names) if not lary_demo.is_complete(folder / name)]
    if missing:
        yield Need(f"demo sets ({', '.join(missing)})", folder, sum(DEMO_SETS.get(name, DEMO_SET) for name in missing))
