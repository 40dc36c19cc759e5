"""How containers are cut off, as values: no engine is needed."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
from lary_orch.catalog.source import ImageSource
from lary_orch.plan.verbs import VERBS
from lary_orch.runtimes.devices import Device, Slot, joined, make_slots
from lary_orch.runtimes.docker import DockerRuntime
from lary_orch.runtimes.docker_args import PIDS, TMP_BYTES, Host, query_arguments, task_arguments
from lary_orch.runtimes.jobs import Job, Output, Prepared
from lary_orch.weights.convert import Conversion, container_arguments
from lary_schema.base import ContractError
from lary_schema.cards import ImageCard
from lary_schema.engine_gpu import GpuAccess, gpu_access
from lary_schema.gpus import Gpu
from lary_schema.linked import linked_folder
from lary_schema.mounts import Mounts

HOST = Host(uid=1000, gid=1001, groups=(44, 1001), memory_bytes=8 << 30)
CARD = ImageCard(name="toy", kind="model", module="lary_worker")
PREPARED = Prepared(ImageSource(CARD, None), "lary/toy:0", "sha256:beef", "sha256:beef")
LABELS = {"lary.run": "smoke-1", "lary.job": "a"}


def _job(verb: str = "extract", **fields: Any) -> Job:
    mounts = Mounts(**{name: Path("/host") / name for name in Mounts.model_fields})
    declared = VERBS[verb]
    start = Job(
        id="a",
        verb=verb,
        title="a",
        mounts=mounts,
        image=PREPARED,
        run="smoke-1",
        reads=declared.reads,
        writes=declared.writes,
    )
    return replace(start, **fields)


def _mounted(arguments: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    return {m["Target"]: (m["Source"], m["ReadOnly"]) for m in arguments["mounts"]}


def test_the_whole_value() -> None:
    """Every key, so that a limit cannot be lost unseen."""
    assert task_arguments(_job(), Slot(cpus=3), HOST, LABELS) == {
        "image": "sha256:beef",
        "command": ["extract", "--job", "/job/job.json"],
        "user": "1000:1001",
        "group_add": ["44", "1001"],
        "working_dir": "/tmp",
        "environment": {
            "HOME": "/tmp",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "PYTHONHASHSEED": "0",
            "PYTHONUNBUFFERED": "1",
            "PYTHONSAFEPATH": "1",
            "PYTHONNOUSERSITE": "1",
            "NVIDIA_VISIBLE_DEVICES": "void",
            "OMP_NUM_THREADS": "3",
            "MKL_NUM_THREADS": "3",
            "OPENBLAS_NUM_THREADS": "3",
        },
        "labels": LABELS,
        "network_mode": "none",
        "use_config_proxy": False,
        "read_only": True,
        "tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,size={TMP_BYTES},mode=1777"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": PIDS,
        "init": True,
        "log_config": {"type": "none"},
        "auto_remove": False,
        "stdin_open": False,
        "shm_size": 1 << 30,
        "mem_limit": 8 << 30,
        "memswap_limit": 8 << 30,
        "nano_cpus": 3 * 10**9,
        "device_requests": [],
        "mounts": [
            {"Type": "bind", "Source": "/host/data", "Target": "/data", "ReadOnly": True},
            {"Type": "bind", "Source": "/host/weights", "Target": "/weights", "ReadOnly": True},
            {"Type": "bind", "Source": "/host/job", "Target": "/job", "ReadOnly": True},
            {"Type": "bind", "Source": "/host/latents", "Target": "/latents", "ReadOnly": False},
        ],
    }


def test_a_conversion_sees_its_file_and_an_empty_folder(tmp_path: Path) -> None:
    """Every key again: of all commands this one reads what nobody may trust."""
    (tmp_path / "real.ckpt").touch()
    (tmp_path / "link.ckpt").symlink_to("real.ckpt")
    found = Conversion(tmp_path / "link.ckpt", tmp_path / "x" / "new.safetensors", ("--entry", "net"))
    arguments, folders = container_arguments(found, tmp_path / "x" / "draft")
    task = task_arguments(_job(), Slot(cpus=3), HOST, LABELS)
    kept = {
        "image",
        "user",
        "group_add",
        "working_dir",
        "labels",
        "network_mode",
        "use_config_proxy",
        "read_only",
        "tmpfs",
        "cap_drop",
    }
    kept |= {"security_opt", "pids_limit", "init", "log_config", "auto_remove", "stdin_open"}
    kept |= {"mem_limit", "memswap_limit"}
    found = query_arguments(PREPARED, arguments, HOST, LABELS, folders)
    assert found == {name: task[name] for name in kept} | {
        "command": ["convert", "/source/link.ckpt", "/target/new.safetensors", "--entry", "net"],
        "environment": {name: value for name, value in task["environment"].items() if "THREADS" not in name},
        "mounts": [
            {"Type": "bind", "Source": f"{tmp_path}/real.ckpt", "Target": "/source/link.ckpt", "ReadOnly": True},
            {"Type": "bind", "Source": f"{tmp_path}/x/draft", "Target": "/target", "ReadOnly": False},
        ],
    }
    assert found["network_mode"] == "none"


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_a_probe_reads_latents_and_writes_its_results_alone(verb: str) -> None:
    mounted = _mounted(task_arguments(_job(verb), Slot(), HOST, LABELS))
    assert [target for target, (_, read_only) in mounted.items() if not read_only] == ["/out"]
    assert mounted["/latents"] == ("/host/latents", True)


def test_a_gpu_is_named_by_its_uuid_and_no_other_is_seen() -> None:
    arguments = task_arguments(_job(), Slot(Device("cuda", ("GPU-7", "GPU-8"), "H")), HOST, LABELS)
    assert arguments["device_requests"] == [{"device_ids": ["GPU-7", "GPU-8"], "capabilities": [["gpu"]]}]
    assert "NVIDIA_VISIBLE_DEVICES" not in arguments["environment"]


@pytest.mark.parametrize("uuids", [(), ("GPU-7",), ("GPU-7", "GPU-8")])
def test_a_gpu_by_each_way_of_an_engine(uuids: tuple[str, ...]) -> None:
    """What the engine is given says which GPUs, whatever the way, and without a GPU none."""
    names = {"": "nvidia.com/gpu=all", "GPU-7": "nvidia.com/gpu=0", "GPU-8": "nvidia.com/gpu=GPU-8"}
    slot = Slot(Device("cuda", uuids, "H"))
    runtime = task_arguments(_job(), slot, HOST, LABELS, GpuAccess("runtime"))
    assert (runtime["runtime"], runtime["device_requests"]) == ("nvidia", [])
    assert runtime["environment"]["NVIDIA_VISIBLE_DEVICES"] == (",".join(uuids) or "all")
    cdi = task_arguments(_job(), slot, HOST, LABELS, GpuAccess("cdi", names))
    assert cdi["device_requests"] == [{"driver": "cdi", "device_ids": [names[uuid] for uuid in uuids or [""]]}]
    assert cdi["environment"]["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert "runtime" not in cdi
    for way in (GpuAccess("gpus"), GpuAccess("runtime"), GpuAccess("cdi", names)):
        without = task_arguments(_job(), Slot(), HOST, LABELS, way)
        assert without == task_arguments(_job(), Slot(), HOST, LABELS)
    assert docker.types.HostConfig("1.43", device_requests=cdi["device_requests"])["DeviceRequests"], "the SDK takes it"


@pytest.mark.parametrize("way", [GpuAccess("gpus"), GpuAccess("runtime")])
def test_simulators_may_draw_on_a_gpu_and_others_need_not(way: GpuAccess) -> None:
    """A driver's EGL is only in a container that requests `graphics`."""
    slot = Slot(Device("cuda", ("GPU-7",), "H"))
    found = {}
    for kind in ("model", "simulator"):
        image = replace(PREPARED, source=ImageSource(CARD.model_copy(update={"kind": kind}), None))
        job = _job(image=image, env={"MUJOCO_GL": "egl"})
        environment = task_arguments(job, slot, HOST, LABELS, way)["environment"]
        assert environment["MUJOCO_GL"] == "egl"
        found[kind] = environment["NVIDIA_DRIVER_CAPABILITIES"].split(",")
    assert found == {"model": ["compute", "utility", "video"], "simulator": ["compute", "graphics", "utility"]}
    assert "NVIDIA_DRIVER_CAPABILITIES" not in task_arguments(_job(), Slot(), HOST, LABELS)["environment"]


