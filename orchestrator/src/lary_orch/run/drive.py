"""Looks after an execution until it is over, or until somebody wants to leave or to stop it."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import FrameType
from typing import NamedTuple

import click
from lary_schema import commands
from lary_schema.base import ContractError

from lary_orch.runtimes.base import Execution, Notify, Observer, Outcome

Observing = Callable[[int], AbstractContextManager[Observer]]


class Result(NamedTuple):
    """How far it came while we looked."""

    outcomes: list[Outcome]
    interrupted: signal.Signals | None = None
    """The signal that ended it early."""


def drive(execution: Execution, run: str, watching: Observing, notify: Notify, *, detach: bool = False) -> Result:
    """Follow to the end. With `detach`, only until nothing is left to submit.

    A signal stops all jobs, a second one by force; for jobs that go on by themselves the user chooses first.
    """
    if not execution.tasks:
        return Result([])
    while True:
        got: list[signal.Signals] = []
        # Around all of it: once a job may run, no Ctrl-C is lost.
        with signals(partial(_note, execution, got)), watching(len(execution.tasks)) as watch:
            over = _follow(execution, run, watch, got, detach=detach)
        if over or not got:
            break
        choice = choose_what_now()
        if choice == "cancel":
            execution.cancel(notify)
        if choice != "follow":
            break
    if execution.cancelled:
        return Result(execution.outcomes, got[0] if got else signal.SIGTERM)
    if any(outcome.state == "stopped" for outcome in execution.outcomes):
        notify(_farewell(run))
    return Result(execution.outcomes, got[0] if got and not over else None)


def _note(execution: Execution, got: list[signal.Signals], number: int, _frame: FrameType | None) -> None:
    got.append(signal.Signals(number))
    execution.wake()


def _follow(execution: Execution, run: str, watch: Observer, got: list[signal.Signals], *, detach: bool) -> bool:
    """True where every job has its outcome."""
    heard = 0
    try:
        execution.submit(watch)
        while not execution.poll():
            if detach and execution.handed_over():
                return False
            if len(got) > heard:
                if execution.detachable:
                    return False
                heard = len(got)
                execution.cancel(watch.note, force=heard > 1)
    except ContractError as error:
        if not execution.detachable:
            raise
        raise type(error)(
            f"{error}\nWhat was submitted before goes on; `{commands.command('cancel', run)}` ends it."
        ) from None
    return True


def choose_what_now() -> str:
    """After Ctrl-C: `detach`, `cancel` or `follow`. Without a terminal, jobs are left to themselves."""
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
        f"run {run} goes on without us. `{commands.command('status', run)}` shows how far it is, "
        f"`{commands.command('cancel', run)}` ends "
        "it, and the same `run` again follows it and does what failed once more; all from any login node"
    )


@contextmanager
def signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Hand SIGINT and SIGTERM to a handler for a while."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
