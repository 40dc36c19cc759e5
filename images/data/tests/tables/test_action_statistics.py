"""`stats` and `relative`: numbers against numpy's, LARYBench's fields, files that are missing or wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lary_data import actions
from lary_schema.base import ContractError


def stats(disk: Any, *arguments: str) -> Any:
    result = disk.tool("stats", "-d", disk.card.key, *arguments)
    assert result.exit_code == 0, result.exception
    return json.loads((disk.data / f"regression/agibot_45/{disk.key}_stats.json").read_text())


def steps(disk: Any, rows: list[int], split: str = "seen_train") -> Any:
    return np.concatenate([disk.chunks[split][row].astype(np.float64) for row in rows])


# --- stats ------------------------------------------------------------------------------------


def test_the_document_that_larybench_reads(robots: Any) -> None:
    found = stats(robots)
    assert list(found) == [
        "dataset",
        "action_mode",
        "action_dim",
        "source_csv",
        "action_root",
        "missing_actions",
        "missing_action_examples",
        "global",
        "robot_stats",
    ]
    assert (found["dataset"], found["action_mode"], found["action_dim"]) == ("agibotbeta", "absolute", 2)
    assert found["source_csv"] == str(robots.csv("seen_train"))
    assert found["action_root"] == str(robots.data / "regression/agibot_45")
    assert (found["missing_actions"], found["missing_action_examples"]) == (0, [])
    assert list(found["robot_stats"]) == ["a2d", "g1", "nan"]


def test_numbers_are_those_of_all_steps(robots: Any) -> None:
    found = stats(robots)
    for name, rows in {"a2d": [0, 2, 4], "nan": [1], "g1": [3]}.items():
        expected = steps(robots, rows)
        assert found["robot_stats"][name]["count"] == 5 * len(rows)
        assert found["robot_stats"][name]["mean"] == pytest.approx(expected.mean(0).tolist(), rel=1e-12)
        assert found["robot_stats"][name]["std"] == pytest.approx(expected.std(0).tolist(), rel=1e-12)
    everything = steps(robots, list(range(5)))
    assert found["global"]["count"] == 25
    assert found["global"]["std"] == pytest.approx(everything.std(0).tolist(), rel=1e-12)


def test_a_dimension_that_does_not_move_has_std_1(robots: Any) -> None:
    for row in range(5):
        chunk = robots.chunks["seen_train"][row]
        chunk[:, 1] = 0.1
        np.save(robots.file("seen_train", row), chunk)
    found = stats(robots)
    assert found["global"]["std"][1] == 1.0
    assert found["global"]["mean"][1] == pytest.approx(0.1)
    assert found["global"]["std"][0] != 1.0


def test_several_csvs_are_pooled(robots: Any) -> None:
    whole = stats(robots)
    lines = robots.csv("seen_train").read_text().splitlines()
    parts = []
    for name, part in {"one": lines[1:3], "two": lines[3:]}.items():
        parts.append(robots.root / f"{name}.csv")
        parts[-1].write_text("\n".join([lines[0], *part]) + "\n")
    pooled = stats(robots, "--csv", str(parts[0]), "--csv", str(parts[1]))
    assert pooled["source_csv"] == f"{parts[0]}, {parts[1]}"
    for name in ("a2d", "g1", "nan"):
        assert pooled["robot_stats"][name]["count"] == whole["robot_stats"][name]["count"]
        assert pooled["robot_stats"][name]["std"] == pytest.approx(whole["robot_stats"][name]["std"], rel=1e-12)


def test_flat_files_and_splits_together(robots: Any) -> None:
    robots.fill("seen_train", ["a2d", "a2d"], flat=True)
    found = stats(robots, "--split", "seen_train", "--split", "unseen")
    expected = np.concatenate([steps(robots, [0, 1]), steps(robots, [1], "unseen")])
    assert found["robot_stats"]["a2d"]["count"] == 15
    assert found["robot_stats"]["a2d"]["mean"] == pytest.approx(expected.mean(0).tolist(), rel=1e-12)


def test_the_number_of_threads_moves_no_bit(robots: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "BATCH", 2)
    assert stats(robots, "--workers", "1") == stats(robots, "--workers", "7")


def test_missing_files_are_counted_and_named(robots: Any) -> None:
    robots.file("seen_train", 2).unlink()
    result = robots.tool("stats", "-d", "agibotbeta")
    assert isinstance(result.exception, ContractError)
    assert f"1 of 5 action files are missing, more than --max-missing 0 allows:\n  {robots.file('seen_train', 2)}" in (
        str(result.exception)
    )
    assert not (robots.data / "regression/agibot_45/agibotbeta_stats.json").exists()
    found = stats(robots, "--max-missing", "0.2")
    assert found["missing_actions"] == 1
    assert found["missing_action_examples"] == [str(robots.file("seen_train", 2))]
    assert found["robot_stats"]["a2d"]["mean"] == pytest.approx(steps(robots, [0, 4]).mean(0).tolist())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 2)), "has shape (4, 2), expected (5, 2) or (10,)"),
        (np.zeros((2, 5)), "has shape (2, 5)"),
        (np.full((5, 2), np.nan), "not finite"),
        (np.array([{}] * 10), "no plain .npy array"),
    ],
)
def test_a_file_that_cannot_be_right(robots: Any, values: Any, message: str) -> None:
    np.save(robots.file("seen_train", 3), values)
    error = str(robots.tool("stats", "-d", "agibotbeta", "--max-missing", "1").exception)
    assert f"{robots.csv('seen_train')}: row 3: action file {robots.file('seen_train', 3)}" in error
    assert message in error


def test_a_row_without_an_action(robots: Any) -> None:
    text = robots.csv("seen_train").read_text()
    robots.csv("seen_train").write_text(text.replace("actions/seen_train_1.npy", ""))
    error = str(robots.tool("stats", "-d", "agibotbeta").exception)
    assert "row 1: column 'action' is empty" in error


def test_what_does_not_fit(robots: Any) -> None:
    assert "has no split val" in str(robots.tool("stats", "-d", "agibotbeta", "--split", "val").exception)
    both = ("--split", "seen_train", "--split", "unseen", "--csv", "x.csv")
    assert "--csv needs one --split" in str(robots.tool("stats", "-d", "agibotbeta", *both).exception)
    for row in range(5):
        robots.file("seen_train", row).unlink()
    assert "no action file is there" in str(robots.tool("stats", "-d", "agibotbeta", "--max-missing", "1").exception)


def test_a_set_without_robots(arm: Any) -> None:
    assert arm.tool("stats", "-d", "calvin").exit_code == 0
    found = json.loads((arm.data / "regression/calvin/calvin_stats.json").read_text())
    assert found["robot_stats"] == {}
    assert found["global"]["mean"] == pytest.approx(steps(arm, [0, 1, 2]).mean(0).tolist())
    assert found["action_root"] == str(arm.data / "regression/calvin/seen_train_stride5")


# --- relative ---------------------------------------------------------------------------------


def relative(disk: Any, *arguments: str) -> str:
    result = disk.tool("relative", "-d", disk.card.key, *arguments)
    assert result.exit_code == 0, result.exception
    return str(result.output)


def target(disk: Any, split: str, row: int, root: Path | None = None) -> Path:
    path = disk.file(split, row).relative_to(disk.data / "regression")
    return (root or disk.data) / "regression_relative" / path


@pytest.mark.parametrize("disk", ["robots", "arm"])
def test_last_minus_first_under_the_same_path(disk: str, request: pytest.FixtureRequest) -> None:
    made = request.getfixturevalue(disk)
    relative(made)
    for split, chunks in made.chunks.items():
        for row, chunk in enumerate(chunks):
            values = np.load(target(made, split, row))
            assert values.dtype == np.float32
            assert values.tolist() == (chunk[4] - chunk[0]).tolist()


def test_statistics_per_robot_are_of_train(robots: Any) -> None:
    relative(robots)
    path = robots.data / "regression_relative/agibot_45/relative_action_stats_agibotbeta.json"
    found = json.loads(path.read_text())
    assert list(found) == ["action_mode", "definition", "dataset", "robot_stats"]
    assert (found["action_mode"], found["dataset"]) == ("relative", "agibotbeta")
    assert found["definition"] == "last action step minus first action step"
    values = np.stack([chunk[4] - chunk[0] for chunk in robots.chunks["seen_train"]]).astype(np.float64)
    assert found["robot_stats"]["a2d"]["count"] == 3
    assert found["robot_stats"]["a2d"]["mean"] == pytest.approx(values[[0, 2, 4]].mean(0).tolist())
    assert found["robot_stats"]["a2d"]["std"] == pytest.approx(values[[0, 2, 4]].std(0).tolist())
    assert found["robot_stats"]["g1"] == {"count": 1, "mean": values[3].tolist(), "std": [1.0, 1.0]}


def test_statistics_of_a_set_without_robots_pool_the_csvs(arm: Any) -> None:
    lines = arm.csv("seen_train").read_text().splitlines()
    parts = [arm.root / "one.csv", arm.root / "two.csv"]
    parts[0].write_text("\n".join(lines[:2]) + "\n")
    parts[1].write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    relative(arm, "--split", "seen_train", *(f"--csv={part}" for part in parts), "--output-root", str(arm.root / "o"))
    path = arm.root / "o/regression_relative/calvin/relative_action_stats_calvin.json"
    found = json.loads(path.read_text())
    assert list(found) == ["action_mode", "definition", "dataset", "count", "mean", "std"]
    values = np.stack([chunk[4] - chunk[0] for chunk in arm.chunks["seen_train"]]).astype(np.float64)
    assert (found["count"], found["mean"]) == (3, pytest.approx(values.mean(0).tolist()))
    assert found["std"] == pytest.approx(values.std(0).tolist())
    assert target(arm, "seen_train", 2, arm.root / "o").is_file()


def test_files_that_are_there_are_kept_if_they_can_be_right(robots: Any) -> None:
    assert "7 rows: 7 written, 0 missing" in relative(robots)
    mine = np.array([9, 9], np.float32)
    np.save(target(robots, "seen_train", 0), mine)
    np.save(target(robots, "seen_train", 1), np.zeros(3, np.float32))
    target(robots, "unseen", 0).write_bytes(b"\x93NUM")
    assert "7 rows: 5 kept, 2 replaced, 0 missing" in relative(robots)
    assert np.load(target(robots, "seen_train", 0)).tolist() == [9, 9]
    chunk = robots.chunks["seen_train"][1]
    assert np.load(target(robots, "seen_train", 1)).tolist() == (chunk[4] - chunk[0]).tolist()
    assert "7 replaced" in relative(robots, "--overwrite")
    assert np.load(target(robots, "seen_train", 0)).tolist() != [9, 9]
    assert not [path for path in robots.data.rglob(".*") if path.is_file()]


def test_missing_chunks(robots: Any) -> None:
    robots.file("unseen", 1).unlink()
    robots.file("seen_train", 1).unlink()
    error = str(robots.tool("relative", "-d", "agibotbeta").exception)
    assert "2 of 7 action files are missing" in error
    assert str(robots.file("unseen", 1)) in error
    assert "5 written, 2 missing" in relative(robots, "--max-missing", "0.5", "--overwrite").replace(
        "replaced", "written"
    )


def test_a_file_elsewhere_has_no_path(robots: Any) -> None:
    outside = robots.root / "outside.npy"
    np.save(outside, np.zeros((5, 2)))
    text = robots.csv("unseen").read_text()
    robots.csv("unseen").write_text(text.replace("actions/unseen_1.npy", str(outside)))
    assert "outside the data root" in str(robots.tool("relative", "-d", "agibotbeta").exception)


def test_one_file_named_by_many_rows(robots: Any) -> None:
    lines = robots.csv("seen_train").read_text().splitlines()
    robots.csv("seen_train").write_text("\n".join([lines[0], *[lines[1]] * 50]) + "\n")
    relative(robots, "--split", "seen_train", "--workers", "16")
    chunk = robots.chunks["seen_train"][0]
    assert np.load(target(robots, "seen_train", 0)).tolist() == (chunk[4] - chunk[0]).tolist()
