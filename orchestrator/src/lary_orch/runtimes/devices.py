"""What this machine can compute on, and how it is shared out among tasks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lary_schema import commands
from lary_schema.base import ContractError
from lary_schema.gpus import Gpu

DeviceChoice = Literal["auto", "cpu", "cuda"]

CPU_SLOTS_MAX = 4
"""Without a GPU jobs run side by side on few cores each: on two cores, two jobs of one thread took
51 s where one job of two threads at a time took 138 s (small jobs are mostly imports, and threads
wait for each other). Beyond this the memory of that many models counts for more."""


@dataclass(frozen=True)
class Device:
    """What a job may compute on."""

    kind: str = "cpu"
    """`cpu` or `cuda`."""
    uuids: tuple[str, ...] = ()
    """Of the GPUs: one, or several that a probe's processes share."""
    name: str = "cpu"


@dataclass(frozen=True)
class Slot:
    """What one job at a time is given: a device, and its share of the processor cores and of the memory."""

    device: Device = Device()
    cpus: int | None = None
    """None: no share is set, the job may use all."""
    memory_share: float = 1
    """Of what jobs may use of the machine's memory: that of all slots together is 1, so that what runs side by side
    cannot take more than there is."""


def joined(slots: Sequence[Slot]) -> Slot:
    """Some slots as one, for a task whose processes share them."""
    devices = [slot.device for slot in slots]
    uuids = tuple(uuid for device in devices for uuid in device.uuids)
    name = devices[0].name if len(devices) == 1 else f"{len(devices)} x {devices[0].name}"
    cpus = sum(slot.cpus or 0 for slot in slots) or None
    return Slot(Device(devices[0].kind, uuids, name), cpus, min(1, sum(slot.memory_share for slot in slots)))


def cpu_count() -> int:
    """Cores that this process may use: fewer than the machine has under taskset, Slurm or a cpuset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_gpus(gpus: Sequence[Gpu], wanted: Sequence[str]) -> list[Gpu]:
    """The GPUs named by index or UUID (a unique beginning is enough); all of them when none is named.

    Raises ContractError for a name that fits no GPU, or more than one.
    """
    chosen = [_choose(gpus, name) for name in wanted] if wanted else list(gpus)
    return list(dict.fromkeys(chosen))


def _choose(gpus: Sequence[Gpu], name: str) -> Gpu:
    if name.isdigit() and int(name) < len(gpus):
        return gpus[int(name)]
    found = [gpu for gpu in gpus if gpu.uuid.startswith(name) and not name.isdigit()]
    if len(found) != 1:
        there = ", ".join(f"{i}: {gpu.uuid} ({gpu.name})" for i, gpu in enumerate(gpus)) or "none"
        raise ContractError(f"--gpus {name}: no single GPU of this name; this machine has {there}")
    return found[0]


def make_slots(
    choice: DeviceChoice, gpus: Sequence[Gpu], wanted: Sequence[str] = (), cpu_slots: int | None = None, cpus: int = 1
) -> list[Slot]:
    """One slot per chosen GPU; without GPUs, or by `cpu`, `cpu_slots` slots on the processor.

    By default one slot per core, at most CPU_SLOTS_MAX.

    The `cpus` cores and the memory are divided evenly. Raises ContractError for `cuda`, or GPUs named by hand, where
    there are none.
    """
    if choice == "cpu" and wanted:
        raise ContractError("--gpus together with --device cpu: leave one of them away")
    if choice != "cpu" and (gpus or wanted):
        devices = [Device("cuda", (gpu.uuid,), gpu.name) for gpu in choose_gpus(gpus, wanted)]
    elif choice == "cuda":
        raise ContractError(
            f"--device cuda: nvidia-smi lists no GPU here; use --device cpu, or run `{commands.command('doctor')}`"
        )
    else:
        devices = [Device()] * (cpu_slots or max(1, min(cpus, CPU_SLOTS_MAX)))
    return [Slot(device, max(1, cpus // len(devices)), 1 / len(devices)) for device in devices]
