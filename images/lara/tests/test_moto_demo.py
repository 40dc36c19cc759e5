"""`moto-demo` at its full 900 steps, by the command line: it uses its latent, and how well is a number."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.full, pytest.mark.timeout(3600)]


def train(workspace: Path, dataset: str, *settings: str) -> dict[str, Any]:
    """The last held-out measures of a training."""
    command = [str(Path(sys.executable).with_name("lary-orch")), "train", "--recipe", "moto-demo", "--dataset", dataset]
    options = ["--seed", "0", "--evaluate-every", "900", "--workspace", str(workspace), "--env", "current"]
    options += [word for setting in settings for word in ("--set", setting)]
    before = set(workspace.glob("trained/*"))
    subprocess.run([*command, *options], check=True)
    (made,) = set(workspace.glob("trained/*")) - before
    result = json.loads((made / "checkpoint/training.json").read_text(encoding="utf-8"))
    values: dict[str, Any] = next(m["values"] for m in reversed(result["measured"]) if m["split"] == "val")
    return values


@pytest.mark.parametrize(
    ("dataset", "of_copy", "of_blind", "shuffled"),
    [("demo_arm_long", 0.55, 0.75, 1.6), ("demo_arm_still", 0.4, 0.5, 2.5)],
)
def test_it_uses_its_latent(tmp_path: Path, dataset: str, of_copy: float, of_blind: float, shuffled: float) -> None:
    found = train(tmp_path, dataset)
    assert found["rec"] < of_copy * found["copy"]
    assert found["shuffled"] > shuffled * found["rec"]
    assert found["perplexity"] >= 64
    assert found["codes_used"] >= 100
    blind = train(tmp_path, dataset, "latent=none")
    assert found["rec"] < of_blind * blind["rec"]
