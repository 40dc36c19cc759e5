"""`lary-orch latents`: which options stay here and which go to the tool."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lary_orch.cli import COMMANDS, latents
from lary_orch.runtimes import tools as data_tools


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the tools' runner got: workspace, environment, arguments."""
    calls: list[tuple[Any, ...]] = []

    def run_tool(catalog: Any, workspace: Any, environment: str, arguments: Any, notify: Any) -> int:
        calls.append((workspace, environment, tuple(arguments)))
        return 3

    monkeypatch.setattr(data_tools, "run_tool", run_tool)
    return calls


def test_folders_stay_and_the_rest_goes_on_in_order(called: list[Any], tmp_path: Path) -> None:
    given = ["import", "-m", "dinov2", "--latents", str(tmp_path), "-d", "calvin", "--env", "current", "--from", "old"]
    result = CliRunner().invoke(latents.command, given)
    assert result.exit_code == 3
    ((workspace, environment, arguments),) = called
    assert (workspace.latents, environment) == (tmp_path, "current")
    assert arguments == ("latents-import", "-m", "dinov2", "-d", "calvin", "--from", "old")


def test_help_is_the_tools(called: list[Any]) -> None:
    CliRunner().invoke(latents.command, ["export", "--help"])
    assert called[0][2] == ("latents-export", "--help")


def test_the_group_tells_the_same_first_line() -> None:
    assert latents.command.help is not None
    assert latents.command.help.split("\n\n")[0] == COMMANDS["latents"]
