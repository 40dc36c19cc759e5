"""The classification probe: what is done?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from lary_schema.base import ContractError
from lary_schema.cards import ClassifyRecipe, ProtocolCard
from lary_schema.results import EpochScore, SplitScore
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lary_probe.attentive import AttentiveClassifier
from lary_probe.classify_outputs import write_outputs
from lary_probe.data import Evaluated, ProbeData, parts_of
from lary_probe.labels import class_ids, class_names, labels_of, own_names
from lary_probe.outputs import Outputs
from lary_probe.sampling import balanced_order, holdout_stratified, shuffled_order
from lary_probe.scoring import confusion, macro_recall
from lary_probe.selection import EVALUATED, Track, chosen_note, judge_of, split_score
from lary_probe.session import Session
from lary_probe.targets import targets_sha256
from lary_probe.trackers import epoch_scalars, open_log
from lary_probe.training import EpochOutput, Head, Part, Plan, cosine, make_head, train, weights_of


@dataclass
class Classification:
    """What the probe found."""

    classes: tuple[str, ...]
    splits: dict[str, SplitScore]
    targets_sha256: str


def classify(session: Session, data: ProbeData, outputs: Outputs) -> Classification:
    """Train for every seed, score every evaluated split, write the outputs but `result.json`."""
    job = session.job
    assert job.labels is not None
    classes = class_names(data.train_metadata, job.labels)
    targets, evaluated, labels_sha256 = _read_targets(session, data, job.labels.column, classes)
    _warn_of_unlearnable(session, classes, targets)
    held = _held_out(job.protocol, targets, job.protocol.seeds[0])
    session.start(len(targets) - (0 if held is None else int(held.sum())), job.protocol.classify)
    tracks: dict[str, list[Track]] = {split.name: [] for split in evaluated}
    for seed in job.protocol.seeds:
        weights = _run_seed(session, data, targets, evaluated, len(classes), tracks, seed)
        if seed == job.protocol.seeds[0]:
            kept = weights
    splits = {split.name: _score(session, split, tracks[split.name], targets, len(classes)) for split in evaluated}
    if session.accelerator.is_main_process:
        write_outputs(outputs, job, evaluated, {name: seeds[0] for name, seeds in tracks.items()}, classes)
        outputs.weights(kept, {"classes": classes, "recipe": job.protocol.classify.model_dump(mode="json")})
    return Classification(classes, splits, labels_sha256)


def make_heads(session: Session, shape: tuple[int, ...], classes: int) -> list[Head]:
    """One attentive classifier per (lr, weight decay), each with its own random start. `shape` is a row's."""
    recipe = session.job.protocol.classify
    if recipe.width % recipe.heads:
        raise ContractError(
            f"protocol {session.job.protocol.key}: width {recipe.width} is no multiple of {recipe.heads} heads"
        )
    return [
        make_head(
            session,
            AttentiveClassifier(
                shape[-1],
                classes,
                width=recipe.width,
                depth=recipe.depth,
                heads=recipe.heads,
                time_axis=len(shape) == 3,
            ),
            lr,
            weight_decay,
        )
        for lr, weight_decay in recipe.optimisers
    ]


def make_plan(recipe: ClassifyRecipe, targets: NDArray[np.int64], seed: int) -> Plan:
    """How the heads are trained on rows with these class ids."""

    def order(epoch: int, size: int) -> NDArray[np.int64]:
        if recipe.balanced:
            return balanced_order(targets, size, seed + epoch)
        return shuffled_order(len(targets), size, seed + epoch)

    return Plan(
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        schedule=cosine,
        loss=partial(functional.cross_entropy, label_smoothing=recipe.label_smoothing),
        read_out=partial(torch.argmax, dim=-1),
        order=order,
        bf16=recipe.autocast == "bf16",
    )


def _held_out(protocol: ProtocolCard, targets: NDArray[np.int64], seed: int) -> NDArray[np.bool_] | None:
    return holdout_stratified(targets, protocol.holdout, seed) if protocol.select_on == "holdout" else None


