"""Columns of another head, and of a nuisance: on the same board, and never mixed with scores of actions."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lary_orch.workspace import Workspace
from lary_results.board import boards
from lary_results.files import read_results
from lary_results.notes import notes
from lary_results.paired import against_best, pairs
from lary_results.scores import collect

Write = Callable[..., Path]
RECIPE = {"epochs": 15, "lr": 0.1, "seeds": [0]}


def test_heads_stand_in_columns_of_one_board(workspace: Workspace, write: Write) -> None:
    """A linear head uses no epochs: that is no other recipe of the MLP's column."""
    for model, value in (("a", 0.5), ("b", 0.6)):
        write(model, "arm", {"val": value}, metric="mse", recipe=RECIPE, head="mlp")
        write(model, "arm", {"val": value + 0.1}, metric="mse", recipe={"holdout": 0.1}, head="linear")
    write("c", "arm", {"val": 0.4}, metric="mse", recipe={"holdout": 0.2}, head="linear")
    main, other = boards(collect(read_results(workspace.results)))
    assert [column[3] for column in main.columns] == ["", "linear"]
    assert main.cell(("a", "lary-v1"), main.columns[1]).value == 0.6
    assert "holdout 0.2 (above: 0.1)" in other.title
    assert main.key != other.key


@pytest.mark.parametrize("extra", [{}, {"head": "linear"}, {"target": "relative"}])
def test_a_nuisance_is_no_score_of_actions(workspace: Workspace, write: Write, extra: dict[str, Any]) -> None:
    """By its column it is never averaged, compared with a published score, called best, or ranked by."""
    for model, value in (("a", 0.5), ("b", 0.6)):
        write(model, "arm", {"val": value}, metric="mse", recipe=RECIPE)
        write(model, "arm", {"val": 1 - value}, metric="mse", recipe=RECIPE, reads="nuisance", **extra)
    (board,) = boards(collect(read_results(workspace.results)))
    actions, nuisance = board.columns
    assert (actions[3], nuisance[3].split(", ")[-1]) == ("", "nuisance")
    assert [line[0] for line in board.lines] == ["a", "b"]
    assert board.best(actions).model == "a"
    assert board.best(nuisance) is None
    assert all("probe" in s.differences for s in board.kept if s.column == nuisance)
    (difference,) = [made for _, made in pairs([board], "a", "b") if made.a.column == nuisance]
    assert replace(difference, low=-0.2, high=-0.1, value=-0.15).verdict == "a shows more of it"
    assert any("a low error is no merit" in note for note in notes(board))
    assert [made.a.column for made in against_best(board)] == [actions]


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"input": "image"}, True),
        ({"input": "image", "target": "relative"}, False),
        ({"input": "image", "reads": "nuisance"}, False),
        ({"input": "video"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_a_missing_baseline_is_named_with_its_command(
    workspace: Workspace, write: Write, fields: dict[str, Any], missing: bool
) -> None:
    write("a", "arm", {"val": 0.5}, metric="mse", recipe=RECIPE, **fields)
    command = "lary-orch run -m single-frame -d arm --protocol lary-v1"
    assert any(command in note for note in _notes(workspace)) == missing
    write("single-frame", "arm", {"val": 0.4}, metric="mse", recipe=RECIPE, **fields)
    assert not any(command in note for note in _notes(workspace))


def _notes(workspace: Workspace) -> list[str]:
    (board,) = boards(collect(read_results(workspace.results)))
    return notes(board)


def test_a_board_of_nuisances_alone_ranks_nobody(workspace: Workspace, write: Write) -> None:
    for model, value in (("b", 0.1), ("a", 0.6)):
        write(model, "arm", {"val": value}, metric="mse", recipe=RECIPE, reads="nuisance")
    (board,) = boards(collect(read_results(workspace.results)))
    assert [line[0] for line in board.lines] == ["a", "b"]
    assert against_best(board) == []
