"""How a task's command is started: as a process, or in a container. Values alone, tested without any of them.

Containers get what they get under Docker (`runtimes.docker_args`), as far as each launcher has it: read-only
root and inputs, one writable mount, no capabilities, no network unless a probe is spread over nodes. The limits
of memory and processors are Slurm's, so a container has to stay in its job's control group.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lary_orch.runtimes.base import JOB_ENVIRONMENT, thread_environment
from lary_orch.runtimes.docker_args import ENVIRONMENT, PIDS, TMP_BYTES, mounted
from lary_orch.runtimes.jobs import JOB_FILE
from lary_schema.base import ContractError
from lary_schema.mounts import Mounts

from lary_slurm.profile import Launcher
from lary_slurm.script import CGROUPS, podman_setup

SHM_BYTES = 1 << 30
JOINING = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""By what the processes of a spread probe find each other; set by the batch script."""
END_S = 2
"""For a container to end politely; Slurm's KillWait, 30 s by default, ends the script that waits for it."""
FILES = 1024
"""Open files in a container of Podman: a job's own limit may be lower than the engine's wish, which then fails."""


@dataclass(frozen=True)
class Launch:
    """One command of an image, wherever it runs."""

    module: str
    arguments: tuple[str, ...]
    """Of the module: the verb and what follows. A job's file is named by `job_file`."""
    image: str
    """Name of the image; `program` is what it is started from."""
    program: str
    """The interpreter (process), the image's id (podman) or its file (apptainer, pyxis)."""
    mounts: Mounts | None = None
    """None for a query (`describe`)."""
    reads: tuple[str, ...] = ("data", "weights", "latents")
    """Mounts that the job declares besides its own folder."""
    absent: frozenset[str] = frozenset()
    """Read-only mounts whose folder does not exist: no weights are no fault of a model that needs none."""
    writable: str = "latents"
    """The one mount that may be written: `latents`, or `out` for a probe."""
    stores: tuple[str, ...] = ()
    """Below the latents volume: all that a container sees of it; none: the whole."""
    seen: tuple[Path, ...] = ()
    """Of a question: files that it reads, at their own path."""
    gpu: bool = False
    cpus: int | None = None
    spread: bool = False
    """One of several processes, which meet over the network."""
    uid: int = 0
    gid: int = 0
    before: tuple[str, ...] = ()
    """Of the profile: the launcher's own options, before its verb."""
    options: tuple[str, ...] = ()
    """Of the profile: after ours."""

    def environment(self, base: dict[str, str]) -> dict[str, str]:
        """What every launcher sets. Without a GPU none is seen, whatever the node has."""
        hidden = {} if self.gpu else {"CUDA_VISIBLE_DEVICES": ""}
        return base | thread_environment(self.cpus) | hidden

    def binds(self) -> list[tuple[Path, str, bool]]:
        """Host folder, path in the container, may be written."""
        if self.mounts is None:
            return _without_marks([(path, str(path), False) for path in self.seen])
        wanted = {*self.reads, "job", self.writable} - self.absent
        names = [name for name in ("data", "weights", "job", "latents", "out") if name in wanted]
        found = []
        for name in names:
            folder, writable = getattr(self.mounts, name), name == self.writable
            found += [(source, target, writable) for target, source in mounted(name, folder, self.stores).items()]
        return _without_marks(found)


def _without_marks(binds: list[tuple[Path, str, bool]]) -> list[tuple[Path, str, bool]]:
    """The same. Launchers read mounts as lists, with quotes and escapes of their own: no quoting holds for all."""
    for source, _, _ in binds:
        if any(mark in ',:"\\' or not mark.isprintable() for mark in str(source)):
            raise ContractError(
                f"{source}: a container's mount cannot have ',', ':', '\"', '\\' or a control character in its "
                "path; rename it"
            )
    return binds


