"""What the command line prints where text of others, a full disk or a closed pipe is involved."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lary_schema.atomic import publish_text

EVIL = "\x1b]0;owned\x07\u202e\x9b31m"
ESCAPED = "\\x1b]0;owned\\x07\\u202e\\x9b31m"
CLI = [sys.executable, "-m", "lary_orch"]
REPO = Path(__file__).parents[3]
FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """One result, one file that is none, both of a run whose folder has a hostile name."""
    from lary_schema.results import ProbeResult, RowCount

    root = tmp_path_factory.mktemp("ws")
    folder = root / f"results/{EVIL}/m/d"
    interval = {"low": 0.4, "high": 0.6, "unit": "groups", "groups": 5}
    epoch = {"epoch": 1, "value": 0.5, "selection": 0.5}
    seed = {"seed": 0, "early": epoch, "best": epoch, "last": epoch}
    split = {"value": 0.5, "interval": interval, "seeds": [seed], "floor": 0.1, "rows": {"used": 9, "failed": 0}}
    document: dict[str, Any] = {
        "kind": "classify", "metric": "top1", "run": "r", "model": "m", "variant": "v", "dataset": "d",
        "protocol": "p", "control": "none", "fingerprint": "f", "splits": {"val": split},
        "train_rows": RowCount(used=9, failed=0), "stores": [], "probe_image": "p", "probe_image_digest": None,
        "probe_code_sha256": "c", "code_revision": None, "device": EVIL, "libraries": {EVIL: EVIL}, "seconds": 1,
        "group": EVIL, "warnings": [EVIL],
    }  # fmt: skip
    publish_text(folder / "good/result.json", ProbeResult.model_validate(document).to_json())
    publish_text(folder / "bad/result.json", json.dumps({EVIL: EVIL}))
    return root


def invoke(workspace: Path, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [*CLI, *arguments, "--workspace", str(workspace)]
    return subprocess.run(command, check=False, timeout=280, **streams | options)


def controls(output: bytes) -> set[str]:
    """Characters that a terminal would act on or that would turn text around."""
    return {c for c in output.decode() if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 or c == "\u202e"}


@pytest.mark.parametrize("arguments", [("results",), ("results", "--csv"), ("results", "--json")])
def test_hostile_names_are_shown(workspace: Path, arguments: tuple[str, ...]) -> None:
    done = invoke(workspace, *arguments)
    assert done.returncode == 2, "one file is no result"
    assert controls(done.stdout) | controls(done.stderr) == set()
    assert ESCAPED in done.stderr.decode()
    if "--json" in arguments:
        (entry,) = json.loads(done.stdout)
        assert EVIL in entry["file"], "programs read the name as it is"
    elif "--csv" in arguments:
        assert ESCAPED in done.stdout.decode()


def test_all_json_of_commands_is_made_by_one_function() -> None:
    """Output is escaped for terminals: JSON with a control character in it would be invalid then."""
    packages = (
        "orchestrator",
        *(f"shared/{name}" for name in ("study", "results", "conformance", "slurm", "terminal")),
    )
    sources = (path for package in packages for path in (REPO / package / "src").rglob("*.py"))
    lines = (line.strip() for path in sources for line in path.read_text(encoding="utf-8").splitlines())
    printed = [line for line in lines if re.search(r"echo\(|\bout\.write\(", line)]
    assert sum("json_text(" in line for line in printed) >= 10, "the pattern finds them"
    assert [line for line in printed if re.search(r"json\.dumps|to_json\(", line)] == []


def test_errors_and_the_report_are_safe(workspace: Path) -> None:
    done = invoke(workspace, "results", "--run", f"x{EVIL}")
    assert (done.returncode, controls(done.stderr)) == (2, set())
    assert ESCAPED in done.stderr.decode()
    assert invoke(workspace, "report").returncode == 0
    content = (workspace / "report.html").read_bytes()
    assert controls(content) == set()
    assert content.decode().count(ESCAPED) >= 5


def test_a_terminal_gets_its_drawing_and_nothing_of_others(workspace: Path) -> None:
    ours, theirs = pty.openpty()
    done = invoke(workspace, "results", stdout=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"})
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # the end of a terminal
        pass
    os.close(ours)
    assert done.returncode == 2
    assert "─" in shown.decode()
    assert "50.0" in shown.decode()
    assert b"]0;owned\x07" not in shown
    assert "\u202e" not in shown.decode()
    assert "owned" in shown.decode()


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "arguments",
    [("results",), ("results", "--json"), ("results", "--csv"), ("models",), ("datasets",), ("models", "--json")],
    ids=" ".join,
)
def test_a_full_disk_is_one_line(workspace: Path, arguments: tuple[str, ...]) -> None:
    with FULL.open("w") as full:
        done = invoke(workspace, *arguments, stdout=full)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1] == "error: standard output: No space left on device"
    assert b"Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_traceback(workspace: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = invoke(workspace, "models", stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
