"""All that a training reads besides weights: its splits, their frames by decode processes, actions and texts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from lary_schema.base import ContractError
from lary_schema.cards import TensorSpec, VideoColumns
from lary_schema.mounts import Mounts
from lary_schema.training import Recipe, TrainData, TrainJob
from lary_worker.pool import PoolConfig
from numpy.typing import NDArray

from lary_trainer.frames import NoFrames, PairReader, Pairs
from lary_trainer.order import Order, Rows, Wanted, part
from lary_trainer.registry import find_trainee, model_card
from lary_trainer.rows import Split, Standardise, Targets
from lary_trainer.trainee import Batch, Facts
from lary_trainer.world import World


class Labels(NamedTuple):
    """Whose labels are seen."""

    rows: int = 0
    groups: int = 0
    sha256: str | None = None


@dataclass
class SplitInput:
    """Rows of one split, ready to be read."""

    name: str
    rows: Rows
    reader: PairReader | NoFrames
    targets: Targets
    order: Callable[[], Order]
    """A new one: the pool's thread and the loop go through their own."""
    groups: Callable[[], list[str]]
    """Of all rows of the CSV; empty where it has none."""

    def batches(self, start: int, stop: int, rank: int, processes: int) -> Iterator[Pairs]:
        """One process's part of every step's batch."""

        def plan() -> Iterator[Wanted]:
            return (part(wanted, rank, processes) for wanted in self.order().batches(start, stop))

        return self.reader.read(plan)

    @property
    def batch_size(self) -> int:
        return self.order().size

    def in_order(self) -> Iterator[Pairs]:
        return self.reader.read(lambda: self.order().in_order())

    def batch(self, seed: int, step: int, rows: Rows, frames: torch.Tensor) -> Batch:
        """What a trainee gets, on the device of `frames`."""
        actions = self.targets.actions_of(rows)
        device = frames.device
        return Batch(
            seed=seed,
            step=step,
            rows=rows,
            frames=frames,
            actions=None if actions is None else torch.from_numpy(actions).to(device),
            labelled=None if actions is None else torch.from_numpy(np.isfinite(actions).all((1, 2))).to(device),
            text=self.targets.texts_of(rows),
            latents={n: torch.from_numpy(values).to(device) for n, values in self.targets.latents_of(rows).items()},
        )


