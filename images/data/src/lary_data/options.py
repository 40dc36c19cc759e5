"""Options that several tools have."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from lary_schema.option_types import SECONDS, FiniteRange

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

workers_option: Decorator = click.option(
    "--workers", type=click.IntRange(min=1), default=len(os.sched_getaffinity(0)), show_default="one per core",
    help="Processes side by side.",
)  # fmt: skip
max_failed_option: Decorator = click.option(
    "--max-failed", type=FiniteRange(0, 1), default=0.0, show_default=True,
    help="Share of failures up to which the exit code is 0.",
)  # fmt: skip


def timeout_option(default: float) -> Decorator:
    """How long one file may take, in seconds."""
    return click.option(
        "--timeout", type=SECONDS, default=default, show_default=True,
        help="Seconds that one file may take; then it is given up.",
    )  # fmt: skip


def action_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Hands over `dataset`, `splits`, `csvs`, `max_missing` and `workers` of a tool that reads action files."""
    for option in reversed(_ACTION_OPTIONS):
        function = option(function)
    return function


_ACTION_OPTIONS: list[Decorator] = [
    click.option("-d", "--dataset", required=True, help="Dataset key."),
    click.option("--split", "splits", multiple=True, help="Split; repeatable."),
    click.option(
        "--csv", "csvs", type=click.Path(dir_okay=False, path_type=Path), multiple=True,
        help="CSV instead of the split's; repeatable, needs one --split.",
    ),
    click.option(
        "--max-missing", type=FiniteRange(0, 1), default=0.0, show_default=True,
        help="Tolerated share of files that are not there.",
    ),
    click.option(
        "--workers", type=click.IntRange(min=1), default=8, show_default=True, help="Files read at once.",
    ),
]  # fmt: skip
