"""How a task's command is started: as a process, or in a container. Values alone, tested without any of them."""

from collections.abc import Callable
from dataclasses import dataclass

from lary_schema.mounts import Mounts

from lary_orch.runtimes.base import JOB_ENVIRONMENT, JOB_FILE, thread_environment
from lary_orch.slurm.profile import Launcher


@dataclass(frozen=True)
class Launch:
    """One command of an image, wherever it runs."""

    module: str
    verb: str
    image: str
    """Name of the image; `python` or the archive is what it is started from."""
    program: str
    """The interpreter (process), the image's id (podman) or its file (apptainer, pyxis)."""
    mounts: Mounts
    gpu: bool = False
    cpus: int | None = None
    processes: int = 1
    """Of a probe that is spread: they meet over the network."""
    options: tuple[str, ...] = ()
    """The profile's own."""

    @property
    def environment(self) -> dict[str, str]:
        """What every launcher sets. Without a GPU none is seen, whatever the node has."""
        hidden = {} if self.gpu else {"CUDA_VISIBLE_DEVICES": ""}
        return JOB_ENVIRONMENT | thread_environment(self.cpus) | hidden


def process(launch: Launch) -> list[str]:
    """In the image's environment, with the mounts' folders named by variables."""
    env = launch.environment | launch.mounts.to_env() | {"LARY_IMAGE": launch.image}
    command = [launch.program, "-m", launch.module, launch.verb, "--job", str(launch.mounts.job / JOB_FILE)]
    return ["env", *(f"{name}={value}" for name, value in env.items()), *command]


LAUNCHERS: dict[Launcher, Callable[[Launch], list[str]]] = {"process": process}


def arguments(launcher: Launcher, launch: Launch) -> list[str]:
    """The command of one task."""
    return LAUNCHERS[launcher](launch)
