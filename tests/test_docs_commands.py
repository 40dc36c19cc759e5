"""Every command in the docs can be typed: it exists, takes these options, and is run here or says why it is not."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from lary_data.__main__ import cli as data_tools
from lary_libero.commands.generate import command as generate
from lary_orch.cli import cli

REPO = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "images/*/README.md", "shared/*/README.md")
    for path in REPO.glob(pattern)
    if path.name != "CHANGELOG.md"
)
BLOCK = re.compile(r"(?m)^(?:<!-- (?P<mark>[^\n]+) -->\n)?```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```$", re.DOTALL)
OURS = re.compile(r"(?m)^(?:\.venv/bin/)?(?:lary-orch|make) ")
TARGETS = set(re.findall(r"(?m)^([\w$(][\w$()/.-]*):", (REPO / "Makefile").read_text(encoding="utf-8")))


class Block(NamedTuple):
    page: str
    line: int
    kind: str
    mark: str
    text: str


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("kind")) + 1
            yield Block(str(page.relative_to(REPO)), line, match["kind"], match["mark"] or "", match["text"])


BLOCKS = list(blocks())
SHELL = [block for block in BLOCKS if block.kind == "sh" or OURS.search(block.text)]
RUN = [block for block in SHELL if block.mark == "run"]


def ids(block: Block) -> str:
    return f"{block.page}:{block.line}"


def words(block: Block) -> Iterator[list[str]]:
    """The commands of a block, as the shell splits them; `a && b` is two, and a redirection belongs to neither."""
    for line in re.sub(r"\$\(.*?\)", "VALUE", block.text.replace("\\\n", " ")).splitlines():
        command: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word in ("&&", "|", ">", ";"):
                yield command
                command = []
            else:
                command.append(word)


def typed(block: Block, program: str) -> Iterator[list[str]]:
    for command in words(block):
        if command and Path(command[0]).name == program:
            yield command[1:]


def fault(arguments: list[str]) -> str | None:
    """What a command of lary-orch would refuse before it does anything."""
    context, command = click.Context(cli, info_name="lary-orch"), cli
    rest = arguments
    while isinstance(command, click.Group):
        if not rest or rest[0].startswith("-"):
            return None if not rest or rest[0] in ("--version", "--help") else f"no command before {rest[0]}"
        found = command.get_command(context, rest[0])
        if found is None:
            return f"no command {rest[0]!r}"
        name, context, command, rest = rest[0], click.Context(found, context, rest[0]), found, rest[1:]
        if name == "data":
            while rest[:1] and rest[0].startswith("--"):  # of `data` itself, each with a value
                if _refused(command, context, rest[:2]):
                    return f"data: no option {rest[0]}"
                rest = rest[2:]
            command = data_tools
            if rest[:2] == ["generate", "libero"]:
                command, rest = generate, rest[2:]
        if context.parent is not None and context.parent.info_name == "latents":
            tool = data_tools.get_command(context, f"latents-{name}")
            assert tool is not None
            own = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
            command = click.Command(name, params=[*tool.params, *own])
    return _refused(command, context, rest)


def _refused(command: click.Command, context: click.Context, arguments: list[str]) -> str | None:
    """Options, their number of values and the number of arguments, by click's own parser; values are not looked at."""
    if "--help" in arguments:
        return None
    try:
        given, rest, _ = command.make_parser(context).parse_args(args=list(arguments))
    except click.UsageError as error:
        return error.format_message()
    if rest:
        return f"unexpected {' '.join(rest)}"
    missing = [p.opts[0] for p in command.params if p.required and given.get(p.name or "") in (None, ())]
    return f"needs {', '.join(missing)}" if missing else None


@pytest.mark.parametrize("block", SHELL, ids=ids)
def test_commands_and_options_exist(block: Block) -> None:
    for arguments in typed(block, "lary-orch"):
        assert fault(arguments) is None, f"lary-orch {shlex.join(arguments)}"
    for arguments in typed(block, "make"):
        targets = [word for word in arguments if "=" not in word]
        assert set(targets) <= {*TARGETS, ".venv/.dev"}, arguments


def test_the_check_can_fail() -> None:
    assert "no command 'rnu'" in str(fault(["rnu"]))
    assert "--epcohs" in str(fault(["run", "-m", "x", "-d", "y", "--epcohs", "3"]))
    assert "no command" in str(fault(["data", "smaple-frames"]))
    assert "--nothing" in str(fault(["data", "check", "--nothing"]))
    assert "needs" in str(fault(["data", "manifest", "folder", "clips"]))
    assert "unexpected" in str(fault(["new-model", "a", "b"]))
    assert fault(["data", "--catalog", "x", "check", "-d", "y"]) is None
    assert len(SHELL) > 40


@pytest.mark.parametrize("page", [path for path in PAGES if path.parent == REPO / "docs"], ids=lambda path: path.name)
def test_each_block_of_the_docs_is_run_or_says_why_not(page: Path) -> None:
    for block in BLOCKS:
        if block.page == str(page.relative_to(REPO)):
            assert block.kind or page.name == "design.md", f"{ids(block)}: a block without a language"
            assert block.kind != "sh" or re.fullmatch(r"run|not run: \S.*", block.mark), ids(block)


@pytest.mark.parametrize("block", RUN, ids=ids)
def test_what_is_marked_runs(block: Block, tmp_path: Path) -> None:
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LARY_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_some_are_run() -> None:
    assert len(RUN) >= 2
