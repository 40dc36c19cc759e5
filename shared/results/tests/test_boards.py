"""Boards: one recipe each, cells that never mix, baselines that are baselines, and marks on doubtful scores."""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lary_orch.workspace import Workspace
from lary_results import export, leaderboard
from lary_results.board import Board, boards
from lary_results.files import read_results
from lary_results.notes import notes
from lary_results.scores import Score, collect
from lary_schema.results import Interval
from lary_terminal.tables import Table, plain

Write = Callable[..., Path]
RECIPE = {"epochs": 15, "lr": 0.1, "seeds": [0]}


def found(workspace: Workspace) -> list[Score]:
    return collect(read_results(workspace.results))


def made(workspace: Workspace) -> list[Board]:
    return boards(found(workspace))


def text(workspace: Workspace) -> str:
    out = io.StringIO()
    leaderboard.show_all(found(workspace), out)
    return out.getvalue()


def body(workspace: Workspace) -> list[str]:
    """Lines of the first table, spaces made single."""
    return [" ".join(line.split()) for line in text(workspace).splitlines()]


def edited(folder: Path, **changes: Any) -> None:
    """Change fields of the val score of a result on disk."""
    import os

    path = folder / "result.json"
    stat = path.stat()
    document = json.loads(path.read_text())
    document["splits"]["val"] |= changes
    path.write_text(json.dumps(document))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


# --- one recipe a board -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"epochs": 2}, {"lr": 0.2}, {"seeds": [0, 1]}, {"new": True}, {"optimisers": [[1, 2]]}],
    ids=lambda change: next(iter(change)),
)
def test_another_recipe_has_a_board_of_its_own(workspace: Workspace, write: Write, change: dict[str, Any]) -> None:
    write("a", "toy", {"val": 0.9}, recipe=RECIPE | change)
    for model in ("a", "b"):
        write(model, "toy", {"val": 0.5}, recipe=RECIPE)
    main, other = made(workspace)
    assert [score.value for score in main.kept] == [0.5, 0.5]
    assert [score.value for score in other.kept] == [0.9]
    (name,) = change
    assert f"{name} {json.dumps(change[name])} (above: {json.dumps(RECIPE[name]) if name in RECIPE else '-'})" in (
        other.title
    )
    assert main.key != other.key
    assert not main.older
    assert not other.older


def test_recipes_of_the_two_tasks_make_one_board(workspace: Workspace, write: Write) -> None:
    write("a", "toy", {"val": 0.5}, recipe=RECIPE)
    write("a", "arm", {"val": 0.5}, metric="mse", recipe={"epochs": 7})
    write("b", "arm", {"val": 0.5}, metric="mse", recipe={"epochs": 8})
    write("c", "arm", {"val": 0.5}, metric="mse", recipe={"epochs": 7})
    main, other = made(workspace)
    assert {(s.model, s.dataset) for s in main.kept} == {("a", "toy"), ("a", "arm"), ("c", "arm")}
    assert {(s.model, s.dataset) for s in other.kept} == {("b", "arm")}


def test_a_recipe_that_was_not_recorded_is_said(workspace: Workspace, write: Write) -> None:
    for model in ("a", "b", "c"):
        write(model, "toy", {"val": 0.5})
    write("a", "toy", {"val": 0.6}, recipe=RECIPE)
    main, other = made(workspace)
    assert [score.value for score in main.kept] == [0.6]
    assert "recipe not recorded" in other.title
    assert len(other.kept) == 3


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"precision": "bf16"}, "lary-v1, bf16"),
        ({"dtype": "float32"}, "lary-v1, float32"),
        ({"seed": 3}, "lary-v1, seed 3"),
        ({"decoder": "decord", "seed": 1}, "lary-v1, decord, seed 1"),
    ],
)
def test_other_settings_are_a_line_of_their_own(
    workspace: Workspace, write: Write, settings: dict[str, Any], named: str
) -> None:
    write("a", "toy", {"val": 0.5}, recipe=RECIPE, settings={})
    write("a", "toy", {"val": 0.6}, recipe=RECIPE, settings=settings)
    write("frame-diff", "toy", {"val": 0.4}, recipe=RECIPE, settings={"seed": None})
    (board,) = made(workspace)
    assert board.lines == [("a", named), ("a", "lary-v1"), ("frame-diff", "lary-v1")]
    assert not board.older


def test_programs_see_recipe_and_settings(workspace: Workspace, write: Write) -> None:
    write("a", "toy", {"val": 0.5}, recipe=RECIPE, settings={"seed": 3})
    write("b", "toy", {"val": 0.5})
    a, b = export.as_json(found(workspace))
    assert a["recipe"] == RECIPE
    assert len(a["recipe_sha256"]) == 64
    assert a["settings"]["seed"] == 3
    assert (b["recipe"], b["recipe_sha256"], b["settings"]) == (None, None, None)
    lines = export.as_csv(found(workspace)).splitlines()
    assert a["recipe_sha256"] in lines[1]
    assert '""seed"":3' in lines[1]


