"""A manifest of image pairs with action chunks from the trajectories of a robot dataset, split by episode."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from lary_schema.base import ContractError
from lary_schema.cards import Actions, DatasetCard, Normalisation, PairColumns

from lary_data.lerobot_pairs import HEADER, LOG, SETTINGS
from lary_data.manifest import (
    NAMED,
    TRAIN,
    VAL,
    SetFacts,
    grouping,
    held_out_episodes,
    metadata_name,
    retract,
    write_splits,
)
from lary_data.owned_cards import write_card
from lary_data.progress import notify, progress
from lary_data.resuming import ResultLog, claim_folder, result_key, run_resumed
from lary_data.trajectories import (
    Cut,
    Source,
    Trajectory,
    action_name,
    cut,
    identities,
    image_name,
    names_of,
    starts,
)

_REVISION = 1
"""Bump when the same sources could give other files, or an episode that was good could be a fault."""


@dataclass(frozen=True)
class Cutting:
    """Which pairs are taken, and how."""

    stride: int
    every: int
    workers: int
    timeout_s: float


def write_trajectory_manifest(out: Path, source: Source, facts: SetFacts, cutting: Cutting) -> tuple[Path, int, int]:
    """Frames, chunks, CSVs and card in `out`; the card, how many episodes there are and how many failed.

    An episode that fails is left out and named on stderr with its file and reason. What is there already is kept where
    its sources are as they were. Raises ContractError where `out` was made from something else and where a split would
    be empty.
    """
    _claim(out, source, cutting)
    for note in source.notes:
        notify(note)
    with ResultLog(out / LOG) as log:
        found = _cut_all(out, source, facts.key, cutting, log)
    lengths = {name: length for name, (length, _) in found.items()}
    known = [t._replace(task=found[t.name][1]) if t.name in found else t for t in source.trajectories]
    used = [t for t in known if t.name not in lengths or starts(lengths[t.name], cutting.stride, 1)]
    if len(used) < len(source.trajectories):
        notify(f"{len(source.trajectories) - len(used)} episodes are not longer than the stride and give no pair")
    val = _val(used, facts, lengths)
    rows: dict[str, list[list[str]]] = {TRAIN: [], VAL: []}
    good = [trajectory for trajectory in used if trajectory.name in lengths]
    for trajectory in good:
        part = rows[VAL if trajectory.name in val else TRAIN]
        part += _rows(facts.key, source, trajectory, lengths[trajectory.name], cutting)
    write_splits(out, facts.key, HEADER, rows)
    card = write_card(out, _card(source, facts, cutting, good))
    return card, len(source.trajectories), len(source.trajectories) - len(lengths)


def _val(used: Sequence[Trajectory], facts: SetFacts, read: Collection[str]) -> set[str]:
    """What the source says where it says it, else whole episodes, or those of whole tasks, by the seed.

    A source whose steps say the task does not say it of an episode that is not in `read`: it has no part in a draw of
    tasks.
    """
    said = {trajectory.split for trajectory in used}
    if facts.group == "episode" and None not in said and len(said) > 1:
        notify("train and val are the source's own; --val and --seed are not used")
        return {trajectory.name for trajectory in used if trajectory.split == VAL}
    drawn = [trajectory for trajectory in used if facts.group == "episode" or trajectory.name in read]
    return held_out_episodes({trajectory.name: trajectory.task for trajectory in drawn}, facts)


def _claim(out: Path, source: Source, cutting: Cutting) -> None:
    root = source.root.resolve()
    if out.resolve() == root or root in out.resolve().parents:
        raise ContractError(f"{out}: lies in the dataset itself; choose another --out")
    made_from = {
        "format": source.format, "dataset": str(root), "camera": source.camera, "action": source.action,
        "stride": cutting.stride,
    }  # fmt: skip
    claim_folder(out / SETTINGS, made_from, ("images", "actions"))


def _cut_all(out: Path, source: Source, key: str, cutting: Cutting, log: ResultLog) -> dict[str, tuple[int, str]]:
    """Write what is missing; length and task of every good trajectory by its name."""
    how = (source.camera, source.action, len(source.names), cutting.stride, cutting.every, str(out))
    tasks = [Cut(source.format, trajectory, *how) for trajectory in source.trajectories]
    keys = {task: _key(task, log) for task in tasks}
    if any(key is None or log.get(key) is None for key in keys.values()):
        # What an earlier call wrote of these sources is not true any more, or not whole.
        retract(out, key)
    found, failed = dict[str, tuple[int, str]](), 0
    with progress("cutting", len(tasks), "episodes") as tick:
        for done in run_resumed(cut, tasks, keys.get, log, cutting.workers, cutting.timeout_s):
            name = done.task.trajectory.name
            if done.result is None:
                failed += 1
                notify(f"episode {name} is left out: {done.fault}")
            else:
                found[name] = (done.result[0], done.result[1])
            tick(failed)
    return found


def _key(task: Cut, log: ResultLog) -> str | None:
    """None where a source is missing, or a file that was made of it: then all is made anew."""
    identity = identities(task.trajectory)
    if identity is None:
        return None
    key = result_key(identity, [_REVISION, task._replace(out="")])
    result = log.get(key)
    names = [] if result is None else names_of(task.trajectory.name, result[0], task.stride, task.every)
    return key if all((Path(task.out) / name).is_file() for name in names) else None


def _rows(key: str, source: Source, trajectory: Trajectory, length: int, cutting: Cutting) -> list[list[str]]:
    name, stride = trajectory.name, cutting.stride
    facts = [key, source.robot, name, trajectory.task]
    return [
        [*facts, image_name(name, start), image_name(name, start + stride), action_name(name, start, stride)]
        for start in starts(length, stride, cutting.every)
    ]


def _card(source: Source, facts: SetFacts, cutting: Cutting, good: Sequence[Trajectory]) -> DatasetCard:
    without = [trajectory.name for trajectory in good if not trajectory.task.strip()]
    if 0 < len(without) < len(good):
        more = ", ..." if len(without) > NAMED else ""
        named = ", ".join(without[:NAMED])
        notify(f"{len(without)} episodes have no task, so the card names no instruction: {named}{more}")
    actions = Actions(
        folder=".", stride=cutting.stride, dim=len(source.names), names=source.names, groups=dict(source.groups),
        normalisation=Normalisation(kind="train"),
    )  # fmt: skip
    return DatasetCard(
        key=facts.key, title=facts.title, task="regression", columns=PairColumns(),
        metadata=(metadata_name(facts.key),), root=".", actions=actions, group=grouping(facts),
        instruction=None if without or not good else "task", license=facts.license,
        source=f"{source.title} {source.root.name}",
    )  # fmt: skip
