"""The `slurm` runtime: what jobs are started from, and how, on the cluster's nodes."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from lary_orch.catalog.cards import repository
from lary_orch.run.scheduler import Work
from lary_orch.runtimes.base import JOB_FILE, Device, ImageSource, Prepared, Say
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.images import Recipes
from lary_orch.runtimes.process import Interpreters, ProcessRuntime

from lary_slurm.ask import ask_container
from lary_slurm.client import Client
from lary_slurm.images import Exported
from lary_slurm.launchers import Launch, command, podman_lines
from lary_slurm.profile import Profile
from lary_slurm.script import JOB
from lary_slurm.state import GroupEntry, Session, TaskEntry

DEFAULT_MAX_ARRAY = 1001
"""Slurm's own default, where nobody can be asked (`plan` away from a cluster)."""


class SlurmRuntime:
    """Makes images ready on the shared volume, and turns work into what is submitted."""

    name = "slurm"

    def __init__(self, client: Client, profile: Profile, interpreters: Interpreters, root: Path) -> None:
        self.client = client
        self.profile = profile
        self._interpreters = interpreters
        self._processes = ProcessRuntime(interpreters, owner=str(root))
        self._root = root

    def prepare(self, image: ImageSource, say: Say) -> Prepared:
        if self.profile.images is None or self.profile.launcher == "process":
            return self._processes.prepare(image, say)
        exported = Exported.of(self.profile.images, image)
        exported.file(self.profile.images, self.profile.launcher)
        if exported.source is not None and image.folder is not None:
            current = Recipes(repository()).source(image)
            if current != exported.source:
                say(f"image {exported.name} in {self.profile.images} is not of these sources; export it again for them")
        return Prepared(image, exported.ref, exported.id, exported.id)

    def ask(self, prepared: Prepared, *arguments: str) -> str:
        if self.profile.launcher == "process":
            return self._processes.ask(prepared, *arguments)
        return ask_container(self.profile, self._launch(prepared, arguments))

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
        """As many as a store is dealt out over; they are not kept busy here, but by Slurm."""
        device = Device("cuda" if self.profile.has_gpu else "cpu", name="the cluster")
        return [Slot(device, self.profile.cpus or 1)] * self.profile.tasks

    def queue_name(self, run: str) -> str:
        """What all Slurm jobs of a run are called; another workspace's run of the same name is another one."""
        return f"lary-{run}-{hashlib.sha256(str(self._root).encode()).hexdigest()[:6]}"

    def session(self, run: str, works: list[Work], attempts: int, max_array: int) -> Session:
        """What is written down before anything is submitted."""
        groups: dict[str, GroupEntry] = {}
        for work in works:
            if group_of(work) not in groups:
                groups[group_of(work)] = self._group(work)
        return Session(
            run=run,
            name=self.queue_name(run),
            attempts=attempts,
            max_array=min(max_array, self.profile.max_array or max_array),
            profile=self.profile,
            groups=tuple(groups.values()),
            tasks=tuple(_entry(work) for work in works),
        )

    def _group(self, work: Work) -> GroupEntry:
        ask = self.profile if work.verb == "extract" else self.profile.for_probes
        # Where the job's own folder is in it, the batch script puts in the task's.
        mounts = work.mounts.model_copy(update={"job": work.mounts.job.parent / JOB})
        if work.verb == "extract":
            mounts = mounts.model_copy(update={"out": mounts.job})
        spread = (ask.nodes or 1) > 1
        launch = replace(
            self._launch(work.prepared, (work.verb, "--job", f"/job/{JOB_FILE}")),
            mounts=mounts,
            absent=frozenset(name for name in ("data", "weights") if not getattr(mounts, name).is_dir()),
            writable="latents" if work.verb == "extract" else "out",
            gpu=ask.has_gpu,
            cpus=ask.cpus or 1,
            spread=spread,
        )
        return GroupEntry(
            name=group_of(work),
            command=tuple(command(self.profile.launcher, launch)),
            options=ask.options(),
            setup=self._setup(work.prepared, named=not spread),
            spread=spread,
        )

    def _setup(self, prepared: Prepared, *, named: bool) -> tuple[str, ...]:
        if self.profile.launcher != "podman" or self.profile.images is None:
            return ()
        archive = Exported.of(self.profile.images, prepared.source).file(self.profile.images, "podman")
        return podman_lines(self._program(prepared), archive, self.profile.launcher_before, named=named)


def group_of(work: Work) -> str:
    """The array job of a task: its store's; a probe is one of its own. Partitions end in `.pN`."""
    return work.id.rpartition(".p")[0] if work.verb == "extract" else work.id


def _entry(work: Work) -> TaskEntry:
    return TaskEntry.model_validate(
        {name: getattr(work, name) for name in ("id", "verb", "title", "mounts", "needs")} | {"group": group_of(work)}
    )
