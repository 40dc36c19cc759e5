"""What a container is started with: values alone, so that isolation is tested without an engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lary_schema import commands
from lary_schema.engine_gpu import GpuAccess
from lary_schema.linked import linked_files

from lary_orch.runtimes.base import JOB_ENVIRONMENT, Folder, thread_environment
from lary_orch.runtimes.devices import Device, Slot
from lary_orch.runtimes.jobs import JOB_FILE, Job, Prepared

PIDS = 4096
"""Processes and threads: decode processes times their libraries' threads on a large host, and no fork bomb."""
TMP_BYTES = 1 << 30
"""Of /tmp, which lies in memory and counts against the memory limit."""
ENVIRONMENT = JOB_ENVIRONMENT | {"HOME": "/tmp"}
DEVICE_REQUESTS = GpuAccess("gpus")


@dataclass(frozen=True)
class Host:
    """What is known of the engine's machine and of the caller on it."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """Further groups: often what lets the caller read a shared data folder."""
    memory_bytes: int | None = None
    """What tasks without a limit of their own may use together: a leak ends the task, and not the machine."""


def task_arguments(
    job: Job, slot: Slot, host: Host, labels: Mapping[str, str], gpu: GpuAccess = DEVICE_REQUESTS
) -> dict[str, Any]:
    """Keyword arguments of `docker.models.containers.create` for one launch of a job.

    `gpu` is how this engine hands out GPUs. Raises ContractError where it does not know the slot's.
    """
    command = [job.verb, "--job", f"/job/{JOB_FILE}"]
    limits: dict[str, Any] = {"shm_size": job.shm_bytes, "mem_limit": memory_limit(job, slot, host)}
    # Without this a job may use as much swap again, and slows the whole machine down before it ends.
    limits["memswap_limit"] = limits["mem_limit"]
    if slot.cpus is not None:
        limits["nano_cpus"] = slot.cpus * 10**9
    env = thread_environment(slot.cpus) | _gpu_env(slot.device, gpu, job.image.source.card.kind) | dict(job.env)
    isolated = _isolated(_content(job.image), command, host, labels, env)
    devices = gpu.arguments(slot.device.uuids) if slot.device.kind == "cuda" else {"device_requests": []}
    return isolated | limits | {"mounts": _mounts(job)} | devices


def memory_limit(job: Job, slot: Slot, host: Host) -> int | None:
    """Bytes: the task's own limit, or its slot's share of what all tasks may use."""
    if job.memory_bytes or host.memory_bytes is None:
        return job.memory_bytes
    return int(host.memory_bytes * slot.memory_share)


def query_arguments(
    prepared: Prepared, arguments: Sequence[str], host: Host, labels: Mapping[str, str], folders: Sequence[Folder] = ()
) -> dict[str, Any]:
    """The same isolation for a command that is no job: `describe` and `selftest` see no folder, `convert` two."""
    return bare_arguments(_content(prepared), arguments, host, labels, folders)


def bare_arguments(
    image: str, arguments: Sequence[str], host: Host, labels: Mapping[str, str], folders: Sequence[Folder] = ()
) -> dict[str, Any]:
    """The same for an image of which nothing is known but how it is called."""
    limits: dict[str, Any] = {"mem_limit": host.memory_bytes, "memswap_limit": host.memory_bytes}
    if folders:
        limits["mounts"] = [_bind(f.target, f.source, read_only=f.read_only) for f in folders]
    return _isolated(image, list(arguments), host, labels, _gpu_env(Device(), DEVICE_REQUESTS)) | limits


def _content(prepared: Prepared) -> str:
    """By content: the tag may be given to another image while the run lasts."""
    return prepared.digest or prepared.ref


def _isolated(
    image: str, command: list[str], host: Host, labels: Mapping[str, str], env: dict[str, str]
) -> dict[str, Any]:
    return {
        "image": image,
        "command": command,
        "user": f"{host.uid}:{host.gid}",
        "group_add": [str(group) for group in host.groups],
        "working_dir": "/tmp",
        "environment": ENVIRONMENT | commands.environment() | env,
        "labels": dict(labels),
        "network_mode": "none",
        # The client's settings of proxies, passwords among them, are of no use without a network.
        "use_config_proxy": False,
        "read_only": True,
        "tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,size={TMP_BYTES},mode=1777"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": PIDS,
        "init": True,
        # Output is read by attaching: a log of the engine's own would grow next to ours without a limit.
        "log_config": {"type": "none"},
        # The end has to be read before the container goes: exit code and OOMKilled.
        "auto_remove": False,
        "stdin_open": False,
    }


def _gpu_env(device: Device, gpu: GpuAccess, kind: str = "") -> dict[str, str]:
    """CUDA images request all GPUs by a variable, which counts where NVIDIA's runtime is the default one. EGL, by which
    simulators draw, is only there where `graphics` is requested."""
    if device.kind == "cuda":
        what = "graphics,utility" if kind == "simulator" else "utility,video"
        return {"NVIDIA_DRIVER_CAPABILITIES": f"compute,{what}"} | gpu.environment(device.uuids)
    return {"NVIDIA_VISIBLE_DEVICES": "void"}


def _mounts(job: Job) -> list[dict[str, Any]]:
    """Bind mounts: what the job declares, and its own folder; one may be written, of a volume of latents the stores."""
    found = []
    for name in job.mounted:
        folder, read_only = getattr(job.mounts, name), name != job.writes
        targets = mounted(name, folder, job.stores)
        found += [_bind(target, source, read_only=read_only) for target, source in targets.items()]
    return found


def mounted(name: str, folder: Path, stores: Sequence[str]) -> dict[str, Path]:
    """Path in the container -> file or folder of the host: linked files and stores each for itself, else the folder."""
    files = {store: folder / store for store in stores} if name == "latents" and stores else linked_files(folder)
    return {f"/{name}": folder} if files is None else {f"/{name}/{one}": file for one, file in files.items()}


def _bind(target: str, source: Path, *, read_only: bool) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}
