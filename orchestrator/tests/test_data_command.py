"""`lary-orch data`: its tools run as children and end with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = Path(sys.executable).with_name("lary-orch")
SLEEPER = """
import os, pathlib, sys, time
pathlib.Path(os.environ["LARY_MOUNT_OUT"], "pid").write_text(str(os.getpid()))
time.sleep(600)
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_tool_ends_with_the_command(tmp_path: Path) -> None:
    # Not the folder where the command runs, which is no input.
    package = tmp_path / "modules" / "lary_data"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(SLEEPER)
    env = os.environ | {"PYTHONPATH": str(package.parent), "LARY_HOME": str(tmp_path / "ws")}
    command = subprocess.Popen([COMMAND, "data", "--env", "current", "split"], env=env, cwd=tmp_path)
    said = tmp_path / "pid"
    while not (said.exists() and said.read_text()):
        assert command.poll() is None
        time.sleep(0.05)
    tool = int(said.read_text())
    assert _alive(tool)
    command.send_signal(signal.SIGTERM)
    assert command.wait(280) == 128 + signal.SIGTERM
    assert not _alive(tool)


def test_options_of_a_tool_are_its_own(tmp_path: Path) -> None:
    env = os.environ | {"LARY_HOME": str(tmp_path / "ws")}
    done = subprocess.run(
        [COMMAND, "data", "--env", "current", "split", "--help"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "--stratify" in done.stdout
