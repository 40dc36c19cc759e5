"""What the regression probe predicts in each split: actions or their change, standardised."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from lary_schema.base import ContractError
from lary_schema.cards import Actions
from numpy.typing import NDArray

from lary_probe.actions import Chunks, read_chunks, relative_actions, standardised
from lary_probe.data import Evaluated, ProbeData
from lary_probe.kept_actions import KeptActions, Part
from lary_probe.latents import Latents
from lary_probe.metadata import SplitMetadata
from lary_probe.regress_heads import Shape
from lary_probe.scales import Scales, make_scales, robot_types
from lary_probe.session import Session
from lary_probe.targets import Codes, target_codes, targets_sha256


@dataclass(frozen=True)
class Target(Evaluated):
    """One split that is reported; `targets` are (n, steps * dim)."""

    unknown_robots: dict[str, int]
    """Rows by robot type without statistics."""


@dataclass(frozen=True)
class Targets:
    """Standardised actions of every split."""

    train: NDArray[np.float32]
    """(n, steps * dim) of the rows with a latent."""
    mean: NDArray[np.float64]
    """(steps * dim,) over train's whole CSV: the baseline of every model, whichever rows it failed on."""
    evaluated: list[Target]
    shape: Shape
    scales: Scales
    codes: Codes
    """Of the chunks of train's whole CSV."""
    sha256: str
    """Of the chunks as read, whatever is made of them."""


def read_targets(session: Session, data: ProbeData, actions: Actions) -> Targets:
    """Read each split's action files once: of train all, of the others those of rows with a latent.

    Statistics are of train's whole CSV, or models that fail on other rows would be scored in other units. Raises
    ContractError naming file and row, or the robot types.
    """
    relative = session.job.protocol.regress.target == "relative"
    if relative and actions.stride < 2:
        raise ContractError(f"dataset {session.job.dataset}: chunks of one step have no relative target")
    normalisation = actions.relative if relative else actions.normalisation
    session.alive("reading action files")
    splits = [(data.train_metadata, np.arange(len(data.train_metadata)))]
    splits += [(metadata, latents.rows) for latents, metadata in data.evaluated]
    chunks = _read_all(session, actions, splits)
    session.alive("preparing targets")
    types = [robot_types(normalisation, metadata, rows) for metadata, rows in splits]
    steps = [relative_actions(each) if relative else each for each in chunks]
    scales = make_scales(normalisation, steps[0], types[0], session.mounts, session.job.stats_sha256)
    used = data.train.rows
    types_used = [[types[0][row] for row in used.tolist()], *types[1:]]
    unknown = _check_unknown(session, scales, data.splits, types_used)
    whole, *others = (standardised(s, scales.of(t)) for s, t in zip(steps, types, strict=True))
    known = [name in scales.by_type or session.job.allow_unknown_robot for name in types[0]]
    evaluated = [
        Target(latents, metadata, groups, values, target_codes(read), counts)
        for (latents, metadata), groups, values, read, counts in zip(
            data.evaluated, data.evaluated_groups, others, chunks[1:], unknown[1:], strict=True
        )
    ]
    return Targets(
        train=whole[used],
        mean=whole[known].mean(axis=0, dtype=np.float64),
        evaluated=evaluated,
        shape=Shape(steps[0].shape[1], actions.dim),
        scales=scales,
        codes=target_codes(chunks[0]),
        sha256=targets_sha256([chunks[0][used], *chunks[1:]]),
    )


def _read_all(
    session: Session, actions: Actions, splits: Sequence[tuple[SplitMetadata, NDArray[np.int64]]]
) -> list[Chunks]:
    """The chunks of rows of each split, train first."""
    *firsts, total = accumulate((len(metadata) for metadata, _ in splits), initial=0)
    with closing(KeptActions.of_job(total, (actions.stride, actions.dim))) as kept:
        chunks = [
            read_chunks(
                metadata, rows, actions, session.mounts, lambda: session.alive("reading action files"), kept, first
            )
            for (metadata, rows), first in zip(splits, firsts, strict=True)
        ]
        if session.accelerator.is_main_process:
            kept.write(
                [Part(first + rows, each) for (_, rows), each, first in zip(splits, chunks, firsts, strict=True)]
            )
    return chunks


def _check_unknown(
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
