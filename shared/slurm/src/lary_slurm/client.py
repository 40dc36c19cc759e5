"""The commands of Slurm, and how often they may be called."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lary_orch.runtimes.process import INHERITED
from lary_schema.base import ContractError

TIMEOUT_S = 60
QUEUE_FORMAT = "%A|%F|%K|%T|%r|%N|%k"
"""Job id, array id, array index, state, reason, nodes, comment: the comment last, since it is free text."""
QUEUE_FIELDS = QUEUE_FORMAT.count("|")
LIVE = {
    *("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING", "REQUEUED", "REQUEUE_HOLD"),
    *("REQUEUE_FED", "RESV_DEL_HOLD", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED"),
}
"""States after which more is to come; all others are an end."""
RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"}
PASSING = (
    *("unable to contact", "timed out", "connection refused", "zero bytes", "temporarily", "backup controller"),
    *("dependency problem", "job submit limit", "maxsubmit", "maxjobcount", "slurm temporarily", "i/o error"),
)
"""What sbatch says when the same command may well succeed later: the controller is away, or a limit is reached."""


class SlurmError(ContractError):
    """A command of Slurm refused its arguments; trying again would not help."""


class SlurmAwayError(SlurmError):
    """No reply, or not yet: the controller is being restarted, a limit is reached."""


@dataclass(frozen=True)
class QueueEntry:
    """One task in the queue, or one that ended a short while ago (`MinJobAge`)."""

    slurm: int
    """Of the array job; of a job that is none, its own."""
    index: int
    state: str
    reason: str
    node: str
    comment: str

    @property
    def live(self) -> bool:
        return self.state in LIVE


class Client(Protocol):
    """What the runtime needs of a cluster."""

    def submit(self, script: Path, options: Sequence[str]) -> int:
        """Submit a script; its job id. Raises SlurmError, SlurmAwayError."""

    def queue(self, name: str) -> list[QueueEntry]:
        """All tasks of this user's jobs of that name. Raises SlurmAwayError where nobody responds."""

    def cancel(self, name: str) -> None:
        """Take all jobs of that name off the cluster. Raises SlurmAwayError where nobody responds."""

    def max_array(self) -> int:
        """The cluster's MaxArraySize."""


class Slurm:
    """The command-line client of this host."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._env = client_env(environ)

    def submit(self, script: Path, options: Sequence[str]) -> int:
        output = self.run("sbatch", "--parsable", *options, str(script))
        job_id = output.strip().splitlines()[-1].split(";")[0] if output.strip() else ""
        if not job_id.isdigit():
            raise SlurmError(f"sbatch {script}: no job id in its output {output!r}")
        return int(job_id)

    def queue(self, name: str) -> list[QueueEntry]:
        # --me alone makes the controller send one user's jobs instead of everybody's.
        output = self.run(
            "squeue", "--noheader", "--array", "--me", f"--name={name}", "--states=all", f"--format={QUEUE_FORMAT}"
        )
        return [entry for line in output.splitlines() if (entry := parse_entry(line)) is not None]

    def cancel(self, name: str) -> None:
        # No --me: scancel of 22.05 has it, older ones have not, and it ends no one else's jobs without it.
        self.run("scancel", f"--name={name}", f"--user={os.getuid()}")

    def max_array(self) -> int:
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", self.config(), re.MULTILINE)
        return int(found[1]) if found else 1001

    def config(self) -> str:
        """The controller's settings as text."""
        return self.run("scontrol", "show", "config")

    def run(self, *command: str, timeout_s: float = TIMEOUT_S) -> str:
        """Stdout of a command of Slurm. Raises SlurmAwayError, or SlurmError with what it said."""
        if shutil.which(command[0], path=self._env.get("PATH")) is None:
            raise SlurmError(
                f"{command[0]}: not found; --runtime slurm needs Slurm's client commands on this machine (a login node)"
            )
        try:
            done = run_apart(command, self._env, timeout_s)
        except subprocess.TimeoutExpired:
            raise SlurmAwayError(f"{command[0]}: timed out after {timeout_s:.0f} s") from None
        if done.returncode:
            said = done.stderr.strip() or f"exit {done.returncode}"
            passes = done.returncode < 0 or any(text in said.lower() for text in PASSING)
            kind = SlurmAwayError if passes else SlurmError
            raise kind(f"{command[0]}: {said}")
        return done.stdout


def run_apart(command: Sequence[str], env: Mapping[str, str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    """Run a command with nothing of this terminal. Raises OSError and TimeoutExpired.

    A Ctrl-C is for the orchestrator: sbatch must not die of it half way.
    """
    return subprocess.run(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
        start_new_session=True,
    )


def client_env(environ: Mapping[str, str]) -> dict[str, str]:
    """What sbatch gets, and with it the job: as much of the user's shell as every other runtime takes.

    Options that variables hold (SBATCH_*, and SLURM_* of a job that this runs in) would win over the script's.
    A login node's TMPDIR need not exist on another one.
    """
    names = {*INHERITED, "SLURM_CONF"} - {"TMPDIR"}
    return {name: environ[name] for name in environ if name in names}


def parse_entry(line: str) -> QueueEntry | None:
    """A line of squeue in QUEUE_FORMAT; None for anything else."""
    parts = line.split("|", QUEUE_FIELDS)
    if len(parts) <= QUEUE_FIELDS or not parts[0].isdigit():
        return None
    own, array, index, state, reason, node, comment = parts
    is_array = index.isdigit() and array.isdigit()
    return QueueEntry(int(array if is_array else own), int(index) if is_array else 0, state, reason, node, comment)


class Pace:
    """When the controller may be queried again: not before `least_s`, and less often while nothing changes."""

    def __init__(self, least_s: float, most_s: float = 60, clock: Callable[[], float] = time.monotonic) -> None:
        self._least_s = self._wait_s = least_s
        self._most_s = max(most_s, least_s)
        self._clock = clock
        self._next = clock()

    @property
    def due(self) -> bool:
        return self._clock() >= self._next

    def queried(self, *, changed: bool) -> None:
        """A query got a reply, or none."""
        self._wait_s = self._least_s if changed else min(2 * self._wait_s, self._most_s)
        self._next = self._clock() + self._wait_s

    def hurry(self) -> None:
        """Something was seen that only the controller can explain: query as soon as may be."""
        self._next = min(self._next, self._next - self._wait_s + self._least_s)
        self._wait_s = self._least_s
