"""`evaluate --job FILE`: the simulator's side."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from lary_schema.atomic import PARTIAL_SUFFIX, publish_text
from lary_schema.base import ContractError, TooManyFailedError
from lary_schema.evaluation import (
    BLIND,
    EPISODES_FILE,
    EVALUATION_FILE,
    SCRIPTED,
    SOCKET,
    Episode,
    EpisodeProtocol,
    EvaluateJob,
    EvaluateValues,
    EvaluationResult,
)
from lary_schema.events import Emit, Finished, Progress, Started, Warned
from lary_schema.locks import exclusive
from lary_schema.mounts import Mounts
from lary_schema.watchdog import Watchdog

from lary_policy.episodes import BEGUN_FILE, Actor, Journal, recording, run_episode, start_of, written
from lary_policy.policy import Space
from lary_policy.registry import installed, libraries, make_simulator
from lary_policy.simulator import Simulator
from lary_policy.talk import Local, Remote

LOCK_FILE = "lock"
PATIENCE_S = 60.0
"""For a process that was killed with its orchestrator to let go of an evaluation."""
WHOLE_CHUNKS = {"first": 0, "use": None}


def evaluate(job: EvaluateJob, emit: Emit) -> None:
    """Run what is missing, write the result.

    Raises TooManyFailedError where an episode counts as not evaluated: the result is there, and says which.
    """
    mounts = Mounts.from_env()
    watching = Watchdog(emit, job.id, job.stall_timeout_s, computes=job.device == "cpu")
    emit = watching.emit
    with alone(mounts.out), watching as watchdog:
        sweep(mounts.out)
        journal = Journal(mounts.out / EPISODES_FILE, job.fingerprint, lambda episode: _keeps(job, episode, mounts.out))
        missing = _in_order(job, journal, mounts.out)
        skipped = len(job.values.states) - len(missing)
        emit(
            Started(
                job=job.id, total=len(missing), skipped=skipped, unit="episodes", device=job.device, pid=os.getpid()
            )
        )
        warn_of_begun(emit, job.id, mounts.out, missing)
        began = time.monotonic()
        if missing:
            with _world(job, mounts.latents / SOCKET) as world:
                for number, state in enumerate(missing):
                    _one(job, world, journal, state, mounts.out, watchdog)
                    emit(_progress(job, journal, number + 1, len(missing), began))
        _publish(job, journal, mounts.out)
        emit(_finished(job, journal, len(missing), began))
    _complain(job, journal)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """While one process works on the episodes of a folder. Raises ContractError where another does, or none can."""
    with ExitStack() as held:
        with written(out / LOCK_FILE):
            busy = f"{out}: another process runs these episodes; wait for it, and run the same command again"
            held.enter_context(exclusive(out / LOCK_FILE, busy, patience_s=PATIENCE_S))
        yield


def sweep(out: Path) -> None:
    """Drafts that a killed attempt left: under the lock nobody writes them any more."""
    for draft in list(out.rglob(f"*{PARTIAL_SUFFIX}")):
        with written(draft):
            draft.unlink(missing_ok=True)


def _keeps(job: EvaluateJob, episode: Episode, out: Path) -> bool:
    """Whether an episode of an earlier attempt stands."""
    if job.record and episode.steps and not recording(out, job.values.task, episode.state).exists():
        return False
    return episode.fault is None or (episode.evaluated and not job.again)


def _in_order(job: EvaluateJob, journal: Journal, out: Path) -> list[int]:
    """The states that are missing. What was under way when its process died comes last, after what is tried again:
    should it do so once more, the others are there."""
    begun = begun_before(out)
    missing = [state for state in job.values.states if state not in journal.done]
    return sorted(missing, key=lambda state: (state == begun, state in journal.dropped))


def begun_before(out: Path) -> int | None:
    """The state that was under way when the last process died."""
    try:
        return int((out / BEGUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def warn_of_begun(emit: Emit, job: str, out: Path, missing: Sequence[int]) -> None:
    """Where an earlier process ended in an episode, its death may have been that episode's doing: say which one."""
    begun = begun_before(out)
    if begun in missing:
        emit(Warned(job=job, message=f"an earlier process ended in initial state {begun}, which is tried last"))


@contextmanager
def under_way(out: Path, state: int) -> Iterator[None]:
    """While an episode runs: what does not come back from it leaves its number."""
    with written(out / BEGUN_FILE):
        publish_text(out / BEGUN_FILE, f"{state}\n")
    yield
    with written(out / BEGUN_FILE):
        (out / BEGUN_FILE).unlink()


