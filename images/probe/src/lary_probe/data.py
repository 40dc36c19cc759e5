"""All that a probe reads, opened and checked before the first step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lary_schema.jobs import ProbeJob
from lary_schema.mounts import Mounts
from lary_schema.results import StoreTrace
from numpy.typing import NDArray

from lary_probe.latents import Latents, load_within, open_latents
from lary_probe.launch import local_processes
from lary_probe.metadata import SplitMetadata
from lary_probe.selection import EVALUATED, HOLDOUT
from lary_probe.training import Part


@dataclass
class ProbeData:
    """The splits of a job, before their targets are known."""

    train: Latents
    train_metadata: SplitMetadata
    evaluated: list[tuple[Latents, SplitMetadata]]
    traces: tuple[StoreTrace, ...]

    @property
    def splits(self) -> list[tuple[Latents, SplitMetadata]]:
        """All of them, train first."""
        return [(self.train, self.train_metadata), *self.evaluated]


@dataclass(frozen=True)
class Evaluated:
    """One split that is reported."""

    latents: Latents
    metadata: SplitMetadata
    targets: NDArray[Any]
    """(n,) class ids, or (n, out) float32."""

    @property
    def name(self) -> str:
        return self.latents.name


def open_data(job: ProbeJob, mounts: Mounts, tick: Callable[[], None]) -> ProbeData:
    """Open stores and CSVs and load what fits into `job.ram_bytes`; `tick` is called now and then.

    The processes of this machine share `ram_bytes`.

    Raises ContractError where a store or a CSV is not what the job was planned for.
    """
    splits = (job.train, *job.evaluate)
    latents = [open_latents(split, mounts.latents, time_axis=job.time_axis) for split in splits]
    metadata = [SplitMetadata(split, mounts.job, (_column(job),)) for split in splits]
    load_within(latents, job.ram_bytes // local_processes(), tick)
    return ProbeData(
        train=latents[0],
        train_metadata=metadata[0],
        evaluated=list(zip(latents[1:], metadata[1:], strict=True)),
        traces=tuple(opened.trace(split.store.path) for opened, split in zip(latents, splits, strict=True)),
    )


def parts_of(
    train: Latents, targets: NDArray[Any], held: NDArray[np.bool_] | None, evaluated: Sequence[Evaluated]
) -> tuple[Part, dict[str, Part]]:
    """What is trained on, and what is predicted each epoch: the held-out rows (if any) and each split."""
    everything = np.arange(len(train))
    fitted = everything if held is None else np.flatnonzero(~held)
    parts = {EVALUATED + s.name: Part(s.latents, np.arange(len(s.latents)), s.targets) for s in evaluated}
    if held is not None:
        parts[HOLDOUT] = Part(train, np.flatnonzero(held), targets[held])
    return Part(train, fitted, targets[fitted]), parts


def split_folder(evaluated: Sequence[Evaluated], name: str) -> str:
    """Where a split's files lie in the out mount: in it where the split is alone, else in a folder."""
    return "" if len(evaluated) == 1 else f"{name}/"


def _column(job: ProbeJob) -> str:
    target = job.labels or job.actions
    assert target is not None
    return target.column
