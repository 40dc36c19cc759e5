"""What the regression probe predicts in each split: actions or their change, standardised."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from lary_schema.base import ContractError
from lary_schema.cards import Actions
from numpy.typing import NDArray

from lary_probe.actions import Chunks, read_chunks, relative_actions, standardised
from lary_probe.data import Evaluated, ProbeData
from lary_probe.latents import Latents
from lary_probe.metadata import SplitMetadata
from lary_probe.regress_heads import Shape
from lary_probe.scales import Scales, make_scales, robot_types
from lary_probe.session import Session
from lary_probe.targets import targets_sha256


@dataclass(frozen=True)
class Target(Evaluated):
    """One split that is reported; `targets` are (n, steps * dim)."""

    unknown_robots: dict[str, int]
    """Rows by robot type without statistics."""


@dataclass(frozen=True)
class Targets:
    """Standardised actions of every split."""

    train: NDArray[np.float32]
    """(n, steps * dim)."""
    evaluated: list[Target]
    shape: Shape
    scales: Scales
    sha256: str
    """Of the chunks as read, whatever is made of them."""


def read_targets(session: Session, data: ProbeData, actions: Actions) -> Targets:
    """Read each split's action files once. Raises ContractError naming file and row, or the robot types."""
    relative = session.job.protocol.regress.target == "relative"
    if relative and actions.stride < 2:
        raise ContractError(f"dataset {session.job.dataset}: chunks of one step have no relative target")
    normalisation = actions.relative if relative else actions.normalisation
    splits = [(data.train, data.train_metadata), *data.evaluated]
    chunks = [_chunks(session, latents, metadata, actions) for latents, metadata in splits]
    types = [robot_types(normalisation, metadata, latents) for latents, metadata in splits]
    steps = [relative_actions(each) if relative else each for each in chunks]
    scales = make_scales(normalisation, steps[0], types[0], session.mounts, session.job.stats_sha256)
    unknown = _judge_unknown(session, scales, splits, types)
    train, *others = (standardised(s, scales.of(t)) for s, t in zip(steps, types, strict=True))
    evaluated = [
        Target(latents, metadata, values, counts)
        for (latents, metadata), values, counts in zip(data.evaluated, others, unknown[1:], strict=True)
    ]
    return Targets(
        train=train,
        evaluated=evaluated,
        shape=Shape(steps[0].shape[1], actions.dim),
        scales=scales,
        sha256=targets_sha256(chunks),
    )


def _chunks(session: Session, latents: Latents, metadata: SplitMetadata, actions: Actions) -> Chunks:
    return read_chunks(metadata, latents, actions, session.mounts, lambda: session.alive("reading action files"))


def _judge_unknown(
    session: Session, scales: Scales, splits: Sequence[tuple[Latents, SplitMetadata]], types: Sequence[Sequence[str]]
) -> list[dict[str, int]]:
    """Each split's rows by robot type without statistics. Raises ContractError where the job does not allow any."""
    unknown = [scales.unknown(names) for names in types]
    found = [
        f"{name!r} ({metadata.path}: {count} rows, first row {latents.rows[names.index(name)]})"
        for (latents, metadata), names, counts in zip(splits, types, unknown, strict=True)
        for name, count in counts.items()
    ]
    if found and not session.job.allow_unknown_robot:
        raise ContractError(
            f"dataset {session.job.dataset}: robot types without statistics: {', '.join(found)}; {scales.source} has "
            f"{', '.join(scales.by_type)}. Add theirs, or run with --allow-unknown-robot: mean 0 and std 1 for them, "
            "as LARYBench does, and their rows are counted in the result"
        )
    if found:
        session.warn(f"mean 0 and std 1 for robot types without statistics: {', '.join(found)}")
    return unknown
