"""A family of trained policies acts with what its recipe leaves: trained once, for all checks that need it."""

import ast
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from lary_conformance import acting, training
from lary_conformance.case import Verdict, verdict_of
from lary_conformance.subject import Subject, open_subject
from lary_orch.catalog.cards import Catalog
from lary_orch.runtimes.choose import local
from lary_orch.workspace import Workspace
from lary_schema.training import Optimiser, Recipe

REPO = Path(__file__).parents[3]
RECIPE = Recipe(
    key="toy-a", title="toy", trainee="toy", config={"supervised": True}, optimiser=Optimiser(lr=1e-2), batch_size=4,
    steps=2, losses={"pixels": 1.0, "action": 0.1},
)  # fmt: skip
FAMILY = """
policies:
  - {key: toy, pattern: 'toy(-.*)?-[0-9a-f]{12}', title: toy, license: MIT, source: tests}
"""
POLICY = """
import numpy as np
from lary_policy import Policy
from lary_schema.base import ContractError


class Toy(Policy):
    def load(self, weights, device):
        from safetensors.numpy import load_file

        tensors = load_file(weights["checkpoint"] / "model.safetensors")
        self.scale = sum(float(np.abs(tensor).mean()) for tensor in tensors.values())

    def fit(self, space):
        if len(space.actions) != 3:
            raise ContractError("trained for 3 numbers")
        return ("image",)

    def reset(self, instruction, seed):
        self.draws = np.random.default_rng(seed)

    def act(self, observation):
        return (self.scale * self.draws.uniform(-1, 1, (2, 3))).astype(np.float32)
"""
CHECKS = ("act", "act again", "other protocol", "no message", "another task", "simulator lost")


@pytest.fixture(scope="module")
def toys() -> Mapping[str, str]:
    """TOY_CODE and TOY_YAML of the trainer's own tests, read without the libraries that those import."""
    tree = ast.parse((REPO / "shared/trainer/tests/conftest.py").read_text(encoding="utf-8"))
    texts = (one for one in tree.body if isinstance(one, ast.Assign) and isinstance(one.value, ast.Constant))
    return {ast.unparse(one.targets[0]): ast.literal_eval(one.value) for one in texts}


def make_image(toys: Mapping[str, str], folder: Path, old: str, new: str) -> Path:
    """A folder of the toy's image with a policy of its checkpoints, one piece of whose code is replaced."""
    package, info = folder / "src/lary_toy_acts", folder / "src/lary_toy_acts-1.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    assert old in POLICY
    (package / "toy.py").write_text(toys["TOY_CODE"])
    (package / "policy.py").write_text(POLICY.replace(old, new))
    (package / "image.yaml").write_text(toys["TOY_YAML"] + FAMILY)
    (package / "__init__.py").write_text("")
    (folder / "pyproject.toml").write_text('[project]\nname = "lary-toy-acts"\nversion = "1"\n')
    points = {"models": "toy:ToyModel", "trainees": "toy:ToyTrainee", "policies": "policy:Toy"}
    lines = "".join(f"[lary.{group}]\ntoy = lary_toy_acts.{where}\n" for group, where in points.items())
    (info / "entry_points.txt").write_text(lines)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lary-toy-acts\nVersion: 1\n")
    return folder


@pytest.fixture
def subject(
    toys: Mapping[str, str], warm_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Subject]:
    def opened(old: str = "", new: str = "", recipes: tuple[Recipe, ...] = (RECIPE,)) -> Subject:
        folder = make_image(toys, tmp_path / "image", old, new)
        monkeypatch.setattr(sys, "executable", str(warm_python))
        monkeypatch.setenv("PYTHONPATH", str(folder / "src"))
        catalog = Catalog.load([folder])
        (source,) = (s for _, s in catalog.images if s.folder == folder)
        benchmarks = tuple(card for _, image in catalog.images for card in image.card.benchmarks)
        runtime = local("process", Workspace.locate(tmp_path / "ws", env={}), "current")
        return open_subject(runtime, source, tmp_path, tmp_path, recipes=recipes, benchmarks=benchmarks)

    return opened


def verdicts(subject: Subject, *checks: str) -> dict[str, Verdict]:
    cases = (case for case in acting.cases(subject) if not checks or case.check in checks)
    return {verdict.check: verdict for verdict in map(verdict_of, cases)}


def test_a_trained_policy_acts(subject: Callable[..., Subject]) -> None:
    examined = subject()
    found = verdicts(examined)
    states = {check: verdict.state for check, verdict in found.items()}
    assert states == dict.fromkeys(("policy", "missing weights", *CHECKS), "ok"), found
    assert (found["act"].of, found["act"].message) == ("toy-a", "demo_turn, reads image, chunks of 2")
    assert found["another task"].message == "one process serves several tasks"
    assert found["missing weights"].message.startswith("exit 4: ")
    # The checks of `train` look at the very training that acted.
    (done,) = training.trainings(examined)
    assert len(done._made) == 1


def test_one_that_cannot_read_its_checkpoint_is_found(subject: Callable[..., Subject]) -> None:
    examined = subject("model.safetensors", "policy.safetensors")
    assert verdicts(examined, "act")["act"].state == "failed"
    assert "nobody listens" in verdicts(examined, "act")["act"].message


def test_without_a_recipe_or_a_good_training_nothing_can_act(subject: Callable[..., Subject]) -> None:
    examined = subject(recipes=(RECIPE.model_copy(update={"key": "other"}),))
    found = verdicts(examined, "act", "missing weights")
    assert (list(found), found["act"].state) == (["act"], "skipped")
    assert "no recipe that makes one" in found["act"].message
    examined.recipes = (RECIPE.model_copy(update={"losses": {"pixels": 1.0}}),)
    assert verdicts(examined, "act")["act"].message == "needs a training that ends well"
