"""`lary-orch doctor`: one check per file, behind one interface (`check.Check`)."""

from collections.abc import Iterator

from lary_slurm.checks import client, job, memory, partition

from lary_orch.doctor import (
    datasets,
    disk,
    engine,
    gpu,
    images,
    leftovers,
    mounts,
    python,
    shm,
    uv,
    weights,
)
from lary_orch.doctor.check import Check, Context, Finding

CHECKS: tuple[Check, ...] = (
    *(python, uv, engine, images, gpu),
    *(disk, mounts, shm, weights, datasets, leftovers),
)
CLUSTER: tuple[Check, ...] = (client, partition, memory, job)
"""Of the slurm runtime alone."""


def examine(context: Context) -> Iterator[tuple[str, Finding]]:
    """The checks' names and findings, in order."""
    checks = (*CHECKS, *CLUSTER) if context.runtime == "slurm" else CHECKS
    yield from ((check.NAME, check.run(context)) for check in checks)
