"""The `slurm` runtime: what jobs are started from, and how, on the cluster's nodes."""

import hashlib
import shutil
from pathlib import Path

from lary_schema.base import ContractError

from lary_orch.devices import Slot
from lary_orch.runtimes.base import Device, ImageSource, Prepared, Say
from lary_orch.runtimes.process import Interpreters, ProcessRuntime
from lary_orch.scheduler import Work
from lary_orch.slurm.client import Client
from lary_orch.slurm.launchers import Launch, arguments
from lary_orch.slurm.profile import Profile
from lary_orch.slurm.script import JOB
from lary_orch.slurm.state import GroupEntry, Session, TaskEntry

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
        return self._processes.prepare(image, say)

    def ask(self, prepared: Prepared, *arguments: str) -> str:
        return self._processes.ask(prepared, *arguments)

    def sweep(self) -> list[str]:
        """Nothing: whose orchestrator left has not died, and `cancel` ends the rest."""
        return []

    def slots(self) -> list[Slot]:
        """As many as a store is dealt out over; they are not kept busy here, but by Slurm."""
        device = Device("cuda" if self.profile.has_gpu else "cpu", None, "the cluster")
        return [Slot(device, self.profile.cpus or 1)] * self.profile.tasks

    def queue_name(self, run: str) -> str:
        """What all Slurm jobs of a run are called; another workspace's run of the same name is another one."""
        return f"lary-{run}-{hashlib.sha256(str(self._root).encode()).hexdigest()[:6]}"

    def session(self, run: str, works: list[Work], attempts: int, max_array: int) -> Session:
        """What is written down before anything is submitted."""
        groups: dict[str, GroupEntry] = {}
        for work in works:
            groups.setdefault(group_of(work), self._group(work))
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
        processes = ask.nodes or 1
        launch = Launch(
            module=work.prepared.source.card.module,
            verb=work.verb,
            image=work.prepared.source.card.name,
            program=str(self._interpreters.python(work.prepared)),
            mounts=mounts,
            gpu=ask.has_gpu,
            cpus=ask.cpus or 1,
            processes=processes,
            options=self.profile.launcher_options,
        )
        command = arguments(self.profile.launcher, launch)
        return GroupEntry(name=group_of(work), command=tuple(command), options=ask.options(), spread=processes > 1)


def group_of(work: Work) -> str:
    """The array job of a task: its store's; a probe is one of its own. Partitions end in `.pN`."""
    return work.id.rpartition(".p")[0] if work.verb == "extract" else work.id


def _entry(work: Work) -> TaskEntry:
    return TaskEntry.model_validate(
        {name: getattr(work, name) for name in ("id", "verb", "title", "mounts", "needs")} | {"group": group_of(work)}
    )


def require_client() -> None:
    """Raises ContractError where this machine has no client of Slurm."""
    if shutil.which("sbatch") is None:
        raise ContractError(
            "--runtime slurm: sbatch is not found on this machine; go to a login node of the cluster, or use "
            "--runtime docker or process"
        )