def test_older_scores_are_named(workspace: Workspace, write: Write) -> None:
    write("a", "toy", {"val": 0.5}, run="first")
    write("a", "toy", {"val": 0.1}, run="first", control="shuffled")
    write("a", "toy", {"val": 0.6}, run="second")
    write("a", "toy", {"val": 0.2}, run="second", control="shuffled")
    shown = text(workspace)
    assert "2 older scores of the same cells are not shown; --run shows one run's: " in shown
    assert "a (lary-v1) on toy/val of run first" in shown
    assert "a (lary-v1) on toy/val, shuffled control, of run first" in shown


# --- baselines and marks ----------------------------------------------------------------------


def test_overfitting_is_no_baseline(workspace: Workspace, write: Write) -> None:
    write("a", "toy", {"val": 0.5})
    write("a", "toy", {"val": 0.13}, control="shuffled", measures="chance")
    write("a", "arm", {"val": 0.6}, metric="mse")
    write("a", "arm", {"val": 1.33}, metric="mse", control="shuffled")
    assert body(workspace)[:12] == [
        "protocol lary-v1",
        "",
        "model variant toy/val top-1 % ↑ arm/val MSE ↓",
        body(workspace)[3],
        "a lary-v1 50.0 [45.0, 55.0] 0.600 [0.550, 0.650]",
        body(workspace)[3],
        "chance 12.5 -",
        "most frequent class, mean action 25.0 1.020",
        "shuffled control of a lary-v1 13.0 -",
        body(workspace)[3],
        "overfitting of a (shuffled) lary-v1 - 1.330",
        "[ , ] is the 95 % interval: rows taken as independent.",
    ]
    assert "It is no baseline." in text(workspace)


def test_a_single_frame_stands_below_the_table(workspace: Workspace, write: Write) -> None:
    write("a", "arm", {"val": 0.6}, metric="mse")
    write("single-frame", "arm", {"val": 0.35}, metric="mse")
    (board,) = made(workspace)
    assert board.lines == [("a", "lary-v1")]
    assert board.baselines[-1].name == "single-frame"
    assert board.baselines[-1].values == {("arm", "val", "mse", ""): 0.35}
    best = board.best(("arm", "val", "mse", ""))
    assert best is not None
    assert best.model == "a"


@pytest.mark.parametrize(
    ("metric", "value", "weak"),
    [("top1", 0.31, False), ("top1", 0.29, True), ("top1", 0.1, True), ("mse", 0.96, False), ("mse", 0.98, True)],
)
def test_what_does_not_beat_the_baseline_is_marked(
    workspace: Workspace, write: Write, metric: str, value: float, weak: bool
) -> None:
    write("a", "toy", {"val": value}, metric=metric)
    shown = text(workspace)
    assert ("]‡" in shown) is weak
    assert ("‡ not better than" in shown) is weak


def test_the_results_own_word_on_the_baseline_counts(workspace: Workspace, write: Write) -> None:
    edited(write("a", "toy", {"val": 0.9}), beats_floor=False)
    assert "90.0 [85.0, 95.0]‡" in text(workspace)


@pytest.mark.parametrize(("learned", "marked"), [(False, True), (True, False), (None, False)])
def test_a_probe_that_never_learned_is_marked(workspace: Workspace, write: Write, learned: Any, marked: bool) -> None:
    write("a", "toy", {"val": 0.5}, learned=learned)
    assert ("50.0 [45.0, 55.0]§" in text(workspace)) is marked
    assert ("the probe never learned" in text(workspace)) is marked


# --- intervals --------------------------------------------------------------------------------


def interval(low: float = 0.4, high: float = 0.6, **fields: Any) -> dict[str, Any]:
    return Interval(low=low, high=high, **fields).model_dump(mode="json")


def test_the_footnote_says_what_was_drawn(workspace: Workspace, write: Write) -> None:
    few = "12 groups, fewer than 30: the interval may be too narrow"
    for model in ("a", "b"):
        folder = write(model, "toy", {"val": 0.5}, group="episode")
        edited(folder, interval=interval(unit="groups", groups=12, seeds=True, note=few), std=0.01)
    shown = text(workspace)
    assert "[ , ] is the 95 % interval: groups drawn (episode).\n" in shown
    assert "sd is the spread over seeds; the interval of such a cell holds it too.\n" in shown
    assert shown.count(f"toy/val: {few}\n") == 1
    write("a", "other", {"val": 0.5})
    assert ": rows taken as independent (other/val); groups drawn (episode) (toy/val)." in text(workspace)


