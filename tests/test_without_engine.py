"""What the commands say where no container engine is reachable. Needs none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("lary-orch")


def _without(tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    env = os.environ | {"DOCKER_HOST": f"unix://{tmp_path}/nothing.sock", "LARY_HOME": str(tmp_path / "workspace")}
    return subprocess.run([COMMAND, *arguments], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "-m", "frame-diff", "-d", "demo_arm", "--runtime", "docker"),
        ("images", "build"),
        ("images", "ls"),
        ("images", "prune"),
        ("conformance", "baseline"),
    ],
)
def test_what_to_do_is_named(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = _without(tmp_path, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "is the engine running?" in done.stderr
    assert "--runtime process" in done.stderr


def _own_set(folder: Path) -> str:
    """A set of two pairs, as names and rows alone."""
    folder.mkdir()
    card = "key: toy\ntitle: t\ntask: classification\nroot: .\ncolumns: {input: image}\nmetadata: '{split}.csv'\n"
    (folder / "toy.yaml").write_text(card + "labels: {column: action}\nlicense: MIT\nsource: test\n")
    for split in ("train", "val"):
        (folder / f"{split}.csv").write_text("src_img,tgt_img,action\na.png,b.png,c\nd.png,e.png,f\n")
    return str(folder)


def test_auto_takes_processes_and_says_why(tmp_path: Path) -> None:
    # Latents that were not imported: no environment is made for them.
    wanted = ("-m", "mine", "-d", "toy", "--variant", "imported", "--catalog", _own_set(tmp_path / "cards"))
    done = _without(tmp_path, "plan", *wanted, "--runtime", "auto")
    assert "runtime process: no container engine is reachable" in done.stderr
