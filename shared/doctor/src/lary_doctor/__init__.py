"""`lary-orch doctor`: one check per file, behind one interface (`check.Check`)."""

import importlib
from collections.abc import Iterator
from typing import cast

from lary_orch.runtimes.plugins import plugin

from lary_doctor import (
    datasets,
    disk,
    driver,
    engine,
    gpu,
    images,
    leftovers,
    mounts,
    python,
    renderer,
    shm,
    uv,
    weights,
)
from lary_doctor.check import Check, Context, Finding

CHECKS: tuple[Check, ...] = (
    *(python, uv, engine, images, gpu, driver, renderer),
    *(disk, mounts, shm, weights, datasets, leftovers),
)


def examine(context: Context) -> Iterator[tuple[str, Finding]]:
    """The checks' names and findings, in order: those of any machine, then the wanted runtime's own."""
    own = plugin(context.runtime).checks if context.runtime != "auto" else ()
    checks = (*CHECKS, *(cast(Check, importlib.import_module(name)) for name in own))
    yield from ((check.NAME, check.run(context)) for check in checks)
