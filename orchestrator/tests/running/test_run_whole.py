"""`lary-orch run` with the real baseline and probe, in this interpreter, on a few rows."""

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lary_demo as demo
import pytest
import yaml
from click.testing import CliRunner, Result
from lary_orch.catalog.protocol_cards import load_protocol
from lary_orch.cli import cli
from lary_schema import orphans

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("lary_baseline", "lary_worker", "lary_probe")),
    reason="the images are not installed in this interpreter (make test does it)",
)


@pytest.fixture
def options(tmp_path: Path, once: Any, seed_workspace: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name in ("LARY_HOME", "DATA_DIR", "LARY_LA_DIR", "MODEL_DIR", "LARY_CATALOG"):
        monkeypatch.delenv(name, raising=False)
    smoke = load_protocol("smoke").model_dump(mode="json")
    short = smoke | {"key": "short", "regress": smoke["regress"] | {"epochs": 1, "width": 16}}
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(short))
    generated = once("demo_arm", lambda folder: demo.ensure("demo_arm", folder))
    (seed_workspace(tmp_path / "bench") / "generated").symlink_to(generated)
    shared = ["--workspace", str(tmp_path / "bench"), "--protocol", str(tmp_path / "short.yaml"), "--no-control"]
    return ["run", "-d", "demo_arm", "--runtime", "process", "--env", "current", "--device", "cpu", *shared]


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def _logs(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.glob("bench/runs/*/logs/*.events.jsonl"))


def test_the_table_and_then_nothing_to_do(options: list[str], tmp_path: Path) -> None:
    first = _run(*options, "-m", "frame-diff")
    assert first.exit_code == 0, first.output
    assert "2 extractions, 1 probes" in first.stderr
    assert "frame-diff" in first.stdout
    assert "demo_arm/val MSE" in first.stdout
    logs = _logs(tmp_path)
    assert len(logs) == 3

    second = _run(*options, "-m", "frame-diff")
    assert second.exit_code == 0
    assert "nothing to do" in second.stderr
    table = first.stdout.index("protocol short")
    assert second.stdout == first.stdout[table:]
    assert _logs(tmp_path) == logs


def test_the_rest_is_done_where_a_part_cannot_be(options: list[str]) -> None:
    result = _run(*options, "-m", "pixels", "-m", "pixel", "--json")
    assert result.exit_code == 2
    assert "did you mean pixels?" in result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["job"] for line in lines[:-1]} == {
        "extract.demo_arm.train.pixels.corrected.p0",
        "extract.demo_arm.val.pixels.corrected.p0",
        "regress.demo_arm.pixels.corrected",
    }
    assert [(s["model"], s["dataset"]) for s in lines[-1]["scores"]] == [("pixels", "demo_arm")]


def test_nothing_can_be_run(options: list[str]) -> None:
    result = _run(*options, "-m", "pixel")
    assert result.exit_code == 2
    assert "nothing of what was requested can be run" in result.stderr
    assert result.stdout == ""


def test_ctrl_c_leaves_nothing_and_the_same_command_goes_on(options: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from lary_orch.__main__ import main; main()", *options, "-m", "frame-diff"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert "started on cpu" in child.stdout.readline()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate()
    assert child.returncode == 130
    assert "the same command goes on from here" in said
    assert not _tasks_of(tmp_path / "bench")
    assert _run(*options, "-m", "frame-diff").exit_code == 0


def _tasks_of(workspace: Path) -> list[int]:
    if not orphans.PROC.is_dir():
        return []
    return [pid for pid in orphans._pids() if orphans._environ(pid).get(orphans.OWNER) == str(workspace)]
