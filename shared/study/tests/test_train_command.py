"""`lary-orch train`: the key is known before, the checkpoint is a model, and what is done is not done again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

TRAIN = ("train", "-r", "toy-demo", "-d", "toys")


@pytest.fixture(scope="module")
def trained(bench: Any) -> str:
    """The key of a finished training."""
    assert bench.run(*TRAIN) == 0
    (folder,) = (bench.workspace / "trained").iterdir()
    return str(folder.name)


def test_the_key_is_known_before_and_printed_after(bench: Any, trained: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench.run(*TRAIN, "--plan") == 0
    job = json.loads(capfd.readouterr().out)
    assert job["id"] == f"train.{trained}"
    assert bench.run(*TRAIN) == 0
    out, err = capfd.readouterr()
    assert out == f"{trained}\n"
    assert "nothing to do" in err
    result = bench.json(f"trained/{trained}/checkpoint/training.json")
    assert (result["key"], result["rows"], result["supervision"]) == (trained, 32, "none")


def test_it_is_extracted_and_probed_with_no_further_step(bench: Any, trained: str) -> None:
    code = bench.run("run", "-m", trained, "-d", "toys", "--protocol", "study", "--no-control")
    assert code == 0
    (result,) = (bench.workspace / "results").glob(f"*/{trained}/toys/*/result.json")
    found = json.loads(result.read_text())
    fingerprint = bench.json(f"trained/{trained}/checkpoint/training.json")["fingerprint"]
    assert [store["weights"] for store in found["stores"]] == [{"checkpoint": fingerprint}] * 2


def test_trained_models_are_listed_and_removed(
    bench: Any, trained: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bench.workspace / "trained", tmp_path / "trained")
    (tmp_path / "trained/toy-demo-ffffffffffff/checkpoint").mkdir(parents=True)
    assert bench.command("models", "--trained", "--json", "--workspace", str(tmp_path)) == 0
    (row,) = json.loads(capfd.readouterr().out)
    assert (row["key"], row["recipe"], row["rows"], row["supervision"]) == (trained, "toy-demo", 32, "none")
    assert set(row["measures"]) >= {"rec", "copy"}
    assert bench.command("models", "--trained", "--workspace", str(tmp_path)) == 0
    assert trained in capfd.readouterr().out
    card = json.loads((tmp_path / f"trained/{trained}/checkpoint/card.json").read_text())["card"]
    where = ("--workspace", str(tmp_path), "--catalog", str(bench.catalog))
    assert bench.command("models", trained, "--json", *where) == 0
    row = json.loads(capfd.readouterr().out)
    assert (row["key"], row["name"], row["example"]) == (trained, trained, None), "its own facts, not its family's"
    assert row["tokens"] == {mode: spec["tokens"] for mode, spec in card["modes"].items()}
    for name, code in (("toy-none", 2), (trained, 0), ("toy-demo", 0)):
        assert bench.command("clean", "--trained", name, "--yes", "--workspace", str(tmp_path)) == code
    assert list((tmp_path / "trained").iterdir()) == []
