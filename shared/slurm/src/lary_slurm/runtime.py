"""The `slurm` runtime: what jobs are started from, and how, on the cluster's nodes."""

import hashlib
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lary_orch.catalog.cards import repository
from lary_orch.catalog.source import ImageSource
from lary_orch.run.attempts import ATTEMPTS
from lary_orch.runtimes.base import QUERY_TIMEOUT_S, Folder, Notify, Opening
from lary_orch.runtimes.devices import Device, Slot
from lary_orch.runtimes.images import Recipes
from lary_orch.runtimes.jobs import JOB_FILE, Job, Prepared, Task
from lary_orch.runtimes.process import Interpreters, ProcessRuntime
from lary_schema.base import ContractError
from lary_schema.runs import RunPaths

from lary_slurm.client import Client
from lary_slurm.follow import Follower, join
from lary_slurm.images import Exported
from lary_slurm.launchers import Launch, command, podman_lines
from lary_slurm.preview import preview
from lary_slurm.profile import Profile
from lary_slurm.query import query_container
from lary_slurm.script import JOB
from lary_slurm.state import GroupEntry, Session, SessionPaths

DEFAULT_MAX_ARRAY = 1001
"""Slurm's own default, where no controller is reachable (`plan` away from a cluster)."""


class SlurmRuntime:
    """Makes images ready on the shared volume, and turns work into what is submitted."""

    name = "slurm"
    isolates = False

    def __init__(self, client: Client, profile: Profile, interpreters: Interpreters, root: Path) -> None:
        self.client = client
        self.profile = profile
        self._interpreters = interpreters
        self._processes = ProcessRuntime(interpreters, owner=str(root))
        self._root = root

    def prepare(self, image: ImageSource, notify: Notify) -> Prepared:
        if self.profile.images is None or self.profile.launcher == "process":
            return self._processes.prepare(image, notify)
        exported = Exported.of(self.profile.images, image)
        exported.file(self.profile.images, self.profile.launcher)
        if exported.source is not None and image.folder is not None:
            current = Recipes(repository()).source(image)
            if current != exported.source:
                notify(
                    f"image {exported.name} in {self.profile.images} is not of these sources; export it again for them"
                )
        return Prepared(image, exported.ref, exported.id, exported.id)

    def query(
        self, prepared: Prepared, *arguments: str, folders: Sequence[Folder] = (), limit_s: float = QUERY_TIMEOUT_S
    ) -> str:
        """A container sees `folders` at their own path: the runtime does not claim to isolate."""
        if self.profile.launcher == "process":
            return self._processes.query(prepared, *arguments)
        launch = replace(self._launch(prepared, arguments), seen=tuple(folder.source for folder in folders))
        return query_container(self.profile, launch)

    def _launch(self, prepared: Prepared, arguments: tuple[str, ...]) -> Launch:
        card = prepared.source.card
        return Launch(
            module=card.module,
            arguments=arguments,
            image=card.name,
            program=self._program(prepared),
            uid=os.getuid(),
            gid=os.getgid(),
            before=self.profile.launcher_before,
            options=self.profile.launcher_options,
        )

    def _program(self, prepared: Prepared) -> str:
        if self.profile.launcher == "process":
            return str(self._interpreters.python(prepared))
        if self.profile.launcher == "podman":
            return str(prepared.digest).removeprefix("sha256:")
        assert self.profile.images is not None
        return str(Exported.of(self.profile.images, prepared.source).file(self.profile.images, self.profile.launcher))

    def sweep(self) -> list[str]:
        """Nothing: whose orchestrator left has not died, and `cancel` ends the rest."""
        return []

    def slots(self) -> list[Slot]:
        """As many as a store is divided among; they are not kept busy here, but by Slurm."""
        device = Device("cuda" if self.profile.has_gpu else "cpu", name="the cluster")
        return [Slot(device, self.profile.cpus or 1)] * self.profile.tasks

    def queue_name(self, run: str) -> str:
        """What all Slurm jobs of a run are called; another workspace's run of the same name is another one."""
        return f"lary-{run}-{hashlib.sha256(str(self._root).encode()).hexdigest()[:6]}"

    def session(self, run: str, jobs: Sequence[Job], attempts: int, max_array: int) -> Session:
        """What is written down before anything is submitted."""
        firsts: dict[str, Job] = {}
        for job in jobs:
            firsts.setdefault(job.group, job)
        return Session(
            run=run,
            name=self.queue_name(run),
            attempts=attempts,
            max_array=min(max_array, self.profile.max_array or max_array),
            profile=self.profile,
            groups=tuple(map(self._group, firsts.values())),
            tasks=tuple(map(as_task, jobs)),
        )

    def open(self, opening: Opening) -> Follower:
        """Joins the run where it is under way; else its jobs are written down, to be submitted."""
        found = join(self.client, opening.paths)
        if found is not None:
            session, paths = found
            opening.notify(f"run {session.run}: {len(session.tasks)} tasks are on the cluster already; following them")
            return Follower(self.client, session, paths, opening.paths)
        jobs = opening.make_jobs()
        max_array = self.client.max_array() if jobs else DEFAULT_MAX_ARRAY
        session = self.session(opening.paths.root.name, jobs, opening.attempts, max_array)
        paths = SessionPaths.make(opening.paths, session) if jobs else SessionPaths(opening.paths.root)
        return Follower(self.client, session, paths, opening.paths)

    def remarks(self, jobs: Sequence[Job]) -> list[str]:
        return []

    def preview(self, paths: RunPaths, jobs: Sequence[Job], notify: Notify) -> list[dict[str, Any]]:
        try:
            max_array = self.client.max_array()
        except ContractError as error:
            max_array = DEFAULT_MAX_ARRAY
            notify(f"{error}; taking arrays of {max_array} tasks")
        return preview(self.session(paths.root.name, jobs, ATTEMPTS, max_array), paths)

    def unfit(self, images: Iterable[ImageSource], *, gpu: bool) -> str | None:
        """Not looked for: nobody takes a cluster without naming it."""
        return None

    def _group(self, job: Job) -> GroupEntry:
        requested = self.profile if job.image.source.card.kind == "model" else self.profile.for_probes
        # Where the job's own folder is in it, the batch script puts in the task's.
        own = job.mounts.job.parent / JOB
        changed = {"job": own} if job.writes == "out" else {"job": own, "out": own}
        mounts = job.mounts.model_copy(update=changed)
        spread = (requested.nodes or 1) > 1
        launch = replace(
            self._launch(job.image, (job.verb, "--job", f"/job/{JOB_FILE}")),
            mounts=mounts,
            reads=job.reads,
            absent=frozenset(name for name in ("data", "weights") if not getattr(mounts, name).is_dir()),
            writable=job.writes,
            stores=job.stores,
            gpu=requested.has_gpu,
            cpus=requested.cpus or 1,
            spread=spread,
        )
        return GroupEntry(
            name=job.group,
            command=tuple(command(self.profile.launcher, launch)),
            options=requested.options(),
            setup=(*self._setup(job.image, named=not spread), *self._folders(job)),
            spread=spread,
        )

    def _folders(self, job: Job) -> tuple[str, ...]:
        """Shell lines that make what a container may write, where it sees nothing around it."""
        if self.profile.launcher == "process":
            return ()
        return tuple(shlex.join(["mkdir", "-p", str(job.mounts.latents / store)]) for store in job.stores)

    def _setup(self, prepared: Prepared, *, named: bool) -> tuple[str, ...]:
        if self.profile.launcher != "podman" or self.profile.images is None:
            return ()
        archive = Exported.of(self.profile.images, prepared.source).file(self.profile.images, "podman")
        return podman_lines(self._program(prepared), archive, self.profile.launcher_before, named=named)


def as_task(job: Job) -> Task:
    """What other hosts have to know of a job."""
    return Task(**{field.name: getattr(job, field.name) for field in fields(Task)})
