"""Comparisons on equal rows: common rows of a table, paired differences, and what is refused."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from lary_orch.cli import results
from lary_orch.workspace import Workspace
from lary_results import export, leaderboard
from lary_results.board import boards
from lary_results.files import read_results
from lary_results.paired import against_best, compare_rows
from lary_results.row_scores import read_arrays
from lary_results.scores import Score, collect
from lary_schema.base import ContractError
from lary_schema.intervals import difference, estimate

Write = Callable[..., Path]
Rows = Callable[..., None]
N = 60
RNG = np.random.default_rng(0)
HARD = (RNG.random(N) < 0.5).astype(float)
EASY = np.maximum(HARD, RNG.random(N) < 0.3)
EPISODES = [f"e{n // 2}" for n in range(N)]


def found(workspace: Workspace) -> list[Score]:
    return collect(read_results(workspace.results))


def text(workspace: Workspace, **options: Any) -> str:
    out = io.StringIO()
    leaderboard.show_all(found(workspace), out, **options)
    return out.getvalue()


def invoke(workspace: Workspace, *arguments: str) -> Result:
    return CliRunner().invoke(results.command, [*arguments, "--workspace", str(workspace.root)])


@pytest.fixture
def two(workspace: Workspace, write: Write, write_rows: Rows) -> None:
    """a has failed on rows 0 and 1, b on row 2."""
    for model, scores, failed in (("a", HARD, (0, 1)), ("b", EASY, (2,))):
        folder = write(model, "toy", {"val": 0.5}, rows={"val": N}, failed=len(failed))
        rows = [n for n in range(N) if n not in failed]
        write_rows(folder, "val", scores[rows], rows, [EPISODES[n] for n in rows])


# --- common rows ------------------------------------------------------------------------------


@pytest.mark.usefixtures("two")
def test_models_are_compared_on_the_rows_that_all_have(workspace: Workspace) -> None:
    (board,) = boards(found(workspace))
    (common,) = board.common.values()
    assert (common.rows, common.of) == (N - 3, N)
    rows = np.arange(3, N)
    expected = estimate(EASY[None, rows], np.array(EPISODES)[rows], resamples=2000, seed=0, bounds=(0, 1))
    assert common.scores["b", "lary-v1"] == pytest.approx((expected.value, expected.low, expected.high, N - 3))
    header, *lines = text(workspace).splitlines()[2:]
    assert header.split("  ")[-1] == f"common rows ({N - 3} of {N})"
    assert lines[1].split("  ")[-1].strip().startswith(f"{100 * EASY[rows].mean():.1f} [")
    assert f"{100 * np.delete(EASY, 2).mean():.1f} [" in lines[1], "its own score is there too"
    assert f"toy/val: {N - 3} of {N} rows have a latent of every model compared" in text(workspace)
    (a, b) = export.as_json(found(workspace))
    assert (a["common_rows"], b["common_value"]) == (N - 3, pytest.approx(EASY[rows].mean()))


def test_common_rows_decide_who_is_best(workspace: Workspace, write: Write, write_rows: Rows) -> None:
    # b fails on the half where a is wrong, and a is right wherever b is scored.
    truth = np.array([0.0] * 3 + [1.0] * 57)
    write_rows(write("a", "toy", {"val": 0.5}, rows={"val": N}), "val", truth)
    lucky = write("b", "toy", {"val": 0.5}, rows={"val": N}, failed=3)
    write_rows(lucky, "val", np.array([0.0] + [1.0] * 56), np.arange(3, N))
    (board,) = boards(found(workspace))
    own = {score.model: score.value for score in board.ours}
    assert own["b"] > own["a"]
    assert board.lines == [("a", "lary-v1"), ("b", "lary-v1")]


def test_without_failures_nothing_is_read(workspace: Workspace, write: Write) -> None:
    for model in ("a", "b"):
        write(model, "toy", {"val": 0.5})
    (board,) = boards(found(workspace))
    assert board.common == {}
    assert "common rows" not in text(workspace)


def test_equal_failures_need_no_second_column(workspace: Workspace, write: Write, write_rows: Rows) -> None:
    for model in ("a", "b"):
        write_rows(write(model, "toy", {"val": 0.5}, rows={"val": N}, failed=1), "val", HARD[1:], np.arange(1, N))
    assert "common rows" not in text(workspace)


def test_who_has_no_row_scores_is_named_and_not_ranked(workspace: Workspace, write: Write, write_rows: Rows) -> None:
    write("old", "toy", {"val": 0.99}, rows={"val": N})
    for model, first in (("a", 1), ("b", 2)):
        folder = write(model, "toy", {"val": 0.5}, rows={"val": N}, failed=first)
        write_rows(folder, "val", HARD[first:], np.arange(first, N))
    (board,) = boards(found(workspace))
    assert board.lines[-1] == ("old", "lary-v1")
    assert "old (lary-v1) on toy/val: not on common rows: no scores of single rows: made by an older" in text(workspace)


@pytest.mark.parametrize("where", ["rows", "train"])
def test_above_a_share_of_failures_nothing_is_compared(
    workspace: Workspace, write: Write, write_rows: Rows, where: str
) -> None:
    fields = {"failed": 4} if where == "rows" else {"train_rows": {"used": 90, "failed": 10}}
    folder = write("a", "toy", {"val": 0.99}, rows={"val": N}, **fields)
    lost = 4 if where == "rows" else 0
    write_rows(folder, "val", np.ones(N - lost), np.arange(lost, N))
    write_rows(write("b", "toy", {"val": 0.5}, rows={"val": N}), "val", HARD)
    (board,) = boards(found(workspace))
    assert [score.model for score in board.refused] == ["a"]
    assert board.lines == [("b", "lary-v1"), ("a", "lary-v1")]
    share = "6.7" if where == "rows" else "10.0"
    said = f"¶ a (lary-v1) on toy/val: not compared, {share} % of its rows have no latent, and --max-failed is 5 %"
    assert said in text(workspace)
    assert "¶" not in text(workspace, max_failed=0.2)
    assert [entry["refused"] for entry in export.as_json(found(workspace))] == [True, False]
    assert "¶" not in invoke(workspace, "--max-failed", "0.2").stdout
    assert "¶" in invoke(workspace).stdout


@pytest.mark.parametrize(
    ("older", "newer", "said"),
    [
        ({"csv": "d6"}, {}, "from another CSV than"),
        ({"targets_sha256": "x"}, {"targets_sha256": "y"}, "of other labels or actions under the same CSV than"),
        ({"targets_sha256": "x"}, {"targets_sha256": "x"}, None),
        ({}, {"targets_sha256": "y"}, None),
        ({"targets_sha256": "x", "failed": 1}, {"targets_sha256": "y"}, None),
        ({"targets_sha256": "x"}, {"targets_sha256": "y", "train_rows": {"used": 99, "failed": 1}}, None),
    ],
)
def test_files_that_changed_are_marked(
    workspace: Workspace, write: Write, older: dict[str, Any], newer: dict[str, Any], said: str | None
) -> None:
    """By the hash of the targets, which also differs where models failed on different rows."""
    write("a", "toy", {"val": 0.9}, **older)
    write("b", "toy", {"val": 0.5}, **newer)
    shown = text(workspace)
    assert (f"† a (lary-v1) on toy/val: {said}" in shown) == (said is not None)
    assert ("†" in shown) == (said is not None)


# --- paired -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("two")
def test_paired_differences(workspace: Workspace) -> None:
    rows = np.arange(3, N)
    groups = np.unique(np.array(EPISODES)[rows], return_inverse=True)[1]
    a, b = HARD[None, rows], EASY[None, rows]
    expected = difference(a, b, groups, resamples=2000, seed=0, bounds=(-1, 1))
    (made,) = json.loads(invoke(workspace, "--paired", "a", "b", "--json").stdout)
    assert (made["difference"], made["low"], made["high"]) == pytest.approx(expected[:3])
    assert (made["rows"], made["groups"]) == (N - 3, len(set(groups)))
    assert (made["excludes_zero"], made["verdict"]) == (True, "b is better")
    (swapped,) = json.loads(invoke(workspace, "--paired", "b", "a", "--json").stdout)
    assert swapped["difference"] == pytest.approx(-made["difference"])
    assert swapped["verdict"] == "a is better"
    shown = invoke(workspace, "--paired", "a", "b").stdout
    own = (100 * np.delete(HARD, [0, 1]).mean(), 100 * np.delete(EASY, 2).mean())
    value, low, high = (100 * number for number in expected[:3])
    few = ", fewer than 30: the interval may be too narrow"
    assert " ".join(shown.splitlines()[4].split()) == (
        f"lary-v1 toy/val lary-v1 {own[0]:.1f} {own[1]:.1f} {value:.1f} [{low:.1f}, {high:.1f}] b is better {N - 3} "
        f"{len(set(groups))} groups{few}"
    )
    assert "paired by row" in shown


def test_errors_are_better_when_lower(workspace: Workspace, write: Write, write_rows: Rows) -> None:
    for model, shift in (("a", 0.0), ("b", 1.0)):
        folder = write(model, "arm", {"val": 0.5}, metric="mse", rows={"val": N})
        write_rows(folder, "val", np.linspace(0, 1, N) + shift)
    (made,) = json.loads(invoke(workspace, "--paired", "a", "b", "--json").stdout)
    assert (made["difference"], made["verdict"], made["groups"]) == (pytest.approx(-1), "a is better", None)
    shown = invoke(workspace, "--paired", "a", "b").stdout
    assert "-1.000" in shown
    assert "rows taken as independent" in shown


def test_noise_is_no_difference(workspace: Workspace, write: Write, write_rows: Rows) -> None:
    generator = np.random.default_rng(4)
    for model in ("a", "b"):
        write_rows(write(model, "toy", {"val": 0.5}, rows={"val": 200}), "val", generator.random(200) < 0.5)
    (made,) = json.loads(invoke(workspace, "--paired", "a", "b", "--json").stdout)
    assert (made["excludes_zero"], made["verdict"]) == (False, "no clear difference")
    assert made["low"] < 0 < made["high"]


def test_several_seeds_widen_the_interval(workspace: Workspace, write: Write, write_rows: Rows) -> None:
    one = np.tile([0.0, 1.0], 30)
    for model, scores in (("a", one), ("b", 1 - one)):
        write_rows(write(model, "toy", {"val": 0.5}, rows={"val": N}), "val", scores)
    single = compare_rows(*reversed(found(workspace)))
    spread = np.stack([np.ones(N), np.zeros(N), one])
    write_rows(write("a", "toy", {"val": 0.5}, rows={"val": N}), "val", spread)
    several = compare_rows(found(workspace)[0], found(workspace)[1])
    assert several.reason is None
    assert several.high - several.low > 2 * (single.high - single.low)


def broken(folder: Path, how: str) -> None:
    path = folder / "row_scores_val.npz"
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif how == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    elif how == "text":
        path.write_text("no archive")
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        with np.load(path) as file:
            arrays = dict(file)
        change = {
            "another result's": {"score": arrays["score"] / 2},
            "fewer rows": {name: arrays[name][..., ::2] for name in ("row", "group", "score")},
            "rows twice": {"row": np.zeros_like(arrays["row"])},
            "no member": {},
            "floats": {"row": arrays["row"].astype(float)},
            "nan": {"score": np.where(arrays["row"] == 1, np.nan, arrays["score"])},
            "pickled": {"group_names": np.array([{"a": 1}], dtype=object)},
            "code": {"group": arrays["group"] + 1000},
            "half of the hashes": {"target": arrays["row"].astype(np.uint64)},
            "hashes of other rows": {
                "target": arrays["row"][1:].astype(np.uint64),
                "train_target": np.array([1], np.uint64),
            },
        }[how]
        if how == "no member":
            del arrays["score"]
        np.savez(path, **arrays | change)


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("missing", "no scores of single rows: made by an older probe"),
        ("cut", "cannot be read"),
        ("flipped", "row_scores_val.npz: "),
        ("text", "cannot be read"),
        ("folder", "no scores of single rows"),
        ("another result's", "of another result"),
        ("fewer rows", "row_scores_val.npz: "),
        ("rows twice", "no scores of rows as a probe writes them"),
        ("no member", "cannot be read"),
        ("floats", "no scores of rows as a probe writes them"),
        ("nan", "no scores of rows as a probe writes them"),
        ("pickled", "cannot be read"),
        ("code", "no scores of rows as a probe writes them"),
        ("half of the hashes", "no scores of rows as a probe writes them"),
        ("hashes of other rows", "no scores of rows as a probe writes them"),
    ],
)
def test_what_cannot_be_paired_is_said_and_never_guessed(workspace: Workspace, how: str, says: str) -> None:
    (score,) = [score for score in found(workspace) if score.model == "b"]
    broken(Path(score.file).parent, how)
    done = invoke(workspace, "--paired", "a", "b", "--json")
    assert done.exit_code == 0
    (made,) = json.loads(done.stdout)
    assert says in made["reason"]
    assert "b: " in made["reason"]
    assert (made["difference"], made["excludes_zero"], made["verdict"]) == (None, None, None)
    shown = invoke(workspace, "--paired", "a", "b").stdout
    assert "not compared: a (lary-v1) on toy/val and b (lary-v1): b: " in shown


@pytest.mark.usefixtures("two")
def test_a_diverged_score_is_not_paired(workspace: Workspace) -> None:
    (score,) = [score for score in found(workspace) if score.model == "b"]
    document = json.loads(Path(score.file).read_text())
    document["splits"]["val"]["value"] = None
    Path(score.file).write_text(json.dumps(document))
    (made,) = json.loads(invoke(workspace, "--paired", "a", "b", "--json").stdout)
    assert made["reason"] == "b: its score is no finite number: the probe diverged"
    assert made["b_value"] is None


@pytest.mark.parametrize(
    ("fields", "groups", "says"),
    [
        ({"csv": "d6"}, EPISODES, "other CSVs"),
        ({"targets_sha256": "x"}, EPISODES, "labels or actions differ"),
        ({}, [f"other{n // 3}" for n in range(N)], "their groups differ"),
    ],
)
def test_other_rows_targets_or_groups_are_not_paired(
    workspace: Workspace, write: Write, write_rows: Rows, fields: dict[str, Any], groups: list[str], says: str
) -> None:
    write_rows(write("a", "toy", {"val": 0.5}, rows={"val": N}), "val", HARD, groups=EPISODES)
    write_rows(write("b", "toy", {"val": 0.5}, rows={"val": N}, **fields), "val", EASY, groups=groups)
    (made,) = json.loads(invoke(workspace, "--paired", "a", "b", "--json").stdout)
    assert says in made["reason"]


def hashes(failed: int, *, changed: int | None = None, train: int = 7) -> dict[str, Any]:
    """Of the targets of all rows but the first `failed`; row `changed` has another one."""
    targets = np.arange(N, dtype=np.uint64) + np.uint64(100)
    if changed is not None:
        targets[changed] = 0
    return {"target": targets[failed:], "train_target": np.array([train], np.uint64)}


@pytest.mark.parametrize(
    ("of_b", "says"),
    [
        (hashes(2), None),
        (hashes(2, changed=0), None),
        (hashes(2, changed=9), "labels or actions differ under the same CSV in 1 rows (first: row 9)"),
        (hashes(2, train=8), "that they were trained on differ"),
        ({}, "labels or actions differ under the same CSV"),
    ],
)
def test_failures_are_no_other_targets(
    workspace: Workspace, write: Write, write_rows: Rows, of_b: dict[str, Any], says: str | None
) -> None:
    """A result's hash is of the rows with a latent, so models that failed on different rows differ in it."""
    for model, failed, of in (("a", 0, hashes(0)), ("b", 2, of_b)):
        folder = write(model, "toy", {"val": 0.5}, rows={"val": N}, failed=failed, targets_sha256=f"of {model}")
        write_rows(folder, "val", HARD[failed:], np.arange(failed, N), **of)
    (made,) = json.loads(invoke(workspace, "--paired", "a", "b", "--json").stdout)
    if says is None:
        assert (made["reason"], made["rows"], made["difference"]) == (None, N - 2, 0)
    else:
        assert says in made["reason"]


