"""The `process` runtime: a job is a child process in a virtual environment. Needs no container engine.

It isolates less than a container: the mounts are plain folders, and memory is not limited. What a
job is given is the same: the job's JSON, the mounts' variables, and nothing of the user's shell.
"""

import os
import subprocess
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from lary_schema import commands, more_jobs, orphans
from lary_schema.base import ContractError
from lary_schema.child_process import ProcessTask, spawn
from lary_schema.jobs import ExtractJob, ProbeJob
from lary_schema.more_jobs import VARIABLE, OneAfterTheOther
from lary_terminal.tables import size_text

from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes.base import (
    JOB_ENVIRONMENT,
    QUERY_TIMEOUT_S,
    Execution,
    Folder,
    LocalRuntime,
    Notify,
    Opening,
    Running,
    thread_environment,
)
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.frames import Shared, files_of, shared_files
from lary_orch.runtimes.jobs import JOB_FILE, Job, Prepared
from lary_orch.runtimes.refusals import refusal

INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "MUJOCO_GL",
    "MUJOCO_EGL_DEVICE_ID",
)
"""What a job sees of the caller's environment, as far as it is set."""


class Interpreters(Protocol):
    """Where the Python of an image comes from (see `environments`)."""

    @property
    def inherited(self) -> tuple[str, ...]:
        """Further variables that this kind of environment needs from the caller's."""

    def prepare(self, image: ImageSource, notify: Notify) -> Prepared:
        """Make the image's interpreter ready."""

    def python(self, prepared: Prepared) -> Path:
        """The interpreter that `prepare` made."""

    def hint(self, prepared: Prepared) -> str:
        """What to do when the image does not run in it."""


class ProcessRuntime(LocalRuntime):
    """Runs jobs as child processes. `owner` names the workspace, so that `sweep` finds its own alone."""

    name = "process"
    isolates = False

    def __init__(self, interpreters: Interpreters, owner: str, frames: Path | None = None) -> None:
        """`frames`: where files are kept that several jobs share; None: each reads for itself."""
        self._interpreters = interpreters
        self._owner = owner
        self._frames = frames

    def prepare(self, image: ImageSource, notify: Notify) -> Prepared:
        return self._interpreters.prepare(image, notify)

    def query(
        self, prepared: Prepared, *arguments: str, folders: Sequence[Folder] = (), limit_s: float = QUERY_TIMEOUT_S
    ) -> str:
        """`folders` need no mount here."""
        command = [*self._command(prepared), *arguments]
        env = self._env(prepared) | {"CUDA_VISIBLE_DEVICES": ""}
        try:
            done = subprocess.run(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ContractError(f"{' '.join(command)}: {error}") from None
        if done.returncode:
            hint = self._interpreters.hint(prepared)
            raise refusal(" ".join(command), arguments, done.returncode, done.stdout, done.stderr, hint)
        return done.stdout

    def open(self, opening: Opening) -> Execution:
        """Extractions of one model, and probes, follow each other in a process (0035); jobs share what they read."""
        kept = OneAfterTheOther(len(opening.slots))
        kept_files: list[Shared] = []

        def make_jobs() -> list[Job]:
            jobs = opening.make_jobs()
            kept_files.extend(self._shared(jobs))
            for one in kept_files:
                one.make()
            return jobs

        def at_end() -> None:
            kept.rest()
            for one in kept_files:
                one.remove_if_done()

        def start(job: Job, slot: Slot, stderr: Path) -> Running:
            kind, env = _kind(job), self._env(job.image) | {VARIABLE: "1"}
            if kind is None:
                return self.start(job, slot, stderr)
            own = job.mounts.to_env() | files_of(kept_files, job)
            whole = task_env(env, job, slot, self._owner) | own
            shared = tuple(sorted(whole.items() - own.items()))
            spawn = partial(self._spawn, job, whole, stderr, subprocess.PIPE)
            key, uuids = (job.image, kind, shared), frozenset(slot.device.uuids)
            light = isinstance(job.document, ProbeJob)
            return kept.start(more_jobs.Start(key, uuids, job.mounts.job / JOB_FILE, own, stderr, spawn, light))

        return opening.one_by_one(replace(opening, make_jobs=make_jobs), start, at_end)

    def remarks(self, jobs: Sequence[Job]) -> list[str]:
        return [f"{one.title}; {size_text(one.bytes)} are kept meanwhile." for one in self._shared(jobs) if one.title]

    def _shared(self, jobs: Sequence[Job]) -> list[Shared]:
        return shared_files(jobs, self._frames) if self._frames is not None else []

    def start(self, job: Job, slot: Slot, stderr: Path) -> ProcessTask:
        return self._spawn(job, task_env(self._env(job.image), job, slot, self._owner), stderr)

    def _spawn(self, job: Job, env: Mapping[str, str], stderr: Path, stdin: int = subprocess.DEVNULL) -> ProcessTask:
        command = [*self._command(job.image), job.verb, "--job", str(job.mounts.job / JOB_FILE)]
        try:
            return spawn(command, env, stderr, stdin)
        except OSError as error:
            raise ContractError(
                f"{command[0]}: cannot be started: {error}. {self._interpreters.hint(job.image)}"
            ) from None

    def sweep(self) -> list[str]:
        return orphans.sweep(self._owner)

    def adopt(self, ref: str) -> Prepared:
        raise ContractError(
            f"{ref}: no folder of an image and no name in the catalog; --runtime docker takes a reference"
        )

    def _command(self, prepared: Prepared) -> list[str]:
        return [str(self._interpreters.python(prepared)), "-m", prepared.source.card.module]

    def _env(self, prepared: Prepared) -> dict[str, str]:
        return base_env(os.environ, self._interpreters.inherited) | {"LARY_IMAGE": prepared.source.card.name}


def _kind(job: Job) -> Hashable | None:
    """Jobs of an image and of equal kinds may follow each other in a process; None: the job has one of its own."""
    document = job.document
    if isinstance(document, ExtractJob):
        return document.values.model
    # Trackers are libraries that log in threads of their own; several processes have a launcher.
    if isinstance(document, ProbeJob) and document.processes == 1 and not document.trackers:
        return ProbeJob.__name__, document.device, document.threads
    return None


def base_env(environ: Mapping[str, str], further: tuple[str, ...] = ()) -> dict[str, str]:
    """The part of the caller's environment that an image's commands see, and settings they all share."""
    kept = {name: environ[name] for name in (*INHERITED, *further) if name in environ}
    if "PYTHONPATH" in kept:
        # Where packages are installed by a module system; never the folder where the command was typed.
        folders = [Path(part) for part in kept["PYTHONPATH"].split(os.pathsep)]
        absolute = [str(one) for one in folders if one.is_absolute() and one.resolve() != Path.cwd()]
        kept["PYTHONPATH"] = os.pathsep.join(absolute)
    return kept | JOB_ENVIRONMENT | commands.environment()


def task_env(base: Mapping[str, str], job: Job, slot: Slot, owner: str) -> dict[str, str]:
    """The whole environment of a job: mounts, device, thread counts, and the label that `sweep` reads."""
    env = dict(base) | job.mounts.to_env() | orphans.labels(owner, job.run)
    env["CUDA_VISIBLE_DEVICES"] = ",".join(slot.device.uuids)
    return env | thread_environment(slot.cpus) | dict(job.env)
