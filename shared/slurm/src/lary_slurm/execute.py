"""A run's work on a cluster: joined where it is under way, submitted where it is not, followed or left."""

import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from types import FrameType
from typing import NamedTuple

import click
from lary_orch.run.launch import lacks
from lary_orch.run.scheduler import Outcome, Watch, Work, signals
from lary_orch.runtimes.base import JOB_FILE, ImageSource, Prepared, Say
from lary_schema.cards import ImageCard
from lary_schema.jobs import ExtractJob, ProbeJob
from lary_schema.runs import RunPaths

from lary_slurm.client import Client, SlurmError
from lary_slurm.follow import Follower
from lary_slurm.runtime import SlurmRuntime
from lary_slurm.state import Session, SessionPaths, TaskEntry
from lary_slurm.stop import cancel


class Ended(NamedTuple):
    """How far it came while we looked."""

    outcomes: list[Outcome]
    interrupted: signal.Signals | None = None


def execute(
    runtime: SlurmRuntime,
    paths: RunPaths,
    make_works: Callable[[], list[Work]],
    watching: Callable[[int], AbstractContextManager[Watch]],
    say: Say,
    *,
    attempts: int,
    detach: bool,
) -> Ended:
    """Have a run's work done. `make_works` writes the jobs' folders; not called where a session goes on."""
    found = join(runtime.client, paths)
    if found is not None:
        session, place = found
        works = {entry.id: _work(entry) for entry in session.tasks}
        say(f"run {session.run}: {len(works)} tasks are on the cluster already; following them")
    else:
        made = make_works()
        if not made:
            return Ended([])
        works = {work.id: work for work in made}
        session = runtime.session(paths.root.name, made, attempts, runtime.client.max_array())
        place = SessionPaths.make(paths, session)
    follow = partial(Follower, runtime.client, session, place, paths, works)
    return _look_after(follow, runtime.client, session, place, watching, say, detach=detach)


def join(client: Client, paths: RunPaths) -> tuple[Session, SessionPaths] | None:
    """The run's newest session, where tasks of it are still in the queue."""
    place = SessionPaths.newest(paths)
    if place is None or place.closed.exists() or place.cancelled.exists():
        return None
    session = Session.read(place.document)
    return (session, place) if any(entry.live for entry in client.queue(session.name)) else None


def _look_after(
    follow: Callable[[Watch], Follower],
    client: Client,
    session: Session,
    place: SessionPaths,
    watching: Callable[[int], AbstractContextManager[Watch]],
    say: Say,
    *,
    detach: bool,
) -> Ended:
    got: list[signal.Signals] = []
    while True:
        looking: list[Follower] = []
        # Around all of it: once a task may be in the queue, no Ctrl-C goes unasked.
        with signals(partial(_leave, looking, got)), watching(len(session.tasks)) as watch:
            looking.append(follower := follow(watch))
            if got:
                follower.leave()
            try:
                ended = follower.detach() if detach else follower.follow()
            except SlurmError as error:
                raise SlurmError(
                    f"{error}\nWhat was submitted before goes on; `lary-orch cancel {session.run}` ends it."
                ) from None
        if ended or (detach and not got):
            break
        answer = ask_what_now()
        if answer == "cancel":
            cancel(client, session, place, say)
        if answer != "follow":
            break
        got.clear()
    if place.cancelled.exists():
        return Ended(follower.outcomes, got[0] if got else signal.SIGTERM)
    if any(outcome.state == "stopped" for outcome in follower.outcomes):
        say(_farewell(session.run))
    return Ended(follower.outcomes, got[0] if got and not ended else None)


def _leave(looking: list[Follower], got: list[signal.Signals], number: int, _frame: FrameType | None) -> None:
    got.append(signal.Signals(number))
    for follower in looking:
        follower.leave()


def ask_what_now() -> str:
    """After Ctrl-C: `detach`, `cancel` or `follow`. Where nobody can be asked, tasks are left on the cluster."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return "detach"
    try:
        letter = click.prompt(
            "The tasks are on the cluster. [d]etach and leave them there, [c]ancel them, [f]ollow on",
            type=click.Choice(["d", "c", "f"]),
            default="d",
            show_choices=False,
            err=True,
        )
    except click.Abort:  # Ctrl-C once more
        return "detach"
    return {"d": "detach", "c": "cancel", "f": "follow"}[letter]


def _farewell(run: str) -> str:
    return (
        f"run {run} goes on without us. `lary-orch status {run}` shows how far it is, `lary-orch cancel {run}` ends "
        "it, and the same `run` again follows it and does what failed once more; all from any login node"
    )


def _work(entry: TaskEntry) -> Work:
    """A task of a session that another host may have begun."""
    card = ImageCard(name="unknown", kind="model" if entry.verb == "extract" else "probe", module="unknown")
    return Work(
        entry.id,
        entry.verb,
        entry.title,
        Prepared(ImageSource(card, None), "", None, ""),
        entry.mounts,
        entry.needs,
        lacks=partial(_lacks, entry),
    )


def _lacks(entry: TaskEntry) -> str | None:
    path = entry.mounts.job / JOB_FILE
    job = ExtractJob.read(path) if entry.verb == "extract" else ProbeJob.read(path)
    return lacks(job, entry.mounts.latents, entry.mounts.out)
