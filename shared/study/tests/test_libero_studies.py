"""The studies on LIBERO's simulated arm, on a set as `data generate libero` makes it: two tasks, two episodes each.

The set is of a stand-in for the simulator, so no picture shows an arm. What the studies find is asked elsewhere.
"""

import importlib.util
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from lary_libero.generate import Settings, generate
from lary_libero.layout import Layout
from lary_libero.policies import POLICIES
from lary_libero.scripted import PHASES, Move
from lary_schema.yaml_files import read_yaml
from lary_study.recipes import card_files

REPO = Path(__file__).parents[3]
SETTINGS = Settings(
    suite="libero_object", tasks=(0, 1), episodes=2, seed=0, size=32, policy="scripted", perturb=(),
    cameras=("agentview",), stride=5, horizon=40, libraries={}, renderer="osmesa",
)  # fmt: skip
PAIRS, LATENTS = "libero_object_scripted_pairs", "libero_latents"
SMALL = {"steps": 2, "batch_size": 2}


def _trembling(simulator: Any, entropy: Any) -> Iterator[Move]:
    """Something that moves, in place of the scripted policy, which needs to see objects."""
    chance = np.random.default_rng(list(entropy))
    for phase in PHASES[:4]:
        for _ in range(8):
            yield Move(chance.uniform(-1, 1, 7).astype(np.float32), phase)


def _stand_in() -> ModuleType:
    spec = importlib.util.spec_from_file_location("libero_world", REPO / "images/libero/tests/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _make(world: Callable[..., Any], settings: Settings, task: int) -> Any:
    return world(settings.perturb, task)


def _label(root: Path) -> None:
    """What `data annotate` leaves: codes for every step, and a card that knows of them."""
    chance = np.random.default_rng(0)
    (root / "latents").mkdir()
    for episode in sorted((root / "frames").iterdir()):
        steps = len(list(episode.iterdir()))
        np.savez(
            root / "latents" / f"{episode.name}.npz",
            latent_idx=chance.integers(0, 16, (steps, 4)),
            latent_z=chance.normal(size=(steps, 4, 32)).astype(np.float32),
            latent_valid=np.arange(steps) < steps - 5,
            latent_dt=5,
            latent_model="drawn",
        )
    latents = {"folder": "latents", "dt": 5, "steps": 5, "tokens": 4, "width": 32, "codes": 16, "model": "drawn"}
    card = read_yaml(root / f"{PAIRS}.yaml") | {"key": LATENTS, "latents": latents}
    (root / f"{LATENTS}.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("libero") / "objects"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(POLICIES, "scripted", _trembling)
        generate(Layout(root), SETTINGS, 1, str, partial(_make, _stand_in().make_world))
    _label(root)
    return root


@pytest.fixture
def study(bench: Any, objects: Path) -> Callable[..., int]:
    def run(study: str, *arguments: str) -> int:
        where = ["--catalog", str(objects), "--workspace", str(objects.parent / "workspace")]
        slots = ["--runtime", "process", "--env", "current", "--device", "cpu", "--cpu-slots", "2"]
        return int(bench.command("study", study, *arguments, *where, *slots))

    return run


def _small(key: str, objects: Path, **changes: Any) -> str:
    """The same study with trainings of two steps, without most of its baselines."""
    document = read_yaml(card_files("studies", [], {})[key]) | {"seeds": [0]} | changes
    for stage in document["stages"].values():
        stage["with"] = stage.get("with", {}) | SMALL
    path = objects.parent / f"{key}.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(path)


@pytest.fixture
def arms(objects: Path) -> Callable[[str], dict[str, str]]:
    """The record that a study leaves: the model of each arm and baseline, whether it was trained now or not."""

    def read(key: str) -> dict[str, str]:
        text = (objects.parent / f"workspace/studies/{key}.json").read_text(encoding="utf-8")
        return {entry["arm"]: entry["model"] for entry in json.loads(text)["entries"]}

    return read


def test_a_latent_action_model_is_trained_and_read_beside_frame_diff(
    study: Callable[..., int], objects: Path, arms: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """The other arms and baselines are planned, not made."""
    read = {"variants": ["embed"], "protocol": "study"}
    baselines = read_yaml(card_files("studies", [], {})["libero-lam"])["baselines"]
    kept = {name: one for name, one in baselines.items() if name not in ("random-vit", "pixels", "blind")}
    assert study(_small("libero-lam", objects, read=read, baselines=kept), "--arms", "moto") == 0
    table = capfd.readouterr().out
    assert "12 rows of 2 episodes of libero_object_scripted_pairs/val" in table
    for name in ("moto", "random-init", "frame-diff"):
        (line,) = (line for line in table.splitlines() if line.startswith(f"{name}  ") and "[" in line)
        assert "embed" in line or "corrected" in line
    assert arms("libero-lam").keys() == {"moto", "univla", "random-init", "frame-diff"}


def test_policies_are_trained_on_its_actions_and_codes(
    study: Callable[..., int], objects: Path, arms: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """One of each kind; the others are planned."""
    assert study(_small("libero-policy", objects), "--arms", "head-aligned,la-direct") == 0
    table = capfd.readouterr().out
    assert "held-out rows: means over 12 rows of 2 episodes" in table
    assert "l1_step_5" in table
    assert len(set(arms("libero-policy").values())) == 8
