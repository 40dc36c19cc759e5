import stat
from pathlib import Path

import pytest
from lary_orch.runtimes.devices import choose_gpus, make_slots
from lary_schema import gpus
from lary_schema.base import ContractError
from lary_schema.gpus import Gpu, find_gpus, parse_gpus

SMI = "GPU-aa11, NVIDIA H200, 143771, 12\nGPU-bb22, NVIDIA H200, 143771, [N/A]\n"
gpus_here = parse_gpus(SMI)


def test_parse() -> None:
    assert gpus_here == [
        Gpu("GPU-aa11", "NVIDIA H200", 143771 << 20, 12 << 20),
        Gpu("GPU-bb22", "NVIDIA H200", 143771 << 20, 0),
    ]


@pytest.mark.parametrize(("script", "found"), [(f"printf '%s' '{SMI}'", 2), ("echo broken driver; exit 9", 0)])
def test_nvidia_smi_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: int) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert len(find_gpus()) == found


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus.shutil, "which", lambda name: None)
    assert find_gpus() == []


def test_choosing() -> None:
    assert choose_gpus(gpus_here, []) == gpus_here
    assert choose_gpus(gpus_here, ["1", "GPU-a", "1"]) == [gpus_here[1], gpus_here[0]]


@pytest.mark.parametrize("name", ["2", "GPU-", "GPU-cc"])
def test_no_such_gpu(name: str) -> None:
    with pytest.raises(ContractError, match=rf"--gpus {name}.*0: GPU-aa11"):
        choose_gpus(gpus_here, [name])


def test_one_slot_per_gpu() -> None:
    slots = make_slots("auto", gpus_here, cpus=9)
    assert [(s.device.kind, s.device.uuids, s.cpus) for s in slots] == [
        ("cuda", ("GPU-aa11",), 4),
        ("cuda", ("GPU-bb22",), 4),
    ]


def test_the_processor_is_shared() -> None:
    slots = make_slots("cpu", gpus_here, cpu_slots=3, cpus=8)
    assert [(s.device.kind, s.device.uuids, s.cpus) for s in slots] == [("cpu", (), 2)] * 3
    assert [s.cpus for s in make_slots("auto", [], cpu_slots=4, cpus=2)] == [1] * 4
    assert [s.cpus for s in make_slots("auto", [], cpus=2)] == [1, 1]
    assert [s.cpus for s in make_slots("auto", [], cpus=9)] == [2] * 4


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ContractError, match="no GPU here"):
        make_slots("cuda", [])
    with pytest.raises(ContractError, match="machine has none"):
        make_slots("auto", [], ["0"])
    with pytest.raises(ContractError, match="leave one"):
        make_slots("cpu", gpus_here, ["0"])
