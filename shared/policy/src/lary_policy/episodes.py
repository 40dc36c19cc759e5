"""One evaluation: episode after episode, each written whole when it has ended."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from lary_schema.atomic import FULL_DISK, publish_text, replacing
from lary_schema.base import ContractError
from lary_schema.evaluation import (
    RECORDED_FOLDER,
    Episode,
    EpisodeProtocol,
    EvaluateJob,
    Fault,
    journal_episodes,
    journal_head,
)
from numpy.typing import NDArray

from lary_policy.policy import BadActionsError, EpisodeStart, Observation, checked
from lary_policy.simulator import Simulator, SimulatorError
from lary_policy.talk import RefusedError
from lary_policy.wire import BadMessageError, SilentError

BEGUN_FILE = "begun"
"""The state of the episode under way: one that kills its process is tried after all others."""
FAULTS: tuple[tuple[type[ContractError], Fault], ...] = (
    (BadActionsError, "bad_actions"),
    (BadMessageError, "bad_actions"),
    (RefusedError, "refused"),
    (SilentError, "policy_timeout"),
    (SimulatorError, "simulator_error"),
)
DETAIL = 500


class Actor(Protocol):
    """A policy here or elsewhere."""

    def begin(self, episode: EpisodeStart) -> None: ...
    def act(self, observation: Observation) -> NDArray[Any]: ...


class Journal:
    """The finished episodes of one evaluation, a JSON line each below a line with its fingerprint.

    A line that a kill cut is dropped, and so are episodes that `keeps` does not want: they are run again, after those
    that were never run.
    """

    def __init__(self, path: Path, fingerprint: str, keeps: Callable[[Episode], bool]) -> None:
        self._path = path
        found = journal_episodes(path, fingerprint)
        self.dropped = [episode.state for episode in found if not keeps(episode)]
        self.done = {episode.state: episode for episode in found if keeps(episode)}
        kept = journal_head(fingerprint) + "".join(map(_line, self.done.values()))
        if not path.exists() or kept != path.read_text(encoding="utf-8", errors="replace"):
            with written(path):
                publish_text(path, kept)

    def append(self, episode: Episode) -> None:
        """Written by one call, and on the disk when this returns. Raises ContractError (a full disk)."""
        data = _line(episode).encode()
        with written(self._path):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                if os.write(descriptor, data) != len(data):
                    raise OSError(errno.ENOSPC, "an episode could not be written whole")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self.done[episode.state] = episode


@contextmanager
def written(path: Path) -> Iterator[None]:
    """While a file is written. Raises ContractError where the disk refuses it."""
    try:
        yield
    except OSError as error:
        todo = "make room" if error.errno in FULL_DISK else "make its folder writable"
        raise ContractError(
            f"{path}: cannot be written: {error.strerror or error}; finished episodes are kept: {todo}, and run the "
            "same command again"
        ) from None


def _line(episode: Episode) -> str:
    return json.dumps(episode.model_dump(mode="json"), ensure_ascii=False) + "\n"


class Trace:
    """What was done in an episode, and its hash."""

    def __init__(self) -> None:
        self.actions: list[NDArray[np.float32]] = []
        self._hash = hashlib.sha256()

    def add(self, action: NDArray[np.float32], state: NDArray[Any]) -> None:
        self.actions.append(action)
        self._hash.update(action.tobytes())
        self._hash.update(np.ascontiguousarray(state).tobytes())

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, path: Path) -> None:
        """The actions as .npy, float32 (steps, A)."""
        with replacing(path) as draft, draft.open("xb") as file:
            np.save(file, np.stack(self.actions), allow_pickle=False)


def run_episode(
    simulator: Simulator, actor: Actor, start: EpisodeStart, protocol: EpisodeProtocol, beat: Callable[[str], None]
) -> tuple[Episode, Trace]:
    """One episode to its end. A fault of `FAULTS` is a part of it; everything else is raised."""
    trace, done = Trace(), _Done()
    fault: Fault | None = None
    detail = ""
    try:
        _steps(simulator, actor, start, protocol, beat, trace, done)
    except tuple(kind for kind, _ in FAULTS) as error:
        fault = next(name for kind, name in FAULTS if isinstance(error, kind))
        detail = str(error)[:DETAIL]
    success = done.success and fault is None
    episode = Episode(
        state=start.state,
        success=success,
        held=done.held if success else None,
        steps=done.steps if success else len(trace.actions),
        fault=fault,
        detail=detail,
        trace_sha256=trace.sha256,
    )
    return episode, trace


class _Done:
    """Of the steps so far."""

    success = False
    steps = 0
    held: bool | None = None


def _steps(
    simulator: Simulator,
    actor: Actor,
    start: EpisodeStart,
    protocol: EpisodeProtocol,
    beat: Callable[[str], None],
    trace: Trace,
    done: _Done,
) -> None:
    """Until success (and `hold` steps more) or the horizon."""
    observation = simulator.reset(start.state, start.seed)
    idle = np.array(simulator.card.idle, np.float32)
    for _ in range(protocol.settle):
        beat(f"settling state {start.state}")
        observation = simulator.step(idle).observation
    actor.begin(start)
    end = protocol.horizon
    while len(trace.actions) < end:
        beat(f"the policy acts at step {len(trace.actions)} of state {start.state}")
        chunk = checked(np.asarray(actor.act(observation)), len(idle), protocol.first, protocol.use)
        for action in chunk[: end - len(trace.actions)]:
            beat(f"step {len(trace.actions)} of state {start.state}")
            step = simulator.step(action)
            observation = step.observation
            trace.add(action, simulator.state())
            if step.success and not done.success:
                done.success, done.steps = True, len(trace.actions)
                end = done.steps + protocol.hold
            done.held = step.success if done.success and protocol.hold else None
            if len(trace.actions) >= end:
                return


def start_of(job: EvaluateJob, instruction: str, state: int) -> EpisodeStart:
    return EpisodeStart(instruction, job.values.episode_seed(state), job.values.task, state)


def recording(out: Path, task: str, state: int) -> Path:
    """Where the actions of an episode lie."""
    return out / RECORDED_FOLDER / task / f"{state}.npy"
