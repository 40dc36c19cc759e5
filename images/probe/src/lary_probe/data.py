"""All that a probe reads, opened and checked before the first step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lary_schema.jobs import ProbeJob
from lary_schema.launch import local_processes
from lary_schema.mounts import Mounts
from lary_schema.results import Holdout, StoreTrace
from numpy.typing import NDArray

from lary_probe.groups import Groups, groups_of
from lary_probe.latents import Latents, load_within, open_latents
from lary_probe.metadata import SplitMetadata
from lary_probe.outputs import Outputs
from lary_probe.sampling import FEW_GROUPS, FEW_ROWS
from lary_probe.selection import EVALUATED, HOLDOUT
from lary_probe.session import Session
from lary_probe.targets import Codes, target_codes
from lary_probe.training import Part


@dataclass
class ProbeData:
    """The splits of a job, before their targets are known."""

    train: Latents
    train_metadata: SplitMetadata
    train_groups: Groups
    evaluated: list[tuple[Latents, SplitMetadata]]
    evaluated_groups: list[Groups]
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
    groups: Groups
    targets: NDArray[Any]
    """(n,) class ids, or (n, out) float32."""
    codes: Codes
    """Of the targets as read."""

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
    metadata = [SplitMetadata(split, mounts.job, _columns(job), _robot_columns(job)) for split in splits]
    groups = [groups_of(own, opened, job.group) for own, opened in zip(metadata, latents, strict=True)]
    load_within(latents, job.ram_bytes // local_processes(), tick)
    return ProbeData(
        train=latents[0],
        train_metadata=metadata[0],
        train_groups=groups[0],
        evaluated=list(zip(latents[1:], metadata[1:], strict=True)),
        evaluated_groups=groups[1:],
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


def check_holdout(session: Session, held: NDArray[np.bool_] | None, groups: Groups) -> Holdout | None:
    """The size of a hold-out for the result; warns of one that is too small to choose by."""
    if held is None:
        return None
    rows = int(held.sum())
    if groups.names is None:
        found, few = Holdout(rows=rows), rows < FEW_ROWS
        what = f"{rows} held-out rows, fewer than {FEW_ROWS}"
    else:
        count = len(np.unique(groups.codes[held]))
        found, few = Holdout(rows=rows, groups=count), rows < FEW_ROWS or count < FEW_GROUPS
        what = f"{rows} held-out rows of {count} groups, fewer than {FEW_ROWS} or {FEW_GROUPS}"
    if few:
        session.warn(f"{what}: epoch and head are chosen by few rows, so another seed may choose others")
    return found


def save_row_scores(
    outputs: Outputs, split: Evaluated, seeds: Sequence[int], per_row: Sequence[NDArray[np.float64]], train: Codes
) -> None:
    """`row_scores_SPLIT.npz`: what a paired comparison with another result of the same rows needs.

    `row` (n,) int64 in the CSV; `group` (n,) int64 codes, the row where rows are taken as independent; `group_names`
    (groups,) by code; `seed` (s,) int64; `score` (s, n) float64, hits or squared errors (mean over the row's values)
    at the epoch and head that `result.json` reports; `target` (n,) uint64 and `train_target` (1,) uint64, hashes of the
    rows' targets and of those of train's whole CSV.
    """
    groups = split.groups
    outputs.arrays(
        f"row_scores_{split.name}.npz",
        row=split.latents.rows.astype(np.int64),
        group=split.latents.rows.astype(np.int64) if groups.names is None else groups.codes,
        group_names=np.array(groups.names or (), dtype=np.str_),
        seed=np.array(seeds, np.int64),
        score=np.stack(per_row).astype(np.float64),
        target=split.codes,
        train_target=target_codes(train[None]),
    )


def _columns(job: ProbeJob) -> tuple[str, ...]:
    target = job.labels or job.actions
    assert target is not None
    return (target.column,) if job.group is None else (target.column, job.group.column)


def _robot_columns(job: ProbeJob) -> set[str]:
    """Needed where statistics are by robot type, which says so itself."""
    return set() if job.actions is None else {n.robot_column for n in (job.actions.normalisation, job.actions.relative)}
