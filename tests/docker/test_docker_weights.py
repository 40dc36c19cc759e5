"""`weights convert` in a container: what comes out, and what the container can reach."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lary_orch.runtimes.base import Folder
from lary_orch.runtimes.docker import DockerRuntime
from lary_orch.runtimes.jobs import Prepared
from safetensors.torch import load_file

pytestmark = pytest.mark.docker


class Hyper(dict[str, Any]):
    """A trainer's own class, which the container knows nothing of."""


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    path = tmp_path / "lam.ckpt"
    torch.save({"state_dict": {"lam.w": torch.arange(6.0)}, "hyper_parameters": Hyper(lr=1)}, path)
    return path


def test_tensors_come_out_and_nothing_else_is_left(bench: Any, pickled: Path, tmp_path: Path) -> None:
    target = tmp_path / "made" / "lam.safetensors"
    said = bench("weights", "convert", pickled, target, "--i-trust-this-file", "--runtime", "docker")
    assert load_file(target)["lam.w"].tolist() == [0, 1, 2, 3, 4, 5]
    assert "Hyper" in json.loads(said)["dropped"]["hyper_parameters"]
    assert {path.name for path in target.parent.iterdir()} == {"lam.safetensors", ".lam.safetensors.json"}
    assert json.loads(target.with_name(".lam.safetensors.json").read_text()) == json.loads(said)


def test_auto_takes_the_container(bench: Any, pickled: Path, tmp_path: Path) -> None:
    run = bench.start("weights", "convert", pickled, tmp_path / "lam.safetensors", "--i-trust-this-file")
    _, err = run.communicate(timeout=600)
    assert run.returncode == 0, err
    assert "runtime docker" in err
    assert "does not isolate" not in err


def test_what_is_not_converted_leaves_nothing(bench: Any, pickled: Path, tmp_path: Path) -> None:
    pickled.write_bytes(pickled.read_bytes()[:300])
    target = tmp_path / "made" / "lam.safetensors"
    said = bench("weights", "convert", pickled, target, "--i-trust-this-file", "--runtime", "docker", code=4)
    assert "lam.ckpt: truncated or damaged" in said
    assert "Traceback" not in said
    assert list(target.parent.iterdir()) == []


def test_it_reaches_neither_network_nor_other_files(runtime: DockerRuntime, fake: Prepared, tmp_path: Path) -> None:
    """Seen from inside, with the same arguments."""
    for name in ("job", "draft"):
        (tmp_path / name).mkdir()
    (tmp_path / "job" / "job.json").write_text(json.dumps(["facts"]))
    folders = [Folder(tmp_path / "job", "/job"), Folder(tmp_path / "draft", "/latents", read_only=False)]
    facts = json.loads(runtime.query(fake, "convert", folders=folders))
    assert facts["interfaces"] == ["lo"]
    assert facts["connect"] == "OSError"
    assert facts["capabilities"] == 0
    assert {path for path, outcome in facts["write"].items() if outcome == "allowed"} == {"/latents", "/tmp"}
