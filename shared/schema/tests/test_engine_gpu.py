"""How containers get GPUs, by what an engine says of itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from lary_schema.base import ContractError
from lary_schema.engine_gpu import NO_WAY, GpuAccess, cdi_devices, gpu_access
from lary_schema.gpus import Gpu

GPUS = [Gpu("GPU-a", "H", 1, 0), Gpu("GPU-b", "H", 1, 0)]
INDEX, UUID, OTHER = "nvidia.com/gpu=1", "nvidia.com/gpu=GPU-b", "vendor.com/nic=1"


def _listed(*names: str) -> dict[str, Any]:
    return {"DiscoveredDevices": [{"Source": "cdi", "ID": name} for name in names]}


@pytest.mark.parametrize("hook", [False, True])
@pytest.mark.parametrize("runtime", [None, {}, {"runc": {}}, {"nvidia": {}}])
@pytest.mark.parametrize("device", [None, INDEX, OTHER])
def test_each_way_is_taken_where_what_it_needs_is_there(
    hook: bool, runtime: dict[str, Any] | None, device: str | None
) -> None:
    info: dict[str, Any] = {"Runtimes": runtime} | (_listed(device) if device else {"DiscoveredDevices": None})
    found = gpu_access(info, GPUS, hook)
    way = "gpus" if hook else "runtime" if runtime and "nvidia" in runtime else "cdi" if device == INDEX else None
    assert (found.way if isinstance(found, GpuAccess) else found) == (way or NO_WAY)


def test_an_engine_that_says_nothing() -> None:
    assert gpu_access({}, GPUS, hook=False) == NO_WAY


@pytest.mark.parametrize(
    ("names", "of_b"),
    [((INDEX,), INDEX), ((UUID,), UUID), ((INDEX, UUID), UUID), (("nvidia.com/gpu=all", INDEX), INDEX)],
)
def test_a_cdi_device_is_found_by_uuid_or_by_index(names: tuple[str, ...], of_b: str) -> None:
    access = gpu_access(_listed(*names, OTHER), GPUS, hook=False)
    assert isinstance(access, GpuAccess)
    assert access.arguments(["GPU-b"]) == {"device_requests": [{"driver": "cdi", "device_ids": [of_b]}]}
    with pytest.raises(ContractError, match="no CDI device for GPU GPU-a"):
        access.arguments(["GPU-a"])
    if "nvidia.com/gpu=all" not in names:
        with pytest.raises(ContractError, match=r"for GPU \(all\)"):
            access.arguments([])


@pytest.mark.parametrize("end", ["json", "yaml", "yml"])
def test_of_an_older_engine_the_specifications_are_read(tmp_path: Path, end: str) -> None:
    """Engines before 28.2 name folders and no devices."""
    spec = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"name": "all"}]}
    (tmp_path / f"nvidia.{end}").write_text(json.dumps(spec) if end == "json" else yaml.safe_dump(spec))
    (tmp_path / "other.json").write_text(json.dumps(spec | {"kind": "vendor.com/nic"}))
    info = {"CDISpecDirs": ["/none", str(tmp_path)]}
    assert cdi_devices(info) == {"nvidia.com/gpu=0", "nvidia.com/gpu=all"}
    assert cdi_devices(info | {"DiscoveredDevices": []}) == set(), "what the engine lists counts"
    assert cdi_devices({"CDISpecDirs": []}) == set(), "CDI is off"


@pytest.mark.parametrize("text", ["", "[]", "{", "kind: nvidia.com/gpu", "{kind: a, devices: [0]}", "a: b: c"])
def test_a_file_that_is_no_specification_gives_no_device(tmp_path: Path, text: str) -> None:
    (tmp_path / "nvidia.yaml").write_text(text)
    assert gpu_access({"CDISpecDirs": [str(tmp_path)]}, GPUS, hook=False) == NO_WAY


def test_the_hook_is_looked_for_where_a_service_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = tmp_path / "nvidia-container-runtime-hook"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    monkeypatch.setattr("lary_schema.engine_gpu.SERVICE_PATH", f"/none:{tmp_path}")
    assert gpu_access({}, GPUS) == GpuAccess("gpus")
    hook.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_access({}, GPUS) == NO_WAY
