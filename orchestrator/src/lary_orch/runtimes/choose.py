"""Which runtime, and which slots of this machine."""

from collections.abc import Iterable, Sequence
from typing import cast

from lary_schema.base import ContractError
from lary_schema.gpus import find_gpus

from lary_orch.catalog.cards import Catalog, repository
from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes.base import LocalRuntime, Notify, Runtime
from lary_orch.runtimes.devices import DeviceChoice, Slot, cpu_count, make_slots
from lary_orch.runtimes.environments import Checkout, CurrentEnvironment, OwnEnvironments
from lary_orch.runtimes.plugins import Plugin, Wanted, check_options, plugin, plugins
from lary_orch.runtimes.process import Interpreters, ProcessRuntime
from lary_orch.workspace import Workspace


def process_runtime(workspace: Workspace, environment: str) -> ProcessRuntime:
    """Jobs as child processes."""
    return ProcessRuntime(interpreters(workspace, environment), str(workspace.root), workspace.cache / "frames")


def interpreters(workspace: Workspace, environment: str) -> Interpreters:
    """Environments of their own (`own`), or the running interpreter."""
    checkout = Checkout(repository())
    return OwnEnvironments(workspace.envs, checkout) if environment == "own" else CurrentEnvironment(checkout)


def open_slots(device: DeviceChoice, gpus: Sequence[str], cpu_slots: int | None) -> list[Slot]:
    """The slots of this machine by the options of `lary-orch run`."""
    found = [] if device == "cpu" and not gpus else find_gpus()
    return make_slots(device, found, gpus, cpu_slots, cpu_count())


def _process(wanted: Wanted, workspace: Workspace) -> Runtime:
    return process_runtime(workspace, wanted.environment)


def _docker(_: Wanted, workspace: Workspace) -> Runtime:
    # Its import takes as long as the rest of the command line.
    from lary_orch.runtimes.docker import DockerRuntime
    from lary_orch.runtimes.images import Recipes

    return DockerRuntime(str(workspace.root), Recipes(repository()))


DOCKER = Plugin("docker", _docker, auto=1, fits="a container engine is reachable and has the images")
PROCESS = Plugin("process", _process, auto=2, fits="no other runtime can be used here")


def local(name: str, workspace: Workspace, environment: str = "own") -> LocalRuntime:
    """A runtime that starts each job by itself. Raises ContractError where it cannot be used here."""
    found = plugin(name)
    if found.auto is None:
        raise ContractError(f"runtime {name} starts no single job; use one of {', '.join(local_names())}")
    return cast(LocalRuntime, found.open(Wanted(name, environment), workspace))


def local_names() -> list[str]:
    return [name for name, found in plugins().items() if found.auto is not None]


def open_runtime(
    wanted: Wanted, workspace: Workspace, images: Iterable[ImageSource], notify: Notify
) -> tuple[Runtime, list[Slot]]:
    """What the options stand for: a runtime, and how many jobs of which kind are planned for at once.

    Says what `auto` took, and why. `images` are those that the run needs. Raises ContractError where the runtime
    cannot be used here, and for options that do not go together.
    """
    check_options(wanted)
    if wanted.runtime != "auto":
        runtime = plugin(wanted.runtime).open(wanted, workspace)
        return runtime, runtime.slots() or open_slots(wanted.device, wanted.gpus, wanted.cpu_slots)
    slots = open_slots(wanted.device, wanted.gpus, wanted.cpu_slots)
    chosen, why = _choose(wanted, workspace, list(images), gpu=any(slot.device.kind == "cuda" for slot in slots))
    notify(f"runtime {chosen.name}: {why}")
    return chosen, slots


def _choose(wanted: Wanted, workspace: Workspace, images: Sequence[ImageSource], *, gpu: bool) -> tuple[Runtime, str]:
    """The first runtime that has all it needs; why, or why not the one before it."""
    if wanted.environment != "own":
        return PROCESS.open(wanted, workspace), f"--env {wanted.environment} is an option of it"
    why_not = ""
    for found in sorted((p for p in plugins().values() if p.auto is not None), key=lambda p: p.auto or 0):
        try:
            runtime = found.open(wanted, workspace)
            refusal = runtime.unfit(images, gpu=gpu)
        except ContractError:
            refusal = "no container engine is reachable"
        if refusal is None:
            return runtime, why_not or found.fits
        why_not = refusal
    raise ContractError(f"no runtime can be used here: {why_not}")


def needed_images(catalog: Catalog, models: Iterable[str]) -> list[ImageSource]:
    """The images of these models, as far as they are known, and the probe's."""
    known = [source for key in models for source, card in catalog.models() if card.serves(key)]
    return [*known, catalog.probe()]
