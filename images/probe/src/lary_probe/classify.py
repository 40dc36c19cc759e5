"""The classification probe: what is done?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from lary_schema.base import ContractError
from lary_schema.cards import ClassifyRecipe, ProtocolCard
from lary_schema.results import EpochScore, Holdout, SplitScore
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lary_probe.attentive import AttentiveClassifier
from lary_probe.classify_outputs import write_outputs
from lary_probe.data import Evaluated, ProbeData, check_holdout, parts_of, save_row_scores
from lary_probe.groups import Groups
from lary_probe.labels import class_ids, class_names, labels_of, most_frequent, own_names
from lary_probe.learning import learned_classes
from lary_probe.outputs import Outputs
from lary_probe.sampling import balanced_order, holdout_stratified, shuffled_order
from lary_probe.scoring import confusion, macro_recall
from lary_probe.selection import EVALUATED, Track, chosen_note, head_name, selector_of, split_score
from lary_probe.session import Session
from lary_probe.streams import Streams
from lary_probe.targets import target_codes, targets_sha256
from lary_probe.trackers import epoch_scalars, open_log
from lary_probe.training import EpochOutput, Head, Part, Plan, cosine, make_head, train, weights_of


@dataclass
class Classification:
    """What the probe found."""

    classes: tuple[str, ...]
    splits: dict[str, SplitScore]
    targets_sha256: str
    learned: bool
    holdout: Holdout | None


def classify(session: Session, data: ProbeData, outputs: Outputs) -> Classification:
    """Train for every seed, score every evaluated split, write the outputs but `result.json`."""
    job = session.job
    assert job.labels is not None
    classes = class_names(data.train_metadata, job.labels)
    targets, evaluated, labels_sha256 = _read_targets(session, data, job.labels.column, classes)
    _warn_of_unlearnable(session, classes, targets)
    held = _held_out(job.protocol, data.train_groups, targets, job.protocol.seeds[0])
    session.start(len(targets) - (0 if held is None else int(held.sum())), job.protocol.classify)
    holdout = check_holdout(session, held, data.train_groups)
    tracks: dict[str, list[Track]] = {split.name: [] for split in evaluated}
    weights, learned = [], []
    for seed in job.protocol.seeds:
        found = _Training(session, data, evaluated, classes, seed).run(targets, tracks)
        weights.append(found.weights)
        learned.append(found.learned)
    session.alive("scoring, and drawing the pictures")
    frequent = classes.index(most_frequent(data.train_metadata, job.labels.column))
    hits = {s.name: [(t.predicted == s.targets).astype(float) for t in tracks[s.name]] for s in evaluated}
    splits = {
        split.name: split_score(
            job,
            tracks[split.name],
            hits[split.name],
            split.groups,
            split.latents.count,
            floor=float((split.targets == frequent).mean()),
            chance=1 / len(classes),
        )
        for split in evaluated
    }
    if session.accelerator.is_main_process:
        train_codes = target_codes([row.get(job.labels.column) for row in data.train_metadata])
        for split in evaluated:
            save_row_scores(outputs, split, job.protocol.seeds, hits[split.name], train_codes)
        write_outputs(session, outputs, evaluated, {name: seeds[0] for name, seeds in tracks.items()}, classes)
        outputs.weights(weights[0], {"classes": classes, "recipe": job.protocol.classify.model_dump(mode="json")})
    return Classification(classes, splits, labels_sha256, all(learned), holdout)


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


def make_plan(recipe: ClassifyRecipe, targets: NDArray[np.int64], streams: Streams) -> Plan:
    """How the heads are trained on rows with these class ids."""

    def order(epoch: int, size: int) -> NDArray[np.int64]:
        if recipe.balanced:
            return balanced_order(targets, size, streams.order(epoch))
        return shuffled_order(len(targets), size, streams.order(epoch))

    return Plan(
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        schedule=cosine,
        loss=partial(functional.cross_entropy, label_smoothing=recipe.label_smoothing),
        row_loss=partial(functional.cross_entropy, label_smoothing=recipe.label_smoothing, reduction="none"),
        read_out=partial(torch.argmax, dim=-1),
        order=order,
        bf16=recipe.autocast == "bf16",
        skip_non_finite=True,
    )


def _held_out(
    protocol: ProtocolCard, groups: Groups, targets: NDArray[np.int64], seed: int
) -> NDArray[np.bool_] | None:
    if protocol.select_on != "holdout":
        return None
    return holdout_stratified(targets, protocol.holdout, Streams(seed, protocol.streams).holdout(), groups.declared)


class _Found(NamedTuple):
    weights: dict[str, Tensor]
    """Chosen for the first evaluated split."""
    learned: bool


class _Training:
    """One seed's training, scored after each epoch on every evaluated split."""

    def __init__(
        self, session: Session, data: ProbeData, evaluated: list[Evaluated], classes: Sequence[str], seed: int
    ) -> None:
        self.session, self.data, self.evaluated, self.classes = session, data, evaluated, classes
        self.job, self.recipe = session.job, session.job.protocol.classify
        self.streams = Streams(seed, self.job.protocol.streams)
        self.tracks = {split.name: Track(seed, higher_is_better=True) for split in evaluated}

    def run(self, targets: NDArray[np.int64], tracks: dict[str, list[Track]]) -> _Found:
        """Train on `targets` (n,) of train's rows; adds a track per split to `tracks`."""
        seed, first = self.streams.seed, self.evaluated[0].name
        if self.job.control == "shuffled":
            targets = np.random.default_rng(self.streams.control()).permutation(targets)
        held = _held_out(self.job.protocol, self.data.train_groups, targets, seed)
        fit, parts = parts_of(self.data.train, targets, held, self.evaluated)
        self.streams.start_torch()
        heads = make_heads(self.session, self.data.train.shape, len(self.classes))
        weights: dict[str, Tensor] = {}
        train_scores: list[NDArray[np.float64]] = []
        with open_log(self.session, seed) as log:
            for output in train(self.session, heads, make_plan(self.recipe, fit.targets, self.streams), fit, parts):
                train_scores.append(output.train)
                better = self._add_epoch(output, parts)
                chosen = self.tracks[first].scores[-1]
                if first in better:
                    weights = weights_of(heads[chosen.optimiser or 0])
                self.session.progress(
                    f"seed {seed} epoch {output.epoch}/{self.recipe.epochs} {first} {chosen.value:.3f}"
                )
                log(output.epoch, epoch_scalars(self.job, self.tracks, heads))
        self.session.progress(chosen_note(self.job, self.tracks))
        for name, track in self.tracks.items():
            tracks[name].append(track)
        return _Found(weights, self._learned(train_scores, fit.targets))

    def _add_epoch(self, output: EpochOutput, parts: dict[str, Part]) -> set[str]:
        """Score one epoch on each evaluated split; those whose best epoch it is so far."""
        finite = self._finite_heads(output)
        better = set()
        for name, track in self.tracks.items():
            selector, part = selector_of(self.job, name), EVALUATED + name
            selection = (output.predicted[selector] == parts[selector].targets).mean(axis=1)  # (heads,)
            # The best share of hits; the smaller loss where several have it; then the head that is named first.
            chosen = min(finite, key=lambda head: (-selection[head], output.losses[selector][head]))
            truth, predicted = parts[part].targets, output.predicted[part]
            values = np.where(np.isin(np.arange(len(predicted)), finite), (predicted == truth).mean(axis=1), np.nan)
            score = EpochScore(
                epoch=output.epoch,
                value=float(values[chosen]),
                selection=float(selection[chosen]),
                loss=float(output.losses[selector][chosen]),
                macro=macro_recall(confusion(truth, predicted[chosen], len(self.classes))),
                optimiser=chosen,
            )
            if track.add(score, float(output.train[chosen]), predicted[chosen], tuple(values.tolist())):
                better.add(name)
        return better

    def _finite_heads(self, output: EpochOutput) -> list[int]:
        """Heads whose outputs are finite on every row. Warns of the others once; ContractError where there is none."""
        usable = np.all([np.isfinite(loss) for loss in output.losses.values()], axis=0)
        lost = np.flatnonzero(~usable).tolist()
        where = f"in epoch {output.epoch} of seed {self.streams.seed}"
        if not usable.any():
            raise ContractError(
                f"training diverged {where}: the outputs of every head are not finite "
                f"({', '.join(head_name(self.job, head) for head in lost)}); take a protocol with a smaller lr"
            )
        known = next(iter(self.tracks.values())).diverged
        for head in lost:
            if head not in known:
                self.session.warn(
                    f"{head_name(self.job, head)} diverged {where}: its outputs are not finite, so it is not chosen"
                )
        for track in self.tracks.values():
            track.diverged.update(lost)
        return np.flatnonzero(usable).tolist()

    def _learned(self, scores: list[NDArray[np.float64]], labels: NDArray[np.int64]) -> bool:
        learned = learned_classes(scores, len(labels), labels, self.recipe.balanced)
        if not learned and self.job.control == "none":
            self.session.warn(
                f"seed {self.streams.seed}: the training score stayed at chance in all {len(scores)} epochs for every "
                "head: the probe learned nothing, which may be the protocol's fault and not the latents'; take more "
                "epochs, other learning rates or a wider probe"
            )
        return learned


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
    for (latents, metadata), groups, own, numbers in zip(
        data.evaluated, data.evaluated_groups, labels[1:], ids[1:], strict=True
    ):
        _warn_of_shifted(session, latents.name, own, numbers, classes)
        evaluated.append(Evaluated(latents, metadata, groups, numbers, target_codes(own)))
    return ids[0], evaluated, targets_sha256(labels)


def _warn_of_unlearnable(session: Session, classes: tuple[str, ...], targets: NDArray[np.int64]) -> None:
    absent = [name for index, name in enumerate(classes) if not (targets == index).any()]
    if absent:
        session.warn(f"no row with a latent in train for {len(absent)} classes: {', '.join(absent[:5])}")


def _warn_of_shifted(
    session: Session, split: str, labels: Sequence[str], ids: NDArray[np.int64], classes: Sequence[str]
) -> None:
    """Numbering each split by its own labels is LARYBench's fault; the warning counts the rows that it changes."""
    shifted = sum(classes[index] != label for label, index in zip(labels, ids.tolist(), strict=True))
    if shifted:
        session.warn(
            f"class_ids per-split: {shifted} of {len(labels)} rows of {split} carry another class's id than in train; "
            "their score is LARYBench's"
        )
