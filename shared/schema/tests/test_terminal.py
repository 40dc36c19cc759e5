"""Standard output of commands: safe to look at, whatever is written."""

import os
import subprocess
import sys
from typing import Any

import pytest

MAIN = """
import sys
from lary_schema.terminal import safe_output, terminal_of
safe_output()
{body}
"""


def run(body: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run([sys.executable, "-c", MAIN.format(body=body)], check=False, **streams | options)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_codes_and_other_text(stream: str) -> None:
    done = run(f"sys.{stream}.write('a\\x1b[2J\\x9b\\u202eb\\tc 抓\\n\\udcff\\r')")
    assert getattr(done, stream) == "a\\x1b[2J\\x9b\\u202eb\tc 抓\n\\udcff\\x0d".encode()
    assert done.returncode == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_draws_by_itself_writes_below(unbuffered: str) -> None:
    """And nothing of it is lost where it is not flushed."""
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    assert run("terminal_of(sys.stdout).write('\\x1b[1m')", env=env).stdout == b"\x1b[1m"
    assert run("print('a', flush=True); terminal_of(sys.stderr).write('\\x1b[1m')", env=env).stderr == b"\x1b[1m"


def test_other_encodings_show_what_they_lack() -> None:
    done = run("print('抓é')", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.stdout == b"\\u6293\\xe9\n"


def test_closed_streams_stay_closed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from lary_schema.terminal import safe_output; safe_output(); import sys; "
         "sys.exit(3 if sys.stdout is None else 4)"],
        check=False, preexec_fn=lambda: os.close(1),
    )  # fmt: skip
    assert done.returncode == 3