@dataclass
class Inputs:
    """Of one training."""

    job: TrainJob
    train: SplitInput
    held_out: SplitInput | None
    facts: Facts
    labels: Labels
    device: torch.device
    world: World

    @property
    def splits(self) -> tuple[SplitInput, ...]:
        return (self.train,) if self.held_out is None else (self.train, self.held_out)

    def on_device(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        tensor = torch.from_numpy(frames)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def train_batch(self, pairs: Pairs) -> Batch:
        return self.train.batch(self.job.values.seed, pairs.step, pairs.rows, self.on_device(pairs.frames))

    def whole(self, batch: Batch, counts: Sequence[int]) -> Batch:
        """The batch of all processes."""
        if self.world.size == 1:
            return batch
        rows = self.world.gather(torch.from_numpy(batch.rows).to(self.device), counts).cpu().numpy()
        return self.train.batch(batch.seed, batch.step, rows, self.world.gather(batch.frames, counts))

    def held_out_batches(self, step: int) -> Iterator[Batch]:
        assert self.held_out is not None
        for pairs in self.held_out.in_order():
            frames = self.on_device(pairs.frames)
            if len(pairs.rows):
                yield self.held_out.batch(self.job.values.seed, step, pairs.rows, frames)


def open_inputs(job: TrainJob, mounts: Mounts, device: torch.device, world: World, beat: Callable[[], None]) -> Inputs:
    """Read the CSVs, draw the labelled share, read its labels. Raises ContractError saying what does not fit."""
    values = job.values
    reads = _Reads.of(values.recipe)
    _require_names(job, reads.actions)
    split = Split(values.data, job.source, mounts, media=reads.frames, latents=bool(reads.latents))
    rows, known, labels = _labelled(job, split, reads)
    seen = split.actions(known) if reads.actions else None
    standardise = None if seen is None else Standardise(seen)
    chunks = None if seen is None else _among(rows, known, seen)
    targets = _targets(split, rows, reads, standardise, chunks)
    facts = Facts(
        len(rows),
        None if chunks is None else (chunks.shape[1], chunks.shape[2]),
        tuple(sorted({word for text in targets.texts for word in text.split()})),
        None if standardise is None else standardise.facts,
        values.data.latents if reads.latents else None,
    )
    train = _input(job, split, rows, targets, reads, beat)
    held_out = None
    if values.held_out is not None and job.held_out is not None:
        other = Split(values.held_out, job.held_out, mounts, media=reads.frames, latents=bool(reads.latents))
        chunks = None if standardise is None else other.actions(other.rows)
        targets = _targets(other, other.rows, reads, standardise, chunks)
        held_out = _input(job, other, other.rows, targets, reads, beat)
    return Inputs(job, train, held_out, facts, labels, device, world)


def _labelled(job: TrainJob, split: Split, reads: "_Reads") -> tuple[Rows, Rows, Labels]:
    """The rows that are trained on, those whose labels may be seen, and how many these are."""
    labelled = job.values.labelled
    if labelled is None:
        return split.rows, split.rows, Labels()
    share = find_trainee(job.values.recipe).label_share(job.values.recipe) if reads.actions else None
    if share is not None and share > labelled.share:
        raise ContractError(
            f"recipe {job.values.recipe.key}: sees the labels of {share:g} of all groups, and the job allows "
            f"{labelled.share:g}; give a labelled share of {share:g} or more"
        )
    known, groups = split.labelled(labelled if share is None else labelled.model_copy(update={"share": share}))
    labels = Labels(len(known), len(groups.names), groups.sha256) if reads.actions else Labels()
    return known if share is None else split.rows, known, labels


def _among(rows: Rows, known: Rows, chunks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Action chunks of `rows`: those of `known`, NaN elsewhere."""
    if len(rows) == len(known):
        return chunks
    result = np.full((len(rows), *chunks.shape[1:]), np.nan)
    result[np.searchsorted(rows, known)] = chunks
    return result


class _Reads(NamedTuple):
    """What a recipe's trainee reads of the rows."""

    frames: bool
    actions: bool
    texts: bool
    latents: tuple[str, ...]

    @classmethod
    def of(cls, recipe: Recipe) -> "_Reads":
        trainee = find_trainee(recipe)
        return cls(
            trainee.reads_frames(recipe),
            trainee.supervision(recipe) != "none",
            trainee.reads_text(recipe),
            trainee.reads_latents(recipe),
        )


def _targets(
    split: Split,
    rows: Rows,
    reads: _Reads,
    standardise: Standardise | None,
    chunks: NDArray[np.float64] | None,
) -> Targets:
    """What goes with the frames of rows."""
    return Targets(
        {row: position for position, row in enumerate(rows.tolist())},
        None if standardise is None or chunks is None else standardise(chunks),
        split.texts(rows) if reads.texts else (),
        split.latents(rows, reads.latents) if reads.latents else {},
    )


def _require_names(job: TrainJob, supervised: bool) -> None:
    values = job.values
    if supervised and values.labelled is None:
        raise ContractError(
            f"recipe {values.recipe.key} reads action labels and the job names no labelled share; give one"
        )
    if values.held_out is not None and values.held_out.split in ("train", values.data.split):
        raise ContractError(
            f"held-out split {values.held_out.split!r}: its measures would be taken for those of training; give a "
            "split of another name"
        )


def _input(
    job: TrainJob, split: Split, rows: Rows, targets: Targets, reads: _Reads, beat: Callable[[], None]
) -> SplitInput:
    recipe, seed = job.values.recipe, job.values.seed
    pairs = _pairs_of_a_row(job, split.data) if reads.frames else 1
    ram = job.ram_bytes // 2 if job.values.held_out is not None else job.ram_bytes
    reader: PairReader | NoFrames = NoFrames()
    if reads.frames:
        reader = PairReader(split.tasks_of(rows), _pool(job, split.data, len(rows), pairs), ram, beat)
    order = partial(Order, seed, rows, recipe.batch_size, pairs)
    return SplitInput(split.data.split, rows, reader, targets, order, split.groups)


def _pairs_of_a_row(job: TrainJob, data: TrainData) -> int:
    recipe = job.values.recipe
    if not isinstance(data.columns, VideoColumns):
        if recipe.dt is not None:
            raise ContractError(
                f"recipe {recipe.key}: dt is for clips, and the CSV of {data.dataset} gives image pairs; leave dt out"
            )
        return 1
    if recipe.dt is None:
        raise ContractError(f"recipe {recipe.key}: {data.dataset} has clips, so dt must say how far apart frames are")
    if recipe.dt >= data.frames:
        raise ContractError(
            f"recipe {recipe.key}: dt {recipe.dt} reaches beyond every clip of {data.dataset}, which has {data.frames} "
            f"sampled frames; choose {data.frames - 1} or less"
        )
    return data.frames - recipe.dt


def _pool(job: TrainJob, data: TrainData, rows: int, pairs: int) -> PoolConfig:
    recipe = job.values.recipe
    workers = max(1, job.workers // job.processes)
    batch = -(-recipe.batch_size // job.processes)
    return PoolConfig(
        key=recipe.key,
        settings={
            "recipe": recipe.model_dump(mode="json"),
            "rows": rows,
            "seed": job.values.seed,
            "dt": recipe.dt or 1,
            "mode": data.columns.input,
            "decoder": job.values.decoder,
        },
        spec=TensorSpec(shape=(pairs, 2, *_frame_shape(job)), dtype="uint8"),
        workers=workers,
        row_timeout_s=job.row_timeout_s,
        slots=max(3 * batch, batch + 2 * workers),
        module="lary_trainer.child",
    )


def _frame_shape(job: TrainJob) -> tuple[int, ...]:
    """Height, width and colours of a preprocessed frame, as the trained model's card says."""
    for spec in model_card(job.values.recipe).modes.values():
        if spec.input.dtype == "uint8" and len(spec.input.shape) == 4:
            return spec.input.shape[1:]
    raise ContractError(
        f"recipe {job.values.recipe.key}: its card has no mode with input uint8 (frames, height, width, 3), so the "
        "size of what `preprocess` gives is unknown"
    )
