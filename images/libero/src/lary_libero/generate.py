"""A data set of episodes: planned from the settings alone, made by several processes, whole or absent by episode."""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from lary_schema.atomic import PARTIAL_SUFFIX, publish_text
from lary_schema.base import ContractError, Document, canonical_json, fingerprint, read_json
from lary_schema.locks import exclusive

from lary_libero.cards import Facts, write_cards
from lary_libero.episodes import record
from lary_libero.layout import Layout
from lary_libero.lerobot import Episode, write_dataset
from lary_libero.perturb import names
from lary_libero.simulator import Simulator
from lary_libero.writing import is_written, write_episode

Make = Callable[["Settings", int], Simulator]
Notify = Callable[[str], object]


class Settings(Document):
    """All that a data set depends on, libraries and the renderer included."""

    suite: str
    tasks: tuple[int, ...]
    episodes: int
    """Of each task."""
    seed: int
    size: int
    policy: str
    perturb: tuple[str, ...]
    cameras: tuple[str, ...]
    stride: int
    horizon: int
    libraries: dict[str, str]
    renderer: str


class Planned(NamedTuple):
    """One episode of a set."""

    number: int
    task: int
    place: int
    """Among those of its task."""


@dataclass(frozen=True)
class Unit:
    """What one process does with one simulator."""

    settings: Settings
    root: Layout
    task: int
    episodes: tuple[Planned, ...]


def generate(layout: Layout, settings: Settings, workers: int, notify: Notify, make: Make | None = None) -> None:
    """Make what is missing of a set, then its tables and cards. The same bytes however often it is killed.

    `make` makes a task's simulator; it has to be importable. Raises ContractError where the folder holds another set,
    where a process died, and where a task cannot be made or done by the policy; finished episodes are kept.
    """
    if settings.episodes < 2:
        raise ContractError(f"{settings.episodes} episode of a task leaves none for val; generate two or more of each")
    _refuse_others(layout)
    with exclusive(layout.lock, f"{layout.root}: another process generates this set; wait for it"):
        _claim(layout, settings)
        _generate(layout, settings, workers, notify, make or make_simulator)


def _generate(layout: Layout, settings: Settings, workers: int, notify: Notify, make: Make) -> None:
    plan = planned(settings)
    missing = [episode for episode in plan if not _is_written(layout, episode, settings)]
    if len(missing) < len(plan):
        notify(f"{len(plan) - len(missing)} of {len(plan)} episodes are there already")
    _make(units(layout, settings, missing, workers), workers, make, notify, len(plan))
    markers = [read_json(layout.marker(episode.number)) for episode in plan]
    write_dataset(layout, _episodes(layout, markers), settings.size, names(settings.perturb))
    for line in write_cards(layout, _facts(settings, markers), markers):
        notify(line)
    for line in success_lines(markers):
        notify(line)


def _is_written(layout: Layout, episode: Planned, settings: Settings) -> bool:
    return is_written(layout, episode.number, settings.cameras, settings.stride, bool(settings.perturb))


def make_simulator(settings: Settings, task: int) -> Simulator:
    """The real one."""
    return Simulator.make(settings.suite, task, settings.cameras, settings.size, settings.perturb)


def planned(settings: Settings) -> list[Planned]:
    """Every episode, by task."""
    return [
        Planned(place * settings.episodes + number, task, number)
        for place, task in enumerate(settings.tasks)
        for number in range(settings.episodes)
    ]


def draw_state(settings: Settings, episode: Planned, states: int) -> tuple[int, int]:
    """(initial state, seed) of an episode: the states in an order drawn by the seed, then again with another seed."""
    round_, place = divmod(episode.place, states)
    order = np.random.default_rng([settings.seed, episode.task]).permutation(states)
    return int(order[place]), settings.seed + round_ * 1_000_003