@pytest.mark.parametrize("groups", [None, EPISODES])
def test_one_common_group_has_no_interval_and_no_verdict(
    workspace: Workspace, write: Write, write_rows: Rows, groups: list[str] | None
) -> None:
    for model, rows in (("a", np.arange(30)), ("b", np.arange(29, N))):
        folder = write(model, "toy", {"val": 0.5}, rows={"val": N}, failed=N - len(rows))
        write_rows(folder, "val", HARD[rows], rows, groups and [groups[n] for n in rows])
    (made,) = json.loads(invoke(workspace, "--paired", "a", "b", "--json").stdout)
    assert (made["rows"], made["difference"], made["reason"]) == (1, 0, None)
    assert (made["low"], made["high"], made["excludes_zero"]) == (None, None, None)
    assert made["null_because"] == "one group: no interval can be given"
    shown = invoke(workspace, "--paired", "a", "b").stdout
    assert "no clear difference" not in shown
    assert "fewer than 30: the interval may be too narrow" in shown
    entries = json.loads(invoke(workspace, "--json", "--max-failed", "1").stdout)
    assert [entry["common_low"] for entry in entries] == [None, None]
    assert all("the common rows are of one group" in entry["null_because"] for entry in entries)


def test_groups_that_one_result_names_hold_for_both(workspace: Workspace, write: Write, write_rows: Rows) -> None:
    write_rows(write("a", "toy", {"val": 0.5}, rows={"val": N}), "val", HARD)
    write_rows(write("b", "toy", {"val": 0.5}, rows={"val": N}), "val", EASY, groups=EPISODES)
    for pair in (("a", "b"), ("b", "a")):
        (made,) = json.loads(invoke(workspace, "--paired", *pair, "--json").stdout)
        assert made["groups"] == N // 2


