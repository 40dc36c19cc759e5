"""A command is imported when it is called, and not before."""

from typing import Any

import click
import pytest
from click.testing import CliRunner
from lary_schema.lazy_group import LazyGroup, import_command

LINES = {"second-one": "Say two.", "first": "Say one."}


@pytest.fixture
def loaded() -> list[str]:
    return []


@pytest.fixture
def group(loaded: list[str]) -> click.Group:
    def load(name: str) -> click.Command:
        loaded.append(name)
        return click.Command(name, callback=lambda: click.echo(f"this is {name}"))

    @click.group(cls=LazyGroup, lazy=LINES, load=load, heading="Tools")
    def cli() -> None:
        """All of it."""

    return cli


def run(group: Any, *arguments: str) -> Any:
    return CliRunner().invoke(group, arguments)


def test_help_loads_nothing(group: click.Group, loaded: list[str]) -> None:
    text = run(group, "--help").output
    assert text.index("Tools:") < text.index("second-one  Say two.") < text.index("first       Say one.")
    assert loaded == []


def test_only_the_called_command_is_loaded(group: click.Group, loaded: list[str]) -> None:
    assert run(group, "first").output == "this is first\n"
    assert loaded == ["first"]


def test_another_name_is_no_command(group: click.Group, loaded: list[str]) -> None:
    found = run(group, "third")
    assert found.exit_code == 2
    assert "No such command 'third'" in found.output
    assert loaded == []


def test_a_command_is_the_module_of_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    folder = tmp_path / "lazy_tools"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "two_words.py").write_text("import click\ncommand = click.Command('found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_command("lazy_tools", "two-words").name == "found"