def _run_seed(
    session: Session,
    data: ProbeData,
    targets: NDArray[np.int64],
    evaluated: list[Evaluated],
    classes: int,
    tracks: dict[str, list[Track]],
    seed: int,
) -> dict[str, Tensor]:
    """Train and score one seed, adding a track per split; the weights chosen for the first split."""
    job, recipe = session.job, session.job.protocol.classify
    if job.control == "shuffled":
        targets = np.random.default_rng(seed).permutation(targets)
    fit, parts = parts_of(data.train, targets, _held_out(job.protocol, targets, seed), evaluated)
    torch.manual_seed(seed)
    heads = make_heads(session, data.train.shape, classes)
    mine = {split.name: Track(seed, higher_is_better=True) for split in evaluated}
    weights: dict[str, Tensor] = {}
    with open_log(session, seed) as log:
        for output in train(session, heads, make_plan(recipe, fit.targets, seed), fit, parts):
            for index, split in enumerate(evaluated):
                better = _add_epoch(mine[split.name], output, split.name, judge_of(job, split.name), parts, classes)
                if better and index == 0:
                    weights = weights_of(heads[mine[split.name].chosen.optimiser or 0])
            first = mine[evaluated[0].name].scores[-1]
            session.progress(f"seed {seed} epoch {output.epoch}/{recipe.epochs} {evaluated[0].name} {first.value:.3f}")
            log(output.epoch, epoch_scalars(job, mine, heads))
    session.progress(chosen_note(job, mine))
    for name, track in mine.items():
        tracks[name].append(track)
    return weights


def _add_epoch(track: Track, output: EpochOutput, split: str, judge: str, parts: dict[str, Part], classes: int) -> bool:
    name = EVALUATED + split
    selection = (output.predicted[judge] == parts[judge].targets).mean(axis=1)  # (heads,)
    chosen = int(selection.argmax())
    truth, predicted = parts[name].targets, output.predicted[name]
    values = (predicted == truth).mean(axis=1)
    score = EpochScore(
        epoch=output.epoch,
        value=float(values[chosen]),
        selection=float(selection[chosen]),
        macro=macro_recall(confusion(truth, predicted[chosen], classes)),
        optimiser=chosen,
    )
    return track.add(score, float(output.train[chosen]), predicted[chosen], tuple(values.tolist()))


def _score(
    session: Session, split: Evaluated, tracks: list[Track], train: NDArray[np.int64], classes: int
) -> SplitScore:
    frequent = int(np.bincount(train, minlength=classes).argmax())
    return split_score(
        session.job,
        tracks,
        [(track.predicted == split.targets).astype(float) for track in tracks],
        split.latents.count,
        floor=float((split.targets == frequent).mean()),
        chance=1 / classes,
    )


def _read_targets(
    session: Session, data: ProbeData, column: str, classes: tuple[str, ...]
) -> tuple[NDArray[np.int64], list[Evaluated], str]:
    """Train's class ids, the evaluated splits with theirs, and the hash of all labels."""
    labels = [labels_of(metadata, latents, column) for latents, metadata in data.splits]
    per_split = session.job.protocol.class_ids == "per-split"
    ids = [
        class_ids(metadata, latents, own, own_names(metadata, column) if per_split else classes, len(classes))
        for (latents, metadata), own in zip(data.splits, labels, strict=True)
    ]
    evaluated = []
    for (latents, metadata), own, numbers in zip(data.splits[1:], labels[1:], ids[1:], strict=True):
        _warn_of_shifted(session, latents.name, own, numbers, classes)
        evaluated.append(Evaluated(latents, metadata, numbers))
    return ids[0], evaluated, targets_sha256(labels)


def _warn_of_unlearnable(session: Session, classes: tuple[str, ...], targets: NDArray[np.int64]) -> None:
    absent = [name for index, name in enumerate(classes) if not (targets == index).any()]
    if absent:
        session.warn(f"no row with a latent in train for {len(absent)} classes: {', '.join(absent[:5])}")


def _warn_of_shifted(
    session: Session, split: str, labels: Sequence[str], ids: NDArray[np.int64], classes: Sequence[str]
) -> None:
    """Numbering each split by its own labels is LARYBench's fault; how much it does is said."""
    shifted = sum(classes[index] != label for label, index in zip(labels, ids.tolist(), strict=True))
    if shifted:
        session.warn(
            f"class_ids per-split: {shifted} of {len(labels)} rows of {split} carry another class's id than in train; "
            "their score is LARYBench's"
        )
