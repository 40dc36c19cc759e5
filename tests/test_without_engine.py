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


def test_auto_takes_processes_and_says_why(tmp_path: Path) -> None:
    done = _without(tmp_path, "plan", "-m", "no-such-model", "-d", "demo_arm", "--runtime", "auto")
    assert "runtime process: no container engine is reachable" in done.stderr