def test_a_gpu_that_cdi_does_not_have_is_named() -> None:
    slot = Slot(Device("cuda", ("GPU-9",), "H"))
    with pytest.raises(ContractError, match=r"no CDI device for GPU GPU-9, it has nvidia.com/gpu=0"):
        task_arguments(_job(), slot, HOST, LABELS, GpuAccess("cdi", {"GPU-7": "nvidia.com/gpu=0"}))


@pytest.mark.parametrize(
    ("info", "hook"),
    [
        ({}, True),
        ({"Runtimes": {"nvidia": {}}}, False),
        ({"DiscoveredDevices": [{"ID": "nvidia.com/gpu=0"}]}, False),
        ({"Runtimes": {"runc": {}}}, False),
    ],
)
def test_auto_and_a_start_go_by_one_answer(info: dict[str, Any], hook: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = DockerRuntime.__new__(DockerRuntime)
    answer = gpu_access(info, [Gpu("GPU-7", "H", 1, 0)], hook)
    runtime._client = SimpleNamespace(info=lambda: info)
    monkeypatch.setattr("lary_orch.runtimes.docker.gpu_access", lambda given: answer if given is info else None)
    slot = Slot(Device("cuda", ("GPU-7",), "H"))
    assert runtime.unfit([], gpu=False) is None
    if isinstance(answer, str):
        assert runtime.unfit([], gpu=True) == answer
        with pytest.raises(ContractError, match=r"no way to GPUs.*install nvidia-container-toolkit"):
            runtime._access(slot)
    else:
        assert runtime.unfit([], gpu=True) is None
        assert runtime._access(slot) is answer


def test_of_the_latents_volume_an_extraction_sees_its_store_alone(tmp_path: Path) -> None:
    store = "demo/train/pixels/f0.zarr"
    mounts = _job().mounts.model_copy(update={"latents": tmp_path})
    outputs = (Output("latents", store, "f0", (1,)), Output("latents", store, "f0", (2,)))
    job = _job(mounts=mounts, outputs=outputs)
    mounted = _mounted(task_arguments(job, Slot(), HOST, LABELS))
    assert {target: place for target, place in mounted.items() if target.startswith("/latents")} == {
        f"/latents/{store}": (f"{tmp_path}/{store}", False)
    }
    assert [target for target, (_, read_only) in mounted.items() if not read_only] == [f"/latents/{store}"]
    job.make_stores()
    job.make_stores()
    assert (tmp_path / store).is_dir()
    probe = _job("classify", mounts=mounts, outputs=(Output("out", "result.json", "f1"),))
    assert _mounted(task_arguments(probe, Slot(), HOST, LABELS))["/latents"] == (str(tmp_path), True)


def test_a_tasks_own_limits_count_before_the_hosts() -> None:
    arguments = task_arguments(_job(memory_bytes=1 << 20, shm_bytes=5, env={"X": "1"}), Slot(), HOST, LABELS)
    assert (arguments["mem_limit"], arguments["memswap_limit"], arguments["shm_size"]) == (1 << 20, 1 << 20, 5)
    assert arguments["environment"]["X"] == "1"
    assert "nano_cpus" not in arguments


@pytest.mark.parametrize("memory", [8 << 30, 1_000_003, (1 << 40) - 1])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 49])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_limits_of_what_runs_side_by_side_add_up_to_the_machines(kind: str, count: int, memory: int) -> None:
    host = replace(HOST, memory_bytes=memory)
    gpus = [Gpu(f"GPU-{n}", "H", 1, 0) for n in range(count)] if kind == "cuda" else []
    slots = make_slots("auto", gpus, cpu_slots=count, cpus=8)
    limits = [task_arguments(_job(), slot, host, LABELS)["mem_limit"] for slot in slots]
    assert len(limits) == count
    assert memory - count <= sum(limits) <= memory
    whole = task_arguments(_job("classify", slots=count), joined(slots), host, LABELS)
    assert memory - 1 <= whole["mem_limit"] <= memory, "a probe on all slots has what they have together"
    half = joined(slots[: count // 2 or 1])
    assert task_arguments(_job(), half, host, LABELS)["memswap_limit"] <= sum(limits[: count // 2 or 1]) + count


def test_no_limit_of_the_host_is_no_limit() -> None:
    host = replace(HOST, memory_bytes=None)
    assert task_arguments(_job(), Slot(memory_share=0.25), host, LABELS)["mem_limit"] is None
    assert task_arguments(_job(memory_bytes=5), Slot(memory_share=0.25), HOST, LABELS)["mem_limit"] == 5


def test_an_image_without_a_digest_goes_by_its_reference() -> None:
    job = _job(image=replace(PREPARED, digest=None))
    assert task_arguments(job, Slot(), HOST, LABELS)["image"] == "lary/toy:0"


def test_a_question_is_as_isolated_and_sees_no_folder() -> None:
    found = query_arguments(PREPARED, ("describe", "--model", "x"), HOST, LABELS)
    job = task_arguments(_job(), Slot(), HOST, LABELS)
    assert "mounts" not in found
    assert found["command"] == ["describe", "--model", "x"]
    assert {k: v for k, v in found.items() if k != "command"}.items() <= job.items()


def test_each_linked_file_is_mounted_for_itself(tmp_path: Path) -> None:
    """And nothing of the folder that holds it."""
    (tmp_path / "home").mkdir()
    file = tmp_path / "home" / "vitl.pt"
    file.touch()
    mounts = _job().mounts.model_copy(update={"weights": linked_folder({"sub/vitl.pt": file}, tmp_path)})
    found = _mounted(task_arguments(_job(mounts=mounts), Slot(cpus=3), HOST, LABELS))
    assert found["/weights/sub/vitl.pt"] == (str(file), True)
    assert {target for target in found if target.startswith("/weights")} == {"/weights/sub/vitl.pt"}
    empty = _job().mounts.model_copy(update={"weights": linked_folder({}, tmp_path)})
    assert not any(
        "/weights" in target for target in _mounted(task_arguments(_job(mounts=empty), Slot(), HOST, LABELS))
    )


def test_the_clients_proxies_stay_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By what the SDK would send: of docker's own settings, nothing is in the environment."""
    proxy = {"proxies": {"default": {"httpProxy": "http://me:secret@proxy:1", "noProxy": "x"}}}
    (tmp_path / "config.json").write_text(json.dumps(proxy))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    client = docker.DockerClient(base_url="tcp://127.0.0.1:9", version="1.43")
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(
        client.api, "create_container_from_config", lambda config, *_: sent.append(config) or {"Id": "x"}
    )
    monkeypatch.setattr("docker.models.containers.ContainerCollection.get", lambda *_: None)
    client.containers.create(**task_arguments(_job(), Slot(), HOST, LABELS))
    assert "secret" not in json.dumps(sent[0])
    client.containers.create(**(task_arguments(_job(), Slot(), HOST, LABELS) | {"use_config_proxy": True}))
    assert "secret" in json.dumps(sent[1]), "the SDK would hand them on"
