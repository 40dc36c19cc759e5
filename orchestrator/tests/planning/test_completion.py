"""What a shell offers after Tab."""

from typing import Any

import pytest
from click.shell_completion import ShellComplete
from lary_orch.cli import cli
from lary_orch.plan.files import write_plan


def offered(world: Any, monkeypatch: pytest.MonkeyPatch, words: list[str], typed: str) -> list[str]:
    monkeypatch.setenv("LARY_HOME", str(world.workspace.root))
    monkeypatch.delenv("MODEL_DIR", raising=False)
    completion = ShellComplete(cli, {}, "lary-orch", "_LARY_ORCH_COMPLETE")
    return [item.value for item in completion.get_completions(words, typed)]


def test_keys_runs_and_commands(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.toy()
    made = world.plan()
    write_plan(made, world.workspace)
    (world.workspace.weights / "hf-mine").mkdir(parents=True)
    assert offered(world, monkeypatch, [], "mod") == ["models"]
    assert offered(world, monkeypatch, ["run", "-m"], "vj") == ["vjepa2"]
    assert offered(world, monkeypatch, ["run", "-m"], "pixels,vj") == ["pixels,vjepa2"]
    assert offered(world, monkeypatch, ["models"], "hf-") == ["hf-mine"]
    assert offered(world, monkeypatch, ["run", "--catalog", str(world.cards), "-d"], "to") == ["toy"]
    assert offered(world, monkeypatch, ["datasets"], "calv") == ["calvin"]
    assert offered(world, monkeypatch, ["status"], "") == [made.run]
    assert offered(world, monkeypatch, ["run", "--catalog", "nowhere", "-d"], "to") == []
