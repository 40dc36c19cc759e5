"""What would be submitted, for people to read before it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lary_orch.run.attempts import ATTEMPTS
from lary_orch.runtimes.base import Say
from lary_orch.runtimes.jobs import Job
from lary_schema.base import ContractError
from lary_schema.runs import RunPaths

from lary_slurm.script import script
from lary_slurm.state import GroupEntry, Session, SessionPaths
from lary_slurm.submit import batch, cut

if TYPE_CHECKING:
    from lary_slurm.runtime import SlurmRuntime

NEXT = "NEXT"
"""Stands for the number of the session's folder."""


def preview(runtime: "SlurmRuntime", paths: RunPaths, jobs: Sequence[Job], say: Say) -> list[dict[str, Any]]:
    """The first submissions in order: `command` and `script` of each. Writes nothing."""
    session = runtime.session(paths.root.name, jobs, ATTEMPTS, _max_array(runtime, say))
    place = SessionPaths(paths.root / "slurm" / NEXT)
    shown: list[dict[str, Any]] = []
    made_by: dict[str, list[int]] = {}
    for group in session.groups:
        firsts = {task.id: 1 for task in session.tasks if task.group == group.name}
        for submission in cut(session, group, firsts, len(shown) + 1):
            needs = sorted({number for name in _needs(session, group) for number in made_by[name]})
            text = script(batch(session, group, submission, place, paths.logs))
            shown.append({"command": _command(needs, place.script(submission.number)), "script": text})
            made_by.setdefault(group.name, []).append(submission.number)
    return shown


def _max_array(runtime: "SlurmRuntime", say: Say) -> int:
    try:
        return runtime.client.max_array()
    except ContractError as error:
        from lary_slurm.runtime import DEFAULT_MAX_ARRAY

        say(f"{error}; taking arrays of {DEFAULT_MAX_ARRAY} tasks")
        return DEFAULT_MAX_ARRAY


def _needs(session: Session, group: GroupEntry) -> set[str]:
    """The groups whose tasks a group's tasks need."""
    needed = {need for task in session.tasks if task.group == group.name for need in task.needs}
    return {task.group for task in session.tasks if task.id in needed}


def _command(needs: list[int], path: Path) -> list[str]:
    """As `submit` has it, the ids that sbatch will give written as <1>, <2>."""
    waits = ":".join(f"<{number}>" for number in needs)
    dependency = [f"--dependency=afterok:{waits}", "--kill-on-invalid-dep=yes"] if needs else []
    return ["sbatch", "--parsable", *dependency, str(path)]