def test_variants_are_paired_with_their_like(workspace: Workspace, write: Write, write_rows: Rows) -> None:
    for model in ("a", "b"):
        for variant in ("lary-v1", "corrected"):
            write_rows(write(model, "toy", {"val": 0.5}, rows={"val": N}, variant=variant), "val", HARD)
    made = json.loads(invoke(workspace, "--paired", "a", "b", "--json").stdout)
    assert [(each["a"], each["b"]) for each in made] == [
        ("a/corrected", "b/corrected"),
        ("a/lary-v1", "b/lary-v1"),
    ]
    (one,) = json.loads(invoke(workspace, "--paired", "a/corrected", "a/lary-v1", "--json").stdout)
    assert (one["difference"], one["verdict"]) == (0, "no clear difference")


def test_boards_are_never_mixed(workspace: Workspace, write: Write) -> None:
    write("a", "toy", {"val": 0.5}, recipe={"epochs": 2})
    write("b", "toy", {"val": 0.5}, recipe={"epochs": 15})
    caught = invoke(workspace, "--paired", "a", "b").exception
    assert isinstance(caught, ContractError)
    assert "no cell of one table has both a and b; there are a/lary-v1, b/lary-v1" in str(caught)


@pytest.mark.parametrize(
    "arguments", [("--csv", "--json"), ("--paired", "a", "b", "--against", "x"), ("--paired", "a", "b", "--csv")]
)
def test_options_that_exclude_each_other(workspace: Workspace, write: Write, arguments: tuple[str, ...]) -> None:
    write("a", "toy", {"val": 0.5})
    assert invoke(workspace, *arguments).exit_code == 2