class World:
    """A simulator and a policy, made when they are needed."""

    def __init__(self, job: EvaluateJob, socket: Path) -> None:
        self._job, self._socket = job, socket
        self._simulator: Simulator | None = None
        self._remote: Remote | None = None

    @property
    def simulator(self) -> Simulator:
        if self._simulator is None:
            values = self._job.values
            self._simulator = make_simulator(values.benchmark, values.task)
            check_surroundings(values, self._simulator)
            self._simulator.show(() if values.policy == SCRIPTED else self._connected(self._simulator).wants())
        return self._simulator

    def actor(self) -> Actor:
        """The policy: in the simulator's process, or at the other end of the socket."""
        simulator = self.simulator
        return Local(simulator.scripted()) if self._job.values.policy == SCRIPTED else self._connected(simulator)

    def _connected(self, simulator: Simulator) -> Remote:
        if self._remote is None:
            space = Space.of(simulator.card, simulator.task.key)
            self._remote = Remote(self._socket, space, self._job.connect_timeout_s, self._job.act_timeout_s)
        return self._remote

    def anew(self) -> None:
        """After a fault of the simulator."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None

    def close(self) -> None:
        self.anew()
        if self._remote is not None:
            self._remote.close()


def check_surroundings(values: EvaluateValues, simulator: Simulator) -> None:
    """Whether episodes here are those that were planned. Raises ContractError."""
    here = simulator.renderer() if values.renderer else None
    if here != values.renderer:
        raise ContractError(
            f"{values.benchmark}: pictures are drawn by {here} here, the job was planned for {values.renderer}; set "
            f"the variable that chooses it, or plan the job again"
        )
    found = installed(values.libraries)
    for name, planned in values.libraries.items():
        if found.get(name) != planned:
            raise ContractError(
                f"{values.benchmark}: {name} {found.get(name, 'is missing')} here, the job was planned with {planned}; "
                "run the same command again"
            )


@contextmanager
def _world(job: EvaluateJob, socket: Path) -> Iterator[World]:
    world = World(job, socket)
    try:
        yield world
    finally:
        world.close()


def _one(job: EvaluateJob, world: World, journal: Journal, state: int, out: Path, watchdog: Watchdog) -> None:
    with under_way(out, state):
        watchdog.beat(f"making task {job.values.task} and waiting for its policy", job.connect_timeout_s)
        start = start_of(job, world.simulator.task.instruction, state)
        simulator, actor = world.simulator, world.actor()
        beat = partial(watchdog.beat, within_s=job.act_timeout_s)
        episode, trace = run_episode(simulator, actor, start, _protocol(job.values), beat)
        if job.record and trace.actions:
            with written(path := recording(out, job.values.task, state)):
                trace.write(path)
        if episode.fault == "simulator_error":
            world.anew()
        journal.append(episode)


def _protocol(values: EvaluateValues) -> EpisodeProtocol:
    """What a baseline sends is done whole: it is no prediction, of which a part is done before the next look."""
    return values.protocol.model_copy(update=WHOLE_CHUNKS) if values.policy in BLIND else values.protocol


def _publish(job: EvaluateJob, journal: Journal, out: Path) -> None:
    result = EvaluationResult(
        fingerprint=job.fingerprint,
        values=job.values,
        episodes=tuple(journal.done[state] for state in job.values.states),
        simulator_image=job.image,
        simulator_image_digest=job.image_digest,
        code_revision=job.code_revision,
        libraries=libraries(),
    )
    with written(out / EVALUATION_FILE):
        publish_text(out / EVALUATION_FILE, result.to_json())


def _progress(job: EvaluateJob, journal: Journal, done: int, total: int, began: float) -> Progress:
    succeeded = sum(episode.success for episode in journal.done.values())
    failed = sum(episode.fault is not None for episode in journal.done.values())
    note = f"{succeeded} of {len(journal.done)} succeeded"
    return Progress(job=job.id, done=done, total=total, failed=failed, per_second=_rate(done, began), note=note)


def _finished(job: EvaluateJob, journal: Journal, done: int, began: float) -> Finished:
    failed = sum(episode.fault is not None for episode in journal.done.values())
    return Finished(job=job.id, done=done, failed=failed, per_second=_rate(done, began))


def _rate(done: int, began: float) -> float:
    return round(done / max(time.monotonic() - began, 1e-9), 4)


def _complain(job: EvaluateJob, journal: Journal) -> None:
    lost = [episode for episode in journal.done.values() if not episode.evaluated]
    if lost:
        raise TooManyFailedError(
            f"{len(lost)} of {len(job.values.states)} episodes of task {job.values.task} count as not evaluated, "
            f"the first (state {lost[0].state}): {lost[0].fault}: {lost[0].detail}; the same command tries them again"
        )
