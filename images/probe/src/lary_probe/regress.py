"""The regression probe: how is it done?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from lary_schema.base import ContractError
from lary_schema.jobs import ProbeJob
from lary_schema.results import EpochScore, Holdout, SplitScore
from numpy.typing import NDArray
from torch import Tensor

from lary_probe.data import ProbeData, check_holdout, parts_of, save_row_scores
from lary_probe.learning import learned_values
from lary_probe.outputs import Outputs
from lary_probe.regress_heads import make_head_of, make_plan
from lary_probe.regress_linear import fit_linear, state_of
from lary_probe.regress_outputs import write_outputs
from lary_probe.regress_targets import Target, Targets, read_targets
from lary_probe.sampling import holdout_random
from lary_probe.scoring import r_squared, r_squared_each
from lary_probe.selection import EVALUATED, Track, chosen_note, selector_of, split_score
from lary_probe.session import Session
from lary_probe.streams import Streams
from lary_probe.trackers import epoch_scalars, open_log
from lary_probe.training import EpochOutput, Part, train, weights_of


@dataclass(frozen=True)
class Regression:
    """What the probe found."""

    splits: dict[str, SplitScore]
    targets_sha256: str
    learned: bool
    holdout: Holdout | None


def regress(session: Session, data: ProbeData, outputs: Outputs) -> Regression:
    """Train for every seed, score every evaluated split, write the outputs but `result.json`."""
    job = session.job
    assert job.actions is not None
    targets = read_targets(session, data, job.actions)
    held = _held_out(job, data, job.protocol.seeds[0])
    session.start(len(targets.train) - (0 if held is None else int(held.sum())), job.protocol.regress)
    holdout = check_holdout(session, held, data.train_groups)
    tracks: dict[str, list[Track]] = {split.name: [] for split in targets.evaluated}
    weights, learned = [], []
    for seed in job.protocol.seeds:
        found = _run_seed(session, data, targets, tracks, seed)
        weights.append(found.weights)
        learned.append(found.learned)
    session.alive("scoring, and drawing the pictures")
    errors = {s.name: [squared_errors(s.targets, t.predicted) for t in tracks[s.name]] for s in targets.evaluated}
    splits = {s.name: _score(session, s, tracks[s.name], errors[s.name], targets.mean) for s in targets.evaluated}
    if session.accelerator.is_main_process:
        for split in targets.evaluated:
            per_row = [each.mean(axis=1) for each in errors[split.name]]
            save_row_scores(outputs, split, job.protocol.seeds, per_row, targets.codes)
        write_outputs(session, outputs, targets.evaluated, tracks, job.actions)
        facts = {job.reads: job.actions.model_dump(mode="json"), "recipe": job.protocol.regress.model_dump(mode="json")}
        outputs.weights(weights[0], facts | {"shape": targets.shape, "scales": targets.scales.document()})
    return Regression(splits, targets.sha256, all(learned), holdout)


def _held_out(job: ProbeJob, data: ProbeData, seed: int) -> NDArray[np.bool_] | None:
    if not job.protocol.holds_out(job.kind):
        return None
    stream = Streams(seed, job.protocol.streams).holdout()
    return holdout_random(len(data.train), job.protocol.holdout, stream, data.train_groups.declared)


class _Found(NamedTuple):
    weights: dict[str, Tensor]
    """Chosen for the first evaluated split."""
    learned: bool


def _run_seed(session: Session, data: ProbeData, targets: Targets, tracks: dict[str, list[Track]], seed: int) -> _Found:
    """Train and score one seed, adding a track per split."""
    job = session.job
    streams, values = Streams(seed, job.protocol.streams), targets.train
    if job.control == "shuffled":
        values = np.random.default_rng(streams.control()).permutation(values)
    fit, parts = parts_of(data.train, values, _held_out(job, data, seed), targets.evaluated)
    mine = {split.name: Track(seed, higher_is_better=False) for split in targets.evaluated}
    if job.protocol.regress.head == "linear":
        found = _Found(_solve(session, mine, values, fit, parts), learned=True)
    else:
        weights = _train(session, mine, targets, fit, parts, streams)
        found = _Found(weights, _learned(session, seed, next(iter(mine.values())).train, fit))
    session.progress(chosen_note(job, mine))
    for name, track in mine.items():
        tracks[name].append(track)
    return found


def _train(
    session: Session,
    mine: Mapping[str, Track],
    targets: Targets,
    fit: Part,
    parts: Mapping[str, Part],
    streams: Streams,
) -> dict[str, Tensor]:
    """Train a network, adding each epoch's scores; the weights that are chosen for the first split."""
    job, recipe = session.job, session.job.protocol.regress
    streams.start_torch()
    head = make_head_of(session, int(np.prod(fit.latents.shape)), targets.shape)
    first, seed = next(iter(mine)), streams.seed
    weights: dict[str, Tensor] = {}
    plan = make_plan(recipe, targets.shape, len(fit), streams, lambda: session.alive("sampling"))
    with open_log(session, seed) as log:
        for output in train(session, [head], plan, fit, parts):
            better = _add_epochs(session, mine, output, parts)
            if better[first]:
                weights = weights_of(head)
            value = mine[first].scores[-1].value
            session.progress(f"seed {seed} epoch {output.epoch}/{recipe.epochs} {first} mse {value:.4f}")
            log(output.epoch, epoch_scalars(job, mine, [head]))
    return weights


