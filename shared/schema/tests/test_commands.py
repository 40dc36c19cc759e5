"""Printed commands, read back by real shells."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lary_schema import commands
from lary_schema.commands import Called, called, called_as, command, from_environment, joined, naming, program, quoted
from lary_schema.printable import printable_lines

HARD = [
    *("", " ", "a b", "Größe/日本", "it's", '"q"', "$HOME", "`id`", "a\\b", "-x", "~", "*", "!", "a;b", "é'ü", "#c"),
    *("line\nbreak", "tab\there", "\x1b[31mred", "nbsp\u00a0", "\u202eodd", "\udcff.bin", "'\n\\", "😀"),
]


def read_by_bash(*lines: str) -> list[list[bytes]]:
    """The words of each command line, as bash sees them."""
    script = "\n".join(f"printf '%s\\0' {line}; printf '\\0end\\0'" for line in lines)
    out = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    return [part.split(b"\0")[:-1] for part in out.split(b"\0end\0")[:-1]]


def test_every_word_is_read_back_by_bash() -> None:
    lines = [printable_lines(joined(["begin", word])) for word in HARD]
    assert read_by_bash(*lines) == [[b"begin", os.fsencode(word)] for word in HARD]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" ")), min_size=1))
def test_printable_words_are_read_back_by_posix_rules(words: list[str]) -> None:
    assert shlex.split(joined(words)) == words


def test_plain_words_stay_as_they_are() -> None:
    assert command("status", "smoke-1a2b", "--failures") == "lary-orch status smoke-1a2b --failures"
    assert quoted("--set=a.b=1") == "--set=a.b=1"


def test_folders_follow_where_a_command_takes_them() -> None:
    named = [("--workspace", "/w s"), ("--data-dir", None), ("--catalog", "c1"), ("--catalog", Path("c 2"))]
    with naming(named):
        assert command("status") == "lary-orch status --workspace '/w s'"
        assert command("images", "build", "x") == "lary-orch images build x --catalog c1 --catalog 'c 2'"
        both = "--workspace '/w s' --catalog c1 --catalog 'c 2'"
        assert command("data", "stats", "-d", "k") == f"lary-orch data {both} stats -d k"
        assert command("latents", "import") == f"lary-orch latents import {both}"
        assert command("images", "prune") == "lary-orch images prune"
        # What the command itself says goes first; a catalog is one more.
        mine = command("run", "--workspace", "other", "--catalog", "c1")
        assert mine == "lary-orch run --workspace other --catalog c1 --catalog 'c 2'"
    assert command("status") == "lary-orch status"


def test_inner_names_are_added_and_forgotten() -> None:
    lines = []

    def inside() -> None:
        with naming([("--workspace", "w")]), naming([("--catalog", "c")]):
            lines.append(command("run"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        inside()
    assert [*lines, command("run")] == ["lary-orch run --workspace w --catalog c", "lary-orch run"]


def test_another_process_prints_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert commands.environment() == {}
    with called_as(["uv", "run", "lary-orch"]), naming([("--data-dir", "/d ä")]):
        env, line = commands.environment(), command("run")
        assert program() == "uv run lary-orch"
    printing = "from lary_schema.commands import command; print(ascii(command('run')))"
    argv = [sys.executable, "-c", printing]
    done = subprocess.run(argv, env=os.environ | env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ascii(line) == "\"uv run lary-orch run --data-dir '/d \\xe4'\""


@pytest.mark.parametrize("text", ["", "{", "[]", "[1]", '[["x"], 3]', "null", '[["x"], [["a"]]]'])
def test_a_damaged_variable_means_the_plain_program(text: str) -> None:
    assert from_environment({commands.VARIABLE: text}) == Called()


# --- how this process was called --------------------------------------------------------------


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "bin" / "lary-orch"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    monkeypatch.setattr(commands, "_parent", lambda: ["bash"])
    return script


def test_a_program_on_the_path_has_its_name_alone(on_path: Path) -> None:
    assert called([str(on_path), "run"], ["python", str(on_path), "run"]) == ["lary-orch"]


def test_another_program_of_the_name_is_called_by_its_path(on_path: Path) -> None:
    assert called([".venv/bin/lary-orch", "run"], ["python", ".venv/bin/lary-orch", "run"]) == [".venv/bin/lary-orch"]


def test_a_module_is_called_as_one(on_path: Path) -> None:
    original = ["python3.12", "-X", "dev", "-m", "lary_orch", "run", "-m", "x"]
    assert called(["/src/lary_orch/__main__.py", "run", "-m", "x"], original) == original[:5]


@pytest.mark.parametrize(
    ("parent", "words"),
    [
        (["uv", "run", "lary-orch", "run", "-m", "x"], ["uv", "run", "lary-orch"]),
        (["/opt/uv", "run", "--project", "a b", "lary-orch", "run", "-m", "x"], None),
        (["uvx", "lary-orch", "run", "-m", "x"], ["uvx", "lary-orch"]),
        (["bash", "-c", "lary-orch", "run", "-m", "x"], ["lary-orch"]),
        (["uv", "run", "bash"], ["lary-orch"]),
        ([], ["lary-orch"]),
    ],
)
def test_what_uv_started_is_started_by_uv_again(
    parent: list[str], words: list[str] | None, on_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_parent", lambda: parent)
    found = called([str(on_path), "run", "-m", "x"], ["python", str(on_path), "run", "-m", "x"])
    assert found == (words or parent[:5])


def test_the_parent_is_read_from_the_system() -> None:
    if not Path("/proc/self/cmdline").is_file():
        pytest.skip("this system has no /proc")
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    child = "from lary_schema.commands import _parent; print(_parent()[-1][:4])"
    done = subprocess.run([sys.executable, "-c", code, child], capture_output=True, text=True, check=True)
    assert done.stdout == "from\n"
