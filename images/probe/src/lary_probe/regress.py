"""The regression probe: how is it done?"""

from dataclasses import dataclass

import numpy as np
import torch
from lary_schema.base import ContractError
from lary_schema.cards import Actions, ProtocolCard
from lary_schema.results import EpochScore, SplitScore
from numpy.typing import NDArray
from torch import Tensor

from lary_probe.data import ProbeData, parts_of
from lary_probe.outputs import Outputs
from lary_probe.regress_heads import make_head_of, make_plan
from lary_probe.regress_outputs import write_outputs
from lary_probe.regress_targets import Target, Targets, read_targets
from lary_probe.sampling import holdout_random
from lary_probe.scoring import r_squared
from lary_probe.selection import EVALUATED, Track, chosen_note, judge_of, split_score
from lary_probe.session import Session
from lary_probe.trackers import epoch_scalars, open_log
from lary_probe.training import EpochOutput, Part, train, weights_of


@dataclass(frozen=True)
class Regression:
    """What the probe found."""

    splits: dict[str, SplitScore]
    targets_sha256: str


def regress(session: Session, data: ProbeData, outputs: Outputs) -> Regression:
    """Train for every seed, score every evaluated split, write the outputs but `result.json`."""
    job = session.job
    assert job.actions is not None
    targets = read_targets(session, data, job.actions)
    held = _held_out(job.protocol, len(targets.train), job.protocol.seeds[0])
    session.start(len(targets.train) - (0 if held is None else int(held.sum())), job.protocol.regress)
    tracks: dict[str, list[Track]] = {split.name: [] for split in targets.evaluated}
    for seed in job.protocol.seeds:
        weights = _run_seed(session, data, targets, tracks, seed)
        if seed == job.protocol.seeds[0]:
            kept = weights
    mean = targets.train.mean(axis=0, dtype=np.float64)
    splits = {s.name: _score(session, job.actions, s, tracks[s.name], mean) for s in targets.evaluated}
    if session.accelerator.is_main_process:
        write_outputs(outputs, targets.evaluated, tracks, job.actions, session.mounts)
        facts = {"actions": job.actions.model_dump(mode="json"), "recipe": job.protocol.regress.model_dump(mode="json")}
        outputs.weights(kept, facts | {"shape": targets.shape, "scales": targets.scales.document()})
    return Regression(splits, targets.sha256)


def _held_out(protocol: ProtocolCard, rows: int, seed: int) -> NDArray[np.bool_] | None:
    return holdout_random(rows, protocol.holdout, seed) if protocol.select_on == "holdout" else None


def _run_seed(
    session: Session, data: ProbeData, targets: Targets, tracks: dict[str, list[Track]], seed: int
) -> dict[str, Tensor]:
    """Train and score one seed, adding a track per split; the weights chosen for the first split."""
    job, recipe = session.job, session.job.protocol.regress
    values = targets.train
    if job.control == "shuffled":
        values = np.random.default_rng(seed).permutation(values)
    held = _held_out(job.protocol, len(values), seed)
    fit, parts = parts_of(data.train, values, held, targets.evaluated)
    torch.manual_seed(seed)
    head = make_head_of(session, int(np.prod(data.train.shape)), targets.shape)
    mine = {split.name: Track(seed, higher_is_better=False) for split in targets.evaluated}
    first = targets.evaluated[0].name
    weights: dict[str, Tensor] = {}
    plan = make_plan(recipe, targets.shape, len(fit), seed, lambda: session.alive("sampling"))
    with open_log(session, seed) as log:
        for output in train(session, [head], plan, fit, parts):
            better = {name: _add_epoch(track, output, name, judge_of(job, name), parts) for name, track in mine.items()}
            if better[first]:
                weights = weights_of(head)
            value = mine[first].scores[-1].value
            session.progress(f"seed {seed} epoch {output.epoch}/{recipe.epochs} {first} mse {value:.4f}")
            log(output.epoch, epoch_scalars(job, mine, [head]))
    session.progress(chosen_note(job, mine))
    for name, track in mine.items():
        tracks[name].append(track)
    return weights


def _add_epoch(track: Track, output: EpochOutput, split: str, judge: str, parts: dict[str, Part]) -> bool:
    name = EVALUATED + split
    truth, predicted = parts[name].targets.astype(np.float64), output.predicted[name][0]
    if not (np.isfinite(predicted).all() and np.isfinite(output.predicted[judge]).all()):
        raise ContractError(
            f"training diverged in epoch {output.epoch} of seed {track.seed}: predictions are not finite; "
            "take a protocol with a smaller lr"
        )
    score = EpochScore(
        epoch=output.epoch,
        value=float(squared_errors(truth, predicted).mean()),
        selection=float(squared_errors(parts[judge].targets, output.predicted[judge][0]).mean()),
        r2=r_squared(truth, predicted),
    )
    return track.add(score, float(output.train[0]), predicted)


def squared_errors(truth: NDArray[np.floating], predicted: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, out) squared errors in float64."""
    return np.square(truth.astype(np.float64) - predicted)


def _score(
    session: Session, actions: Actions, split: Target, tracks: list[Track], mean: NDArray[np.float64]
) -> SplitScore:
    errors = [squared_errors(split.targets, track.predicted) for track in tracks]
    per_dimension = errors[0].reshape(-1, actions.dim).mean(axis=0)
    return split_score(
        session.job,
        tracks,
        [error.mean(axis=1) for error in errors],
        split.latents.count,
        floor=float(squared_errors(split.targets, mean).mean()),
        per_dimension=dict(zip(actions.names, per_dimension.tolist(), strict=True)),
        per_group={name: float(per_dimension[list(group)].mean()) for name, group in actions.groups.items()},
        unknown_robots=split.unknown_robots,
    )
