"""TensorBoard and Weights & Biases: what they are given, and where it lands."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lary_schema.base import ContractError
from lary_schema.cards import ProtocolCard

WithProtocol = Callable[..., ProtocolCard]

FAKE_WANDB = """
import json, pathlib
class Run:
    def __init__(self, dir, **facts):
        self.file = (pathlib.Path(dir) / "wandb" / (facts["name"] + ".json"))
        self.file.parent.mkdir(exist_ok=True)
        self.facts, self.logged = facts, []
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self.file.write_text(json.dumps([self.facts, self.logged]))
    def log(self, scalars, step):
        self.logged.append([step, scalars])
init = Run
"""


def log_rows(toy: Any) -> list[dict[str, str]]:
    with (toy.mounts.out / "log_r0.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each scalar in a folder of event files; read by another process, which TensorBoard may keep."""
    code = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
found = EventAccumulator(sys.argv[1]).Reload()
print(json.dumps({tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}))
"""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    return {tag: [(step, value) for step, value in found] for tag, found in json.loads(done.stdout).items()}


def test_tensorboard_gets_every_epoch_of_every_seed(toy_classes: Any, with_protocol: WithProtocol) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    job = toy_classes.job("classify", trackers=("tensorboard",), protocol=with_protocol(seeds=(0, 1)))
    without = toy_classes.run(job.model_copy(update={"trackers": ()}))
    left = toy_classes.mounts.out / "tensorboard/seed_0/events.out.tfevents.0.old"
    left.parent.mkdir(parents=True)
    left.touch()
    result = toy_classes.run(job)
    assert result.splits == without.splits
    assert not left.exists()
    folders = sorted(path.name for path in (toy_classes.mounts.out / "tensorboard").iterdir())
    assert folders == ["seed_0", "seed_1"]
    found = read_events(toy_classes.mounts.out / "tensorboard/seed_0")
    heads = {"lr/head_0", "lr/head_1", "val/head"}
    assert set(found) == {"train/top1", "holdout/top1", "val/top1", "val/macro"} | heads
    for tag, column in (("val/top1", "val_acc"), ("train/top1", "train_acc"), ("holdout/top1", "selection")):
        wanted = [(int(row["epoch"]), pytest.approx(float(row[column]), abs=1e-6)) for row in log_rows(toy_classes)]
        assert found[tag] == wanted
    # Two steps an epoch, six in all: the cosine (k = 2, 4, 6) at the second, fourth and sixth of them.
    assert [value for _, value in found["lr/head_0"]] == pytest.approx([7.5e-3, 2.5e-3, 0], rel=1e-3)


def test_wandb_gets_a_regression(toy_actions: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb.py").write_text(FAKE_WANDB)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    toy_actions.run(toy_actions.job("regress", trackers=("wandb",)))
    del sys.modules["wandb"]
    facts, logged = toy_actions.document("wandb/toy-toys-seed-0.json")
    assert facts["mode"] == "offline"
    assert (facts["config"]["seed"], facts["config"]["model"], facts["group"]) == (0, "toy", "probe-1")
    assert [step for step, _ in logged] == [1, 2, 3, 4]
    rows = log_rows(toy_actions)
    assert [scalars["val/mse"] for _, scalars in logged] == [float(row["val_mse"]) for row in rows]
    assert set(logged[0][1]) == {"train/mse", "holdout/mse", "val/mse", "val/r2", "lr"}


def test_wandb_itself_writes_below_the_out_mount(toy_classes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(toy_classes.mounts.data))
    toy_classes.run(toy_classes.job("classify", trackers=("wandb",)))
    (run,) = (toy_classes.mounts.out / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"holdout/top1" in run.read_bytes()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_said_before_training(
    toy_classes: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lary_probe.trackers.find_spec", lambda _: None)
    with pytest.raises(ContractError, match=re.escape(f"uv pip install --python {sys.executable} {name} ")):
        toy_classes.run(toy_classes.job("classify", trackers=(name,)))
    assert toy_classes.events == []
