"""Two runs side by side."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lary_orch.workspace import Workspace
from lary_results.diff import difference, difference_json, difference_table
from lary_schema.base import ContractError
from lary_terminal.tables import show

RECIPE = {"epochs": 15, "seeds": [0]}


def reasons(write: Callable[..., Path], workspace: Workspace, **changed: Any) -> tuple[str, ...]:
    write("lam", "calvin", {"val": 0.5}, run="a-1", recipe=RECIPE, targets_sha256="aa" * 32)
    common: dict[str, Any] = {"run": "b-2", "recipe": RECIPE, "targets_sha256": "aa" * 32}
    write("lam", "calvin", {"val": 0.6}, **(common | changed))
    (pair,) = difference(workspace.results, "a-1", "b-2").pairs
    assert pair.difference == pytest.approx(0.1)
    return pair.reasons


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ()),
        ({"recipe": RECIPE | {"epochs": 2}}, ("recipe: epochs 15 (there: 2)",)),
        ({"protocol": "clean"}, ("protocol lary-v1, clean",)),
        ({"csv": "d6"}, ("CSV",)),
        ({"targets_sha256": "bb" * 32}, ("labels or actions",)),
        ({"failed": 3}, ("failed rows 6, 0",)),
        ({"probe_code_sha256": "0f" * 32}, ("probe code",)),
        ({"device": "cuda"}, ("probe device",)),
        ({"libraries": {"torch": "3", "numpy": "2"}}, ("probe's numpy -, 2", "probe's torch 2, 3")),
    ],
)
def test_what_differs_is_named(
    changed: dict[str, Any], expected: tuple[str, ...], write: Callable[..., Path], workspace: Workspace
) -> None:
    found = reasons(write, workspace, **changed)
    if "failed" in changed:
        assert len(found) == 1
        assert found[0].startswith("failed rows 0, ")
    else:
        assert found == expected


def test_the_table_and_its_json(write: Callable[..., Path], workspace: Workspace) -> None:
    for run, values in (("a-1", (0.5, 0.30)), ("b-2", (0.5, 0.25))):
        write("lam", "calvin", {"val": values[0]}, run=run)
        write("arm", "libero", {"val": values[1]}, run=run, metric="mse")
    write("late", "calvin", {"val": 0.5}, run="b-2")
    write("lam", "calvin", {"val": 0.9}, run="b-2", control="shuffled")
    made = difference(workspace.results, "a-1", "b-2")
    out = io.StringIO()
    show(difference_table(made), out)
    lines = out.getvalue().splitlines()
    assert lines[0] == "b-2 minus a-1 (top-1 in percent, MSE)"
    assert [line.split()[:8] for line in lines[4:6]] == [
        ["lam", "lary-v1", "calvin/val", "none", "50.0", "50.0", "0.0", "nothing"],
        ["arm", "lary-v1", "libero/val", "none", "0.300", "0.250", "-0.050", "nothing"],
    ]
    assert lines[6].startswith("only in b-2: ")
    assert "late (lary-v1) on calvin/val" in lines[6]
    assert "lam (lary-v1) on calvin/val, shuffled" in lines[6]
    document = difference_json(made)
    assert [cell["differs"] for cell in document["cells"]] == [[], []]
    assert {cell["run"] for cell in document["alone"]} == {"b-2"}


def test_runs_that_cannot_be_compared(write: Callable[..., Path], workspace: Workspace) -> None:
    write("lam", "calvin", {"val": 0.5}, run="a-1")
    write("lam", "libero", {"val": 0.5}, run="b-2")
    with pytest.raises(ContractError, match="no cell in common: only in a-1: lam"):
        difference(workspace.results, "a-1", "b-2")
    for bad in ("none", "*", "../x"):
        with pytest.raises(ContractError):
            difference(workspace.results, "a-1", bad)