def _solve(
    session: Session,
    mine: Mapping[str, Track],
    values: NDArray[np.float32],
    fit: Part,
    parts: Mapping[str, Part],
) -> dict[str, Tensor]:
    """Fit a linear head, adding its scores as those of one epoch; its weights."""
    output, linear, strength = fit_linear(session, values, fit, parts)
    _add_epochs(session, mine, output, parts)
    for track in mine.values():
        track.strength = strength
    with open_log(session, next(iter(mine.values())).seed) as log:
        log(output.epoch, epoch_scalars(session.job, mine, []) | {"strength": strength})
    return state_of(linear)


def _add_epochs(
    session: Session, mine: Mapping[str, Track], output: EpochOutput, parts: Mapping[str, Part]
) -> dict[str, bool]:
    """Whether the epoch is the best so far, by split."""
    return {
        name: _add_epoch(track, output, name, selector_of(session.job, name), parts) for name, track in mine.items()
    }


def _learned(session: Session, seed: int, scores: list[float], fit: Part) -> bool:
    """Whether the training error fell below a constant's. A diffusion head's is of the noise, whose variance is 1."""
    recipe = session.job.protocol.regress
    spread = 1.0 if recipe.head == "dit" else float(fit.targets.var(axis=0, dtype=np.float64).mean())
    learned = learned_values([np.array([score]) for score in scores], spread)
    if not learned and session.job.control == "none":
        session.warn(
            f"seed {seed}: the training error stayed at that of the mean in all {len(scores)} epochs: the probe "
            "learned nothing, which may be the protocol's fault and not the latents'; take more epochs or another "
            "learning rate"
        )
    return learned


def _add_epoch(track: Track, output: EpochOutput, split: str, selector: str, parts: Mapping[str, Part]) -> bool:
    name = EVALUATED + split
    truth, predicted = parts[name].targets.astype(np.float64), output.predicted[name][0]
    if not (np.isfinite(predicted).all() and np.isfinite(output.predicted[selector]).all()):
        raise ContractError(
            f"training diverged in epoch {output.epoch} of seed {track.seed}: predictions are not finite; "
            "take a protocol with a smaller lr"
        )
    score = EpochScore(
        epoch=output.epoch,
        value=float(squared_errors(truth, predicted).mean()),
        selection=float(squared_errors(parts[selector].targets, output.predicted[selector][0]).mean()),
        r2=r_squared(truth, predicted),
    )
    return track.add(score, float(output.train[0]), predicted)


def squared_errors(truth: NDArray[np.floating], predicted: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, out) squared errors in float64."""
    return np.square(truth.astype(np.float64) - predicted)


def _score(
    session: Session,
    split: Target,
    tracks: list[Track],
    errors: list[NDArray[np.float64]],
    mean: NDArray[np.float64],
) -> SplitScore:
    actions = session.job.actions
    assert actions is not None
    per_dimension = errors[0].reshape(-1, actions.dim).mean(axis=0)
    r2 = r_squared_each(split.targets, errors[0], actions.dim)
    return split_score(
        session.job,
        tracks,
        [error.mean(axis=1) for error in errors],
        split.groups,
        split.latents.count,
        floor=float(squared_errors(split.targets, mean).mean()),
        per_dimension=dict(zip(actions.names, per_dimension.tolist(), strict=True)),
        r2_per_dimension=dict(zip(actions.names, r2.tolist(), strict=True)),
        per_group={name: float(per_dimension[list(group)].mean()) for name, group in actions.groups.items()},
        unknown_robots=split.unknown_robots,
    )