def process(launch: Launch) -> list[str]:
    """In the image's environment, with the mounts' folders named by variables."""
    env = launch.environment(JOB_ENVIRONMENT) | {"LARY_IMAGE": launch.image}
    arguments = list(launch.arguments)
    if launch.mounts is not None:
        env |= launch.mounts.to_env()
        # The other launchers have it at the same path in every task.
        arguments = [str(launch.mounts.job / JOB_FILE) if a == f"/job/{JOB_FILE}" else a for a in arguments]
    return ["env", *_pairs(env), launch.program, "-m", launch.module, *arguments]


def podman(launch: Launch) -> list[str]:
    """By Podman, rootless or not; the image is in the node's own storage (see `podman_lines`)."""
    env = launch.environment(ENVIRONMENT)
    joining = JOINING if launch.spread else ()
    identity = [f"--user={launch.uid}:{launch.gid}", *([] if launch.uid == 0 else ["--userns=keep-id"])]
    seen = ["--device=nvidia.com/gpu=all", "--env=CUDA_VISIBLE_DEVICES"] if launch.gpu else []
    return [
        *("podman", *launch.before, "run", "--rm", "--pull=never", CGROUPS),
        f"--network={'host' if launch.spread else 'none'}",
        *("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"),
        *identity,
        *("--workdir=/tmp", f"--tmpfs=/tmp:rw,noexec,nosuid,nodev,size={TMP_BYTES},mode=1777"),
        *(f"--shm-size={SHM_BYTES}", f"--ulimit=nofile={FILES}:{FILES}", f"--ulimit=nproc={PIDS}:{PIDS}"),
        "--log-driver=none",
        *(f"--mount=type=bind,src={s},dst={t},ro={'false' if w else 'true'}" for s, t, w in launch.binds()),
        *(f"--env={pair}" for pair in _pairs(env)),
        *(f"--env={name}" for name in joining),
        *seen,
        *launch.options,
        *(launch.program, *launch.arguments),
    ]


def apptainer(launch: Launch) -> list[str]:
    """By Apptainer, from a SIF file; its root is read-only by itself."""
    env = launch.environment(ENVIRONMENT)
    network = [] if launch.spread else ["--net", "--network=none"]
    return [
        *("apptainer", *launch.before, "run", "--containall", "--cleanenv", "--no-home", "--no-privs"),
        *network,
        *("--pwd=/tmp", *(f"--bind={s}:{t}:{'rw' if w else 'ro'}" for s, t, w in launch.binds())),
        *(f"--env={pair}" for pair in _pairs(env)),
        *(["--nv"] if launch.gpu else []),
        *launch.options,
        *(launch.program, *launch.arguments),
    ]


def pyxis(launch: Launch) -> list[str]:
    """By srun with NVIDIA's Pyxis, which has no network isolation and does not run the image's entrypoint."""
    env = launch.environment(ENVIRONMENT)
    mounts = ",".join(f"{s}:{t}:{'rw' if w else 'ro'}" for s, t, w in launch.binds())
    return [
        *("srun", *launch.before, "--kill-on-bad-exit=1", f"--container-image={launch.program}"),
        *("--container-readonly", "--no-container-mount-home", "--no-container-remap-root"),
        *("--container-workdir=/tmp", *([f"--container-mounts={mounts}"] if mounts else [])),
        *launch.options,
        *("env", *_pairs(env), "python", "-m", launch.module, *launch.arguments),
    ]


def _pairs(env: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in env.items()]


LAUNCHERS: dict[Launcher, Callable[[Launch], list[str]]] = {
    "process": process,
    "podman": podman,
    "apptainer": apptainer,
    "pyxis": pyxis,
}


def command(launcher: Launcher, launch: Launch) -> list[str]:
    """The command of one task."""
    return LAUNCHERS[launcher](launch)


def podman_lines(image: str, archive: Path, before: Sequence[str], *, named: bool = False) -> tuple[str, ...]:
    """What a shell does before a container of Podman; `named` in a batch script, where it may be ended."""
    own = ["podman", *before]
    return podman_setup(
        [*own, "image", "exists", image],
        [*own, "load", "--quiet", f"--input={archive}"],
        [*own, "info", "--format={{.Host.OCIRuntime.Name}}"],
        [*own, "rm", "--force", "--ignore", f"--time={END_S}"] if named else None,
    )
