"""How a container engine hands GPUs to containers: one answer for `auto`, for `doctor` and for what is started.

Three ways, each taken only where what it needs is seen. Device requests (`docker run --gpus`) are served by
NVIDIA's hook, which the engine looks for on its path and lists nowhere. NVIDIA's runtime is listed, and works
without the hook. CDI needs neither: the engine knows devices by the names of NVIDIA's specification.
"""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from lary_schema.base import ContractError
from lary_schema.gpus import Gpu, find_gpus

Way = Literal["gpus", "runtime", "cdi"]
RUNTIME = "nvidia"
CDI_KIND = "nvidia.com/gpu"
HOOK = "nvidia-container-runtime-hook"
SERVICE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a service looks for programs: what is on the caller's path alone, the engine does not find."""
NO_WAY = "the container engine has no way to GPUs (neither NVIDIA's hook for --gpus, nor its runtime, nor a CDI device)"
REMEDY = (
    "install nvidia-container-toolkit, then `nvidia-ctk runtime configure --runtime=docker` (or `nvidia-ctk cdi "
    "generate`, for an engine with CDI) and restart the engine"
)


@dataclass(frozen=True)
class GpuAccess:
    """The way GPUs get into containers, and under CDI each one's name there."""

    way: Way
    names: Mapping[str, str] = field(default_factory=dict)
    """UUID -> CDI device; "" -> all of them."""

    def __str__(self) -> str:
        return {"gpus": "device requests (--gpus)", "runtime": "NVIDIA's runtime", "cdi": "CDI"}[self.way]

    def arguments(self, uuids: Sequence[str]) -> dict[str, Any]:
        """Of docker's `containers.create`, environment apart; no UUID: all GPUs.

        Raises ContractError for a GPU that the engine does not know.
        """
        if self.way == "runtime":
            return {"runtime": RUNTIME, "device_requests": []}
        if self.way == "cdi":
            return {"device_requests": [{"driver": "cdi", "device_ids": [self._name(u) for u in uuids or [""]]}]}
        which: dict[str, Any] = {"device_ids": list(uuids)} if uuids else {"count": -1}
        return {"device_requests": [which | {"capabilities": [["gpu"]]}]}

    def environment(self, uuids: Sequence[str]) -> dict[str, str]:
        """What names the GPUs to NVIDIA's runtime; CDI needs it shut, lest a default runtime adds all of them."""
        if self.way == "gpus":
            return {}
        visible = "void" if self.way == "cdi" else ",".join(uuids) or "all"
        return {"NVIDIA_VISIBLE_DEVICES": visible}

    def _name(self, uuid: str) -> str:
        if uuid not in self.names:
            known = ", ".join(sorted(set(self.names.values()))) or "none"
            raise ContractError(
                f"the container engine has no CDI device for GPU {uuid or '(all)'}, it has {known}; "
                "run `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` and restart the engine"
            )
        return self.names[uuid]


def gpu_access(info: Mapping[str, Any], gpus: Sequence[Gpu] | None = None, hook: bool | None = None) -> GpuAccess | str:
    """How containers of the engine with this `docker info` get GPUs, or a sentence that says that they cannot.

    `gpus` and `hook` (is NVIDIA's there?) are looked up on this machine, which is the engine's, where not given.
    """
    if shutil.which(HOOK, path=SERVICE_PATH) is not None if hook is None else hook:
        return GpuAccess("gpus")
    if RUNTIME in (info.get("Runtimes") or {}):
        return GpuAccess("runtime")
    devices = cdi_devices(info)
    if devices:
        return GpuAccess("cdi", cdi_names(devices, find_gpus() if gpus is None else gpus))
    return NO_WAY


def cdi_devices(info: Mapping[str, Any]) -> set[str]:
    """NVIDIA's CDI devices: those that the engine lists (28.2 on); of older ones, those in its folders' files."""
    listed = {str(device.get("ID", "")) for device in info.get("DiscoveredDevices") or ()}
    if info.get("DiscoveredDevices") is None:
        folders = [Path(folder) for folder in info.get("CDISpecDirs") or ()]
        listed = {name for folder in folders for file in _spec_files(folder) for name in _names_in(file)}
    return {name for name in listed if name.startswith(f"{CDI_KIND}=")}


def _spec_files(folder: Path) -> list[Path]:
    return sorted(file for end in ("json", "yaml", "yml") for file in folder.glob(f"*.{end}"))


def _names_in(file: Path) -> list[str]:
    """The devices of one CDI specification; none of a file that is none, which the engine passes over too."""
    try:
        text = file.read_text(encoding="utf-8")
        spec = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
        return [f"{spec['kind']}={device['name']}" for device in spec["devices"]]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return []


def cdi_names(devices: Collection[str], gpus: Sequence[Gpu]) -> dict[str, str]:
    """UUID -> CDI device. nvidia-ctk names them by index, which is nvidia-smi's, by UUID, or both."""
    wanted = {"": ["all"]} | {gpu.uuid: [gpu.uuid, str(index)] for index, gpu in enumerate(gpus)}
    found: dict[str, str] = {}
    for uuid, names in wanted.items():
        there = [f"{CDI_KIND}={name}" for name in names if f"{CDI_KIND}={name}" in devices]
        found |= {uuid: there[0]} if there else {}
    return found
