"""Options that `train` and `study` share."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import click
from lary_orch.catalog.cards import Catalog
from lary_orch.cli.options import FOLDER, option, together
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.signals import exit_at_sigterm
from lary_schema.commands import CATALOG, naming
from lary_schema.option_types import SECONDS, FiniteRange

from lary_study.trainings import WORKERS, Settings

Function = Callable[..., Any]

_SETTINGS = together(
    [
        option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", help="Of the arithmetic."),
        option("--decoder", type=click.Choice(["pyav", "decord"]), default="pyav", help="Video reader."),
        option("--workers", type=click.IntRange(1), help="Decode processes per training [2, where it has 2 cores]."),
        option("--row-timeout", type=SECONDS, default=60.0, help="Seconds for one row."),
        option("--stall-timeout", type=SECONDS, default=600.0, help="Seconds without progress."),
        option("--max-failed", type=FiniteRange(0, 1), default=0.01, help="Tolerated share of failed rows."),
        option("--save-every", type=click.IntRange(1), default=100, help="Steps between two states."),
        option("--evaluate-every", type=click.IntRange(1), default=100, help="Steps between held-out measures."),
        option("--micro-batch", type=click.IntRange(1), help="Rows of one forward pass [the batch]."),
        option("--train-processes", "processes", type=click.IntRange(1), default=1, help="That share each batch."),
        option("--keep-states", is_flag=True, help="Leave the states of finished trainings."),
        option("--strict-health", is_flag=True, help="A collapsed codebook ends the training."),
    ]
)


def settings_options(function: Function) -> Function:
    """Hands over `settings: Settings`; device and threads are `on_slots`'. SIGTERM ends the command in order."""

    @functools.wraps(function)
    def decided(*args: Any, row_timeout: float, stall_timeout: float, workers: int | None, **given: Any) -> Any:
        exit_at_sigterm()
        names = (set(Settings.__dataclass_fields__) - {"device", "threads"}) & given.keys()
        taken = {name: given.pop(name) for name in names}
        settings = Settings(row_timeout_s=row_timeout, stall_timeout_s=stall_timeout, workers=workers, **taken)
        return function(*args, settings=settings, **given)

    return _SETTINGS(decided)


def on_slots(settings: Settings, slots: list[Slot]) -> Settings:
    """The same for what these slots have."""
    cpus = slots[0].cpus
    # Each decode process takes as long to start as it takes for hundreds of pairs.
    workers = settings.workers or (WORKERS if cpus is None else min(cpus, WORKERS))
    device: Literal["cpu", "cuda"] = "cuda" if slots[0].device.kind == "cuda" else "cpu"
    return replace(settings, device=device, threads=cpus, workers=workers)


def folders_options(function: Function) -> Function:
    """Hands over `catalog: Catalog` and `folders`, its further folders."""

    @functools.wraps(function)
    def loaded(*args: Any, folders: tuple[Path, ...], **rest: Any) -> Any:
        with naming((CATALOG, folder) for folder in folders):
            return function(*args, catalog=Catalog.load(folders), folders=folders, **rest)

    return option(
        "--catalog",
        "folders",
        type=FOLDER,
        multiple=True,
        help="Folder of your own models, datasets, recipes/ and studies/; repeatable [and LARY_CATALOG].",
    )(loaded)