def test_no_interval_is_said_not_shown_as_numbers(workspace: Workspace, write: Write) -> None:
    folder = write("a", "toy", {"val": 0.5})
    edited(folder, interval=interval(math.nan, math.nan, unit="groups", groups=1, note="one of the groups alone"))
    shown = text(workspace)
    assert "50.0 [no interval]‡" in shown
    assert "toy/val: one of the groups alone" in shown
    (entry,) = export.as_json(found(workspace))
    assert (entry["low"], entry["high"], entry["null_because"]) == (None, None, "one of the groups alone")


# --- what JSON cannot hold --------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["top1", "mse"])
def test_a_diverged_score_is_null_with_its_reason(workspace: Workspace, write: Write, metric: str) -> None:
    edited(write("a", "toy", {"val": 0.5}, metric=metric), value=None, interval={"low": None, "high": None})
    write("b", "toy", {"val": 0.5}, metric=metric)
    entries = {entry["model"]: entry for entry in export.as_json(found(workspace))}
    assert (entries["a"]["value"], entries["b"]["null_because"]) == (None, None)
    assert "diverged" in entries["a"]["null_because"]
    json.dumps([*entries.values()], allow_nan=False)
    assert "nan" not in export.as_csv(found(workspace)).lower()
    assert made(workspace)[0].lines == [("b", "lary-v1"), ("a", "lary-v1")]


@pytest.mark.parametrize("field", ["value", "std", "floor", "chance"])
def test_no_field_of_a_score_breaks_a_table(workspace: Workspace, write: Write, field: str) -> None:
    edited(write("a", "toy", {"val": 0.5}), **{field: None})
    assert body(workspace)[4].startswith("a lary-v1 " + ("nan" if field == "value" else "50.0 [45.0, 55.0]"))
    json.dumps(export.as_json(found(workspace)), allow_nan=False)


# --- drawing ----------------------------------------------------------------------------------


def test_tables_show_what_terminals_would_act_on() -> None:
    evil = "\x1b]0;x\x07\u202e\n"
    table = Table(evil, (evil, "n"), [(evil, "1")], notes=(evil,))
    shown = plain(table)
    assert shown.isascii()
    assert shown.count("\\x1b") == 4
    assert shown.count("\\u202e") == 4
    assert "\x1b" not in shown


def test_wide_characters_keep_columns_straight() -> None:
    shown = plain(Table("t", ("name", "n"), [("抓取", "1"), ("é\u0301a", "2"), ("abcd", "3")])).splitlines()
    assert shown == ["t", "", "name  n", "----  -", "抓取  1", "é\u0301a    2", "abcd  3"]


# --- relative next to absolute ----------------------------------------------------------------


def test_relative_stands_next_to_absolute_and_is_explained(workspace: Workspace, write: Write) -> None:
    for dataset in ("arm", "car"):
        for target in ("absolute", "relative"):
            write("a", dataset, {"val": 0.5}, metric="mse", head="mlp", target=target)
    (board,) = made(workspace)
    assert [(c[0], c[3]) for c in board.columns] == [
        ("arm", ""), ("arm", "relative"), ("car", ""), ("car", "relative"),
    ]  # fmt: skip
    assert any(note.startswith("(relative) is the change over a chunk.") for note in notes(board))


def test_one_target_needs_no_explanation(workspace: Workspace, write: Write) -> None:
    write("a", "arm", {"val": 0.5}, metric="mse", head="mlp", target="relative")
    (board,) = made(workspace)
    assert not any("(relative)" in note for note in notes(board))


# --- environments -----------------------------------------------------------------------------


def test_latents_of_two_environments_are_marked(workspace: Workspace, write: Write) -> None:
    folder = write("a", "toy", {"val": 0.5})
    document = json.loads((folder / "result.json").read_text())
    document["stores"][0]["mixed"] = ["torch 2.9 and 2.10", "device cpu and cuda"]
    document["stores"][1]["mixed"] = ["torch 2.9 and 2.10"]
    (folder / "result.json").write_text(json.dumps(document))
    assert "50.0 [45.0, 55.0]#" in text(workspace)
    said = "# a (lary-v1) on toy/val: made in more than one environment (--mixed): "
    assert f"{said}torch 2.9 and 2.10; device cpu and cuda" in text(workspace)
    (entry,) = export.as_json(found(workspace))
    assert entry["mixed"] == ["torch 2.9 and 2.10", "device cpu and cuda"]
    assert "torch 2.9 and 2.10; device cpu and cuda" in export.as_csv(found(workspace))
