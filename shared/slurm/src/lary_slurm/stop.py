"""Takes a run off the cluster, from any login node."""

import time
from collections.abc import Callable

from lary_orch.runtimes.base import Notify
from lary_schema import commands
from lary_schema.base import ContractError

from lary_slurm.client import Client, Pace, SlurmAwayError
from lary_slurm.state import Session, SessionPaths

PATIENCE_S = 300.0
"""A node that does not respond keeps a job `COMPLETING` for a while."""
TO_END_S = 1.5
"""What most tasks need to end; queried at once, all of them would still be there."""


def cancel(
    client: Client,
    session: Session,
    paths: SessionPaths,
    notify: Notify,
    *,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Cancel all tasks of a session, and return when none is in the queue any more.

    Whoever follows the session sees the note first and submits nothing more. Raises ContractError where tasks
    are still there, or the controller still away, after PATIENCE_S.
    """
    paths.note(paths.cancelled)
    pace, end = Pace(session.profile.poll_s, clock=clock), clock() + PATIENCE_S
    left = "the controller does not respond"
    while clock() < end:
        if pace.due:
            try:
                # Each time: a follower may have been about to submit when the note appeared.
                client.cancel(session.name)
                wait(TO_END_S)
                live = sum(entry.live for entry in client.queue(session.name))
            except SlurmAwayError as error:
                notify(f"{error}; trying again")
                pace.queried(changed=False)
            else:
                if not live:
                    return
                left = f"{live} tasks are still in the queue (`squeue --name={session.name}`)"
                pace.queried(changed=True)
        wait(0.5)
    raise ContractError(f"run {session.run}: {left}; try `{commands.command('cancel', session.run)}` again later")