def units(layout: Layout, settings: Settings, missing: Sequence[Planned], workers: int) -> list[Unit]:
    """Episodes of one task together, since a simulator takes seconds to make; in parts where there are few tasks."""
    found = []
    parts = max(1, -(-2 * workers // max(1, len({episode.task for episode in missing}))))
    for task in settings.tasks:
        mine = [episode for episode in missing if episode.task == task]
        size = max(1, -(-len(mine) // parts))
        found += [
            Unit(settings, layout, task, tuple(mine[start : start + size])) for start in range(0, len(mine), size)
        ]
    return found


def make_unit(unit: Unit, make: Make) -> int:
    """Record and write every episode of a unit; how many."""
    simulator = make(unit.settings, unit.task)
    try:
        for episode in unit.episodes:
            _make_episode(unit, simulator, episode)
    finally:
        simulator.close()
    return len(unit.episodes)


def _make_episode(unit: Unit, simulator: Simulator, episode: Planned) -> None:
    settings = unit.settings
    state, seed = draw_state(settings, episode, simulator.states)
    facts = {
        "task": episode.task, "name": simulator.task.name, "instruction": simulator.instruction,
        "place": episode.place, "count": settings.episodes, "state": state, "seed": seed,
    }  # fmt: skip
    which = f"{unit.root.root}: episode {episode.number} (task {episode.task}, initial state {state})"
    with _going_on(f"{which}: the simulator", "leave the task out by --tasks if it does so again"):
        recording = record(simulator, settings.policy, state, seed, settings.horizon)
    with _going_on(f"{which}: writing", "make room on the disk"):
        write_episode(unit.root, episode.number, facts, recording, settings.stride)


@contextmanager
def _going_on(what: str, what_to_do: str) -> Iterator[None]:
    """MuJoCo, what draws and what encodes raise what they like. Raises ContractError."""
    try:
        yield
    except (ContractError, MemoryError):
        raise
    except Exception as error:
        raise ContractError(
            f"{what} failed: {type(error).__name__}: {error}; what is finished is kept: "
            f"run the same command again, and {what_to_do}"
        ) from error


def _make(work: Sequence[Unit], workers: int, make: Make, notify: Notify, total: int) -> None:
    done = total - sum(len(unit.episodes) for unit in work)
    if workers == 1 or len(work) < 2:
        for unit in work:
            done += make_unit(unit, make)
            notify(f"{done} of {total} episodes")
        return
    # Not forked: a process that draws must not share the state of another one's driver.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(work)), context, _end_with_parent, (os.getpid(),)) as pool:
        futures = [pool.submit(make_unit, unit, make) for unit in work]
        try:
            for future in as_completed(futures):
                done += future.result()
                notify(f"{done} of {total} episodes")
        except BrokenProcessPool:
            raise ContractError(
                "a process that runs the simulator was killed (want of memory?); what is finished is kept: "
                "run the same command again, with fewer --workers where memory is short"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent(parent: int) -> None:
    """Let this process die with the one that started it (Linux, prctl(2)): nobody would read what it makes."""
    import ctypes
    import signal

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _refuse_others(layout: Layout) -> None:
    """Raises ContractError where the folder holds something else than a generated set, or what is left of one."""
    inside = {path for path in layout.root.iterdir() if path != layout.lock} if layout.root.is_dir() else set()
    if layout.settings not in inside and not all(path.name.endswith(PARTIAL_SUFFIX) for path in inside):
        raise ContractError(f"{layout.root}: is not empty and holds no generated set; choose another --out")


def _claim(layout: Layout, settings: Settings) -> None:
    """Raises ContractError where the folder holds a set by other settings."""
    text = canonical_json(settings.model_dump(mode="json")).decode() + "\n"
    if layout.settings.is_file():
        before = read_json(layout.settings)
        now = json.loads(text)
        if before != now:
            other = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
            raise ContractError(
                f"{layout.settings}: the folder holds a set with another {', '.join(other)}; choose another --out"
            )
    publish_text(layout.settings, text)
    for left_behind in layout.root.rglob(f"*{PARTIAL_SUFFIX}"):
        if left_behind.is_dir():
            shutil.rmtree(left_behind)
        else:
            left_behind.unlink(missing_ok=True)


def _episodes(layout: Layout, markers: Sequence[dict[str, Any]]) -> list[Episode]:
    found, first = [], 0
    for marker in markers:
        with np.load(layout.arrays(marker["episode"])) as file:
            arrays = {name: file[name] for name in file.files}
        found.append(
            Episode(
                number=marker["episode"], task=marker["instruction"], length=marker["length"], first=first,
                arrays=arrays, images=marker["images"], success=marker["success_after_release"],
            )
        )  # fmt: skip
        first += marker["length"]
    return found


def success_lines(markers: Sequence[dict[str, Any]]) -> list[str]:
    """By task: how often it was done by LIBERO's rule, and how often it was done still after the hand had gone."""
    lines = []
    for task in dict.fromkeys(marker["task"] for marker in markers):
        mine = [marker for marker in markers if marker["task"] == task]
        rule = sum(marker["success"] for marker in mine)
        after = sum(marker["success_after_release"] for marker in mine)
        lines.append(f"task {task}: {rule}/{len(mine)} by LIBERO's rule, {after}/{len(mine)} after release")
    return lines


def _facts(settings: Settings, markers: Sequence[dict[str, Any]]) -> Facts:
    perturbed = f" ({' and '.join(settings.perturb)} perturbed)" if settings.perturb else ""
    libraries = ", ".join(f"{name} {version}" for name, version in settings.libraries.items())
    return Facts(
        key="_".join([settings.suite, settings.policy, *settings.perturb]),
        title=f"{settings.suite}, {settings.policy} policy{perturbed}",
        source=(
            f"generated by lary-orch data generate libero, seed {settings.seed}, {settings.size} px, "
            f"{settings.renderer}, {libraries}. Success: {'; '.join(success_lines(markers))}. "
            "LIBERO: arXiv 2306.03310"
        ),
        stride=settings.stride,
        camera=settings.cameras[0],
        settings=fingerprint(settings.model_dump(mode="json"))[:16],
        nuisance=names(settings.perturb),
    )
