"""A command is imported when it is called, and not before."""

from typing import Any

import click
import pytest
from click.testing import CliRunner
from lary_schema.base import ContractError, ExitCode, WeightsError
from lary_schema.lazy_group import LazyGroup, import_command, run_group

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


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ContractError("rows.csv: row 3"), ExitCode.BAD_JOB, "error: rows.csv: row 3\n"),
        (WeightsError("no weights"), ExitCode.WEIGHTS, "error: no weights\n"),
        (OSError(28, "disk is full", "out/a.csv"), ExitCode.BAD_JOB, "error: out/a.csv: disk is full; "
        "make room, and run the same command again\n"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    error: Exception, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def cli() -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["tool"])
    with pytest.raises(SystemExit) as ended:
        run_group(cli, "tool")
    assert (ended.value.code, capsys.readouterr().err) == (code, message)
