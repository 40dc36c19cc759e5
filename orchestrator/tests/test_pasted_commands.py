"""What is printed as a command is read by a shell as the command that was meant, and taken by it."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from lary_data.__main__ import cli as tools
from lary_orch.catalog.cards import Catalog
from lary_orch.catalog.source import ImageSource
from lary_orch.cli import COMMANDS, cli
from lary_orch.runtimes.images import how_to_get
from lary_results.remedies import REMEDIES, remedy
from lary_schema.commands import BOTH, TAKES, called_as, naming
from lary_terminal.fitting import fitted
from lary_terminal.table import Table

NAMES = ["plain", "with blank", "Größe", "it's", 'say "hi"', "$HOME;x", "日本 &"]
PROGRAMS = [("lary-orch",), ("uv", "run", "--project", "a b", "lary-orch"), ("python3", "-m", "lary_orch")]


def printed(text: str, program: tuple[str, ...]) -> Iterator[list[str]]:
    """The words of every command in a text: between backticks or brackets, or to the end of its line."""
    begin = shlex.join(program) + " "
    for found in re.finditer(re.escape(begin), text):
        line = text[found.start() :].partition("\n")[0]
        if text[: found.start()].endswith("`"):
            line = line.partition("`")[0]
        if line[len(begin) :].split()[0] not in COMMANDS:
            continue  # a version
        words = shlex.split(line)
        assert tuple(words[: len(program)]) == program
        yield words[len(program) :]


def understood(words: list[str], group: click.Command = cli, parent: click.Context | None = None) -> dict[str, Any]:
    """Parse as the command line does; the values of the innermost command. Raises UsageError."""
    head, rest = ("lary-orch", words) if parent is None else (words[0], words[1:])
    context = group.make_context(head, list(rest), parent=parent)
    if not isinstance(group, click.Group):
        if head == "data" and context.params["arguments"]:
            understood(list(context.params["arguments"]), tools)
        return context.params
    left = [*context._protected_args, *context.args]
    name, command, _ = group.resolve_command(context, left)
    assert command is not None, name
    return understood(left, command, context)


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards") / "my 'own' sets"
    folder.mkdir()
    card = {
        "key": "robots",
        "title": "of robots",
        "task": "regression",
        "columns": {"input": "image"},
        "metadata": "{split}.csv",
        "media": "m",
        "actions": {
            "column": "a",
            "folder": "a",
            "stride": 1,
            "dim": 1,
            "names": ["x"],
            "groups": {"position": [0]},
            "normalisation": {"kind": "per-robot", "robot_column": "robot", "stats": "stats.json"},
        },
        "license": "MIT",
        "source": "test",
    }
    (folder / "robots.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    return folder


SITUATIONS = [
    "runs",
    "status",
    "results",
    "results --run none",
    "models",
    "models vjepa2",
    "models hf-vit",
    "datasets",
    "datasets demo_arm",
    "weights ls",
    "weights verify vjepa2",
    "weights ls hf-vit",
    "run -m vjepa2 -d demo_arm",
    "datasets robots --catalog CARDS",
    "doctor -m vjepa2 --runtime process",
    "doctor -d robots --runtime process --catalog CARDS",
    "cancel none",
]


@pytest.mark.parametrize("line", SITUATIONS)
def test_commands_of_many_situations(line: str, tmp_path: Path, cards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with the folders that were named, and the program as it was called."""
    for name in ("LARY_HOME", "DATA_DIR", "MODEL_DIR", "VJEPA2_CKPT_PATH"):
        monkeypatch.delenv(name, raising=False)
    at = SITUATIONS.index(line)
    for name, program in ((NAMES[(at + i) % len(NAMES)], PROGRAMS[(at + i) % len(PROGRAMS)]) for i in (0, 3)):
        workspace = tmp_path / name
        words = [*(str(cards) if word == "CARDS" else word for word in line.split()), "--workspace", str(workspace)]
        with called_as(program):
            done = CliRunner().invoke(cli, words)
        text = done.output + (str(done.exception) if done.exception is not None else "")
        found = list(printed(text, program))
        assert found, text
        for command in found:
            params = understood(command)
            assert params["root"] == workspace
            if "CARDS" in line and "catalog_folders" in params:
                assert params["catalog_folders"] == (cards,)


def test_every_remedy_of_a_row() -> None:
    found = [words for reason in REMEDIES for words in printed(remedy(reason), ("lary-orch",))]
    assert [understood(words)["arguments"] for words in found] == [("-m", "MODEL", "-d", "DATASET")]


@pytest.mark.parametrize("name", NAMES)
def test_building_an_image_of_a_folder(name: str, tmp_path: Path) -> None:
    image = Catalog.load().image("baseline")
    with naming([("--catalog", tmp_path / "further")]):
        words = shlex.split(how_to_get(ImageSource(image.card, tmp_path / name)))
    params = understood(words[1:])
    assert params["catalog_folders"] == (tmp_path / name, tmp_path / "further")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_command_in_a_table_is_in_one_line(width: int) -> None:
    command = "python3 -m lary_orch run -m frame-diff -d demo_motion --catalog 'a long folder name' --protocol smoke"
    rows = [("one", "text " * 30, f"`{command}` does it"), ("two", "text", "-")]
    with called_as(("python3", "-m", "lary_orch")):
        lines = [line.text for line in fitted(Table("t", ("key", "what", "remedy"), rows, notes=(command,)), width)]
    assert sum(command in line for line in lines) == 2


def _paths(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _paths(command, f"{name} ")
        else:
            yield prefix + name, command


def test_which_folders_commands_take_is_what_click_says() -> None:
    found = {
        path: tuple(flag for flag in BOTH if any(flag in param.opts for param in command.params))
        for path, command in _paths(cli)
    }
    assert {name.partition(" ")[0] for name in found} == set(COMMANDS)
    assert {path: folders for path, folders in found.items() if folders} == dict(TAKES)
