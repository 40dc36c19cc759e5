"""Scores as a DataFrame: the same as `results --json`, in one shape."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lary_orch.workspace import Workspace
from lary_results.export import as_json
from lary_results.files import read_results
from lary_results.frame import COLUMNS, frame
from lary_results.scores import collect
from lary_schema.base import ContractError


@pytest.fixture
def results(write: Callable[..., Path], workspace: Workspace) -> Path:
    """An old score and a new one of one cell, a control, a regression that diverged, one with two seeds."""
    write("lam", "calvin", {"val": 0.5}, protocol="clean")
    write("lam", "calvin", {"val": 0.6, "unseen": 0.4}, protocol="clean", failed=2, settings={"precision": "bf16"})
    write("lam", "calvin", {"val": 0.7}, protocol="clean")
    write("lam", "calvin", {"val": 0.1}, protocol="clean", control="shuffled")
    write("arm", "libero", {"val": float("nan")}, metric="mse", group="episode")
    folder = write("two", "libero", {"val": 0.3}, metric="mse")
    document = json.loads((folder / "result.json").read_text())
    score = document["splits"]["val"]
    second = json.loads(json.dumps(score["seeds"][0]))
    second["seed"], second["best"]["value"] = 7, 0.4
    score["seeds"].append(second)
    score["value"], score["std"] = 0.35, 0.07
    (folder / "result.json").write_text(json.dumps(document))
    return workspace.results


def test_every_score_of_json_is_a_row(results: Path, workspace: Workspace) -> None:
    found = frame(workspace.root)
    entries = as_json(collect(read_results(results)))
    assert len(found) == len(entries) == 6
    assert list(found.columns) == list(COLUMNS)
    for (_, row), entry in zip(found.iterrows(), entries, strict=True):
        for name in set(COLUMNS) & set(entry) - {"settings", "latents", "metadata", "mixed", "differences"}:
            same = pd.isna(row[name]) if entry[name] is None else row[name] == entry[name]
            assert same, (name, row[name], entry[name])
        for name in ("latents", "metadata", "mixed", "differences"):
            assert list(row[name]) == list(entry[name])
        assert (entry["settings"] is None) == pd.isna(row["settings"])
        assert entry["settings"] is None or json.loads(row["settings"]) == entry["settings"]


def test_dtypes_do_not_depend_on_the_results(results: Path, tmp_path: Path) -> None:
    full, empty = frame(results), frame(tmp_path)
    assert empty.empty
    assert full.dtypes.to_dict() == empty.dtypes.to_dict()
    assert str(full.value.dtype) == "float64"
    assert {str(full[name].dtype) for name in ("seed", "rows", "groups")} == {"Int64"}
    assert pd.concat([empty, full]).dtypes.to_dict() == full.dtypes.to_dict()


def test_seeds(results: Path) -> None:
    means = frame(results).set_index("model").loc["two"]
    assert pd.isna(means.seed)
    assert (means.seeds, means.value, means["std"]) == (2, 0.35, 0.07)
    found = frame(results, by_seed=True)
    two = found[found.model == "two"]
    assert two.seed.tolist() == [0, 7]
    assert two.value.tolist() == [0.3, 0.4]
    assert two[["low", "high", "std"]].isna().all().all()
    assert len(found) == len(frame(results)) + 1


def test_older_ones_runs_and_numbers_that_are_none(results: Path, write: Callable[..., Path]) -> None:
    write("late", "calvin", {"val": 0.2}, run="other-1", protocol="clean")
    assert sorted(frame(results, older=True).query("model == 'lam' and variant == 'lary-v1'").value) == [
        *(0.1, 0.4, 0.5, 0.6, 0.7),
    ]
    assert frame(results, run="other-1").model.tolist() == ["late"]
    nan = frame(results).query("model == 'arm'").iloc[0]
    assert np.isnan(nan.value)
    assert nan.group == "episode"


def test_without_pandas(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ContractError, match=r"lary-results\[pandas\]"):
        frame(results)


def test_a_file_that_is_none(results: Path) -> None:
    file: Any = next(results.rglob("result.json"))
    file.write_text("{")
    with pytest.raises(ContractError):
        frame(results)


def test_every_column_is_described() -> None:
    page = Path(__file__).parents[3] / "docs/results.md"
    section = page.read_text(encoding="utf-8").partition("## As a DataFrame")[2]
    assert [name for name in COLUMNS if f"`{name}`" not in section] == []
