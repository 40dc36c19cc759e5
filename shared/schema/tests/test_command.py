"""Exit codes, the last event and a clean stdout, seen from outside the process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lary_schema.base import ContractError, ExitCode, WeightsError
from lary_schema.command import load_job, run_command
from lary_schema.events import Failed, _Event
from lary_schema.jobs import ProbeJob


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=280)


def test_contract_error_ends_in_its_code_and_event() -> None:
    events: list[_Event] = []

    def body() -> None:
        raise WeightsError("w.safetensors: other bytes")

    assert run_command(body, events.append, "job-1") == ExitCode.WEIGHTS
    (event,) = events
    assert isinstance(event, Failed)
    assert (event.job, event.code, event.message) == ("job-1", 4, "w.safetensors: other bytes")


def test_success_emits_nothing() -> None:
    events: list[_Event] = []
    assert run_command(lambda: None, events.append) == 0
    assert events == []


def test_own_faults_pass_through() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: print(1 // 0), lambda event: None)  # noqa: T201


def test_out_of_memory_has_its_code() -> None:
    def body() -> None:
        raise MemoryError

    assert run_command(body, lambda event: None) == ExitCode.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ('{"version": 99}', "job version 99"),
        ("[]", "job version None"),
        ('{"version": 1, "kind": "extract"}', "kind"),
    ],
)
def test_a_bad_job_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(text)
    with pytest.raises(ContractError, match=says) as caught:
        load_job(path, ProbeJob)
    assert str(path) in str(caught.value)


def test_missing_job_file_is_exit_code_2(tmp_path: Path) -> None:
    done = python(
        "from pathlib import Path\nfrom lary_schema.command import run_job\nfrom lary_schema.jobs import ProbeJob\n"
        f"raise SystemExit(run_job(Path({str(tmp_path / 'none.json')!r}), ProbeJob, lambda job, emit: None))"
    )
    assert done.returncode == ExitCode.BAD_JOB
    assert json.loads(done.stdout)["event"] == "error"
    assert "none.json" in done.stderr


def test_chatter_does_not_reach_stdout() -> None:
    done = python(
        "import os, subprocess, sys\nfrom lary_schema.command import claim_stdout\n"
        "from lary_schema.events import Warned\n"
        "emit = claim_stdout()\nprint('library')\nos.write(1, b'c library\\n')\n"
        "subprocess.run([sys.executable, '-c', 'print(\"child\")'])\nemit(Warned(job='j', message='m'))"
    )
    assert done.returncode == 0
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["warning"]
    assert {"library", "c library", "child"} <= set(done.stderr.splitlines())


def test_a_stall_ends_with_124_and_says_where() -> None:
    done = python(
        "import threading, types\nfrom lary_schema import watchdog\nfrom lary_schema.command import claim_stdout\n"
        # Its clock: however long the start takes, the time is not over before it waits.
        "now = 0.0\nwatchdog.time = types.SimpleNamespace(monotonic=lambda: now, process_time=lambda: 0.0)\n"
        "with watchdog.Watchdog(claim_stdout(), 'j', 0.2) as dog:\n"
        "    dog.beat('waiting for nothing')\n    now = 0.2\n    threading.Event().wait(250)"
    )
    assert done.returncode == ExitCode.STALLED
    assert json.loads(done.stdout)["message"] == "no progress for 0.2 s while waiting for nothing"
    assert "Current thread" in done.stderr or "Thread 0x" in done.stderr


def test_a_watchdog_that_is_fed_lets_the_work_end() -> None:
    done = python(
        "import time\nfrom lary_schema.command import claim_stdout\nfrom lary_schema.watchdog import Watchdog\n"
        "with Watchdog(claim_stdout(), 'j', 600) as watchdog:\n    watchdog.beat('step')\n"
    )
    assert (done.returncode, done.stdout) == (0, "")
