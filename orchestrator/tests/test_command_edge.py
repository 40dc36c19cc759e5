"""What goes wrong at the edge of the command line is one line and an exit code: no traceback, no hang."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lary_demo as demo
import pytest

ENTRY = [sys.executable, "-m", "lary_orch"]


def lary(
    *arguments: str, cwd: Path, python: Path = Path(sys.executable), **how: object
) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LARY_")}
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [python, "-m", "lary_orch", *arguments],
        cwd=cwd,
        env=clean,
        stderr=subprocess.PIPE,
        text=True,
        timeout=280,
        check=False,
        **how,
    )


def said_once(stderr: str, *parts: str) -> None:
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert all(part in lines[0] for part in parts), stderr


@pytest.mark.parametrize("command", [["models"], ["datasets"], ["--help"], ["run", "--help"], ["results", "--json"]])
def test_a_full_disk_behind_stdout(command: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = lary(*command, cwd=tmp_path, stdout=full)
    assert done.returncode == 2
    said_once(done.stderr, "error: standard output: No space left on device")


@pytest.mark.parametrize("command", [["models"], ["datasets"]])
def test_a_reader_that_went_away_is_no_fault(command: list[str], tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = lary(*command, cwd=tmp_path, stdout=write)
    finally:
        os.close(write)
    assert done.stderr == ""


RUN = ["run", "-m", "frame-diff", "-d", "demo_arm", "--env", "current", "--protocol", "smoke"]


def _a_file(path: Path) -> None:
    path.write_text("x")


def _a_loop(path: Path) -> None:
    path.symlink_to(path)


def _a_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("which", "make"),
    [("ws", _a_file), ("ws", _a_loop), ("ws", _a_fifo), ("ws/cache", _a_file), ("ws/runs", _a_file)],
)
def test_something_else_stands_where_a_folder_belongs(
    make: Callable[[Path], None], which: str, tmp_path: Path, warm_python: Path, once: Any
) -> None:
    target = tmp_path / which
    if target.parent != tmp_path:
        target.parent.mkdir()
        (target.parent / "generated").symlink_to(once("demo_arm", lambda folder: demo.ensure("demo_arm", folder)))
    make(target)
    done = lary(*RUN, "--workspace", "ws", cwd=tmp_path, python=warm_python, stdout=subprocess.DEVNULL)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert which in done.stderr


INTERRUPTED_AT = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            os.kill(os.getpid(), signal.SIGINT)

MODULE, *sys.argv = sys.argv[1:]
sys.meta_path.insert(0, Interrupt())
runpy.run_module("lary_orch", run_name="__main__")
"""
"""Sends itself Ctrl-C as a module begins to be imported: early moments that no clock has to hit."""


@pytest.mark.parametrize("module", ["click", "lary_orch.cli", "lary_orch.cli.run", "lary_schema.cards", "rich.console"])
def test_ctrl_c_at_an_early_moment(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED_AT, module, "lary-orch", *RUN, "--workspace", str(tmp_path / "ws")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    # A shell says 130 of both: a process that exits so, and one that SIGINT ended.
    assert done.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in done.stderr
