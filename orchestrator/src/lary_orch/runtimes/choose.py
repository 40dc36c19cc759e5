"""The place of a run: which runtime, and which slots of this machine."""

from collections.abc import Sequence

from lary_orch.catalog import repository
from lary_orch.devices import DeviceChoice, Slot, cpu_count, find_gpus, make_slots
from lary_orch.runtimes.base import Runtime, Say
from lary_orch.runtimes.environments import Checkout, CurrentEnvironment, OwnEnvironments
from lary_orch.runtimes.process import Interpreters, ProcessRuntime
from lary_orch.workspace import Workspace


def process_runtime(workspace: Workspace, environment: str) -> ProcessRuntime:
    """Jobs as child processes, in environments of their own or in the running interpreter."""
    checkout = Checkout(repository())
    interpreters: Interpreters = CurrentEnvironment(checkout)
    if environment == "own":
        interpreters = OwnEnvironments(workspace.envs, checkout)
    return ProcessRuntime(interpreters, owner=str(workspace.root))


def open_slots(device: DeviceChoice, gpus: Sequence[str], cpu_slots: int | None) -> list[Slot]:
    """The slots of this machine by the options of `lary-orch run`."""
    found = [] if device == "cpu" and not gpus else find_gpus()
    return make_slots(device, found, gpus, cpu_slots, cpu_count())


def open_place(
    *,
    workspace: Workspace,
    say: Say,
    runtime: str,
    environment: str,
    device: DeviceChoice,
    gpus: Sequence[str],
    cpu_slots: int | None,
) -> tuple[Runtime, list[Slot]]:
    """What the options `--runtime --env --device --gpus --cpu-slots` stand for; says what `auto` took, and why."""
    return process_runtime(workspace, environment), open_slots(device, gpus, cpu_slots)