@pytest.mark.usefixtures("two")
def test_everyone_against_the_best(workspace: Workspace, write: Write, write_rows: Rows) -> None:
    write_rows(write("single-frame", "toy", {"val": 0.5}, rows={"val": N}), "val", 1 - HARD, groups=EPISODES)
    (board,) = boards(found(workspace))
    made = against_best(board)
    assert {(each.a.model, each.b.model) for each in made} == {("b", "a"), ("b", "single-frame")}
    assert all(each.reason is None for each in made)


# --- against a saved state --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"recipe": {"epochs": 2}}, "other recipe: epochs 15 (theirs: 2)"),
        ({"recipe": None}, "other recipe: the recipe is not recorded theirs"),
        ({"settings": {"precision": "bf16"}}, "other settings: precision fp32 (theirs: bf16)"),
        ({"settings": {"seed": 9}}, "other settings: seed 0 (theirs: 9)"),
    ],
)
def test_another_recipe_or_setting_is_not_compared(
    workspace: Workspace, write: Write, tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    usual: dict[str, Any] = {"recipe": {"epochs": 15}, "settings": {}}
    folder = write("a", "toy", {"val": 0.1}, **usual | fields)
    write("b", "toy", {"val": 0.5}, **usual)
    saved = tmp_path / "before.json"
    saved.write_text(invoke(workspace, "--json").stdout)
    (folder / "result.json").unlink()
    write("a", "toy", {"val": 0.9}, **usual)
    done = invoke(workspace, "--against", str(saved))
    assert done.exit_code == 0, "only b is compared"
    assert f"not compared: a (lary-v1) on toy/val top1, lary-v1: {says}" in done.stdout


def test_of_several_recipes_the_same_is_compared(workspace: Workspace, write: Write, tmp_path: Path) -> None:
    for epochs, value in ((2, 0.1), (15, 0.5)):
        write("a", "toy", {"val": value}, recipe={"epochs": epochs})
    saved = tmp_path / "before.json"
    saved.write_text(invoke(workspace, "--json").stdout)
    done = invoke(workspace, "--against", str(saved), "--tolerance", "0")
    assert "0 of 2 cells are outside" in done.stdout


@pytest.mark.usefixtures("two")
def test_csv_holds_the_same_as_json(workspace: Workspace) -> None:
    lines = list(csv.DictReader(io.StringIO(invoke(workspace, "--csv").stdout)))
    entries = json.loads(invoke(workspace, "--json").stdout)
    assert [line["common_rows"] for line in lines] == [str(entry["common_rows"]) for entry in entries]
    assert set(lines[0]) == set(entries[0])


def test_any_other_byte_in_a_file_of_rows_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """Headers of arrays are parsed before the zip's checksum is looked at."""
    path = tmp_path / "row_scores_val.npz"
    np.savez(path, row=np.arange(3), score=np.ones((1, 3)))
    data, whole = path.read_bytes(), read_arrays(path, ("row", "score"))
    refused = 0
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            found = read_arrays(path, tuple(whole))
        except ContractError:
            refused += 1
            continue
        assert all(np.array_equal(found[name], whole[name]) for name in whole)
    assert refused > len(data) / 8
