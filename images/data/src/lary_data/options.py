"""Options that several tools have."""

import os
from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

workers_option: Decorator = click.option(
    "--workers", type=click.IntRange(min=1), default=len(os.sched_getaffinity(0)), show_default="one per core",
    help="Processes side by side.",
)  # fmt: skip
max_failed_option: Decorator = click.option(
    "--max-failed", type=click.FloatRange(0, 1), default=0.0, show_default=True,
    help="Share of failures up to which the exit code is 0.",
)  # fmt: skip


def timeout_option(default: float) -> Decorator:
    """How long one file may take, in seconds."""
    return click.option(
        "--timeout", type=click.FloatRange(min=0, min_open=True), default=default, show_default=True,
        help="Seconds that one file may take; then it is given up.",
    )  # fmt: skip
