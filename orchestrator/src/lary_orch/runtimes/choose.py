"""The place of a run: which runtime, and which slots of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lary_schema.base import ContractError

from lary_orch.catalog.cards import Catalog, repository
from lary_orch.runtimes.base import ImageSource, LocalRuntime, Say
from lary_orch.runtimes.devices import DeviceChoice, Slot, cpu_count, find_gpus, make_slots
from lary_orch.runtimes.environments import Checkout, CurrentEnvironment, OwnEnvironments
from lary_orch.runtimes.process import Interpreters, ProcessRuntime
from lary_orch.workspace import Workspace

if TYPE_CHECKING:
    # Its import takes as long as the rest of the command line.
    from lary_slurm.runtime import SlurmRuntime

    from lary_orch.runtimes.docker import DockerRuntime


def process_runtime(workspace: Workspace, environment: str) -> ProcessRuntime:
    """Jobs as child processes."""
    return ProcessRuntime(interpreters(workspace, environment), owner=str(workspace.root))


def interpreters(workspace: Workspace, environment: str) -> Interpreters:
    """Environments of their own (`own`), or the running interpreter."""
    checkout = Checkout(repository())
    return OwnEnvironments(workspace.envs, checkout) if environment == "own" else CurrentEnvironment(checkout)


def open_slots(device: DeviceChoice, gpus: Sequence[str], cpu_slots: int | None) -> list[Slot]:
    """The slots of this machine by the options of `lary-orch run`."""
    found = [] if device == "cpu" and not gpus else find_gpus()
    return make_slots(device, found, gpus, cpu_slots, cpu_count())


def docker_runtime(workspace: Workspace) -> DockerRuntime:
    """Jobs as containers. Raises ContractError where no engine answers."""
    from lary_orch.runtimes.docker import DockerRuntime
    from lary_orch.runtimes.images import Recipes

    return DockerRuntime(str(workspace.root), Recipes(repository()))


def slurm_runtime(workspace: Workspace, environment: str, profile: Path | None) -> SlurmRuntime:
    """Jobs as tasks of a cluster. Raises ContractError for a bad profile."""
    from lary_slurm.client import Slurm
    from lary_slurm.profile import load_profile
    from lary_slurm.runtime import SlurmRuntime

    return SlurmRuntime(Slurm(), load_profile(profile), interpreters(workspace, environment), workspace.root)


def open_place(
    *,
    workspace: Workspace,
    say: Say,
    images: Iterable[ImageSource],
    runtime: str,
    environment: str,
    device: DeviceChoice,
    gpus: Sequence[str],
    cpu_slots: int | None,
    profile: Path | None = None,
) -> tuple[LocalRuntime | SlurmRuntime, list[Slot]]:
    """What the options `--runtime --env --device --gpus --cpu-slots --profile` stand for.

    Says what `auto` took, and why. `images` are those that the run needs. Raises ContractError for `docker`
    where no engine answers, and for options that do not go together.
    """
    if runtime == "slurm":
        if device != "auto" or gpus or cpu_slots is not None:
            raise ContractError(
                "--device, --gpus and --cpu-slots are of one machine; with --runtime slurm the profile says it "
                "(gpus, gres, tasks; --profile FILE)"
            )
        cluster = slurm_runtime(workspace, environment, profile)
        return cluster, cluster.slots()
    if profile is not None:
        raise ContractError("--profile goes with --runtime slurm alone")
    slots = open_slots(device, gpus, cpu_slots)
    if runtime == "docker":
        return docker_runtime(workspace), slots
    if runtime == "auto":
        chosen, why = _choose(workspace, environment, images, gpu=any(s.device.kind == "cuda" for s in slots))
        say(f"runtime {chosen.name}: {why}")
        return chosen, slots
    return process_runtime(workspace, environment), slots


def _choose(
    workspace: Workspace, environment: str, images: Iterable[ImageSource], *, gpu: bool
) -> tuple[LocalRuntime, str]:
    if environment != "own":
        return process_runtime(workspace, environment), f"--env {environment} is an option of it"
    try:
        docker = docker_runtime(workspace)
        why_not = docker.lacks(images, gpu=gpu)
    except ContractError:
        why_not = "no container engine answers"
    if why_not is None:
        return docker, "a container engine answers and has the images"
    return process_runtime(workspace, environment), why_not


def needed_images(catalog: Catalog, models: Iterable[str]) -> list[ImageSource]:
    """The images of these models, as far as they are known, and the probe's."""
    known = [source for key in models for source, card in catalog.models() if card.serves(key)]
    return [*known, catalog.probe()]
