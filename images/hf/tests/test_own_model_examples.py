"""The two models of docs/own-model.md keep to their cards, each in the folder that `new-model` makes."""

import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from lary_conformance.new_model import make_model_folder
from lary_schema.base import WeightsError
from lary_schema.cards import ImageCard, ModelCard
from lary_worker import Model
from lary_worker.selftest import tiny_clip
from safetensors.torch import save_file

REPO = Path(__file__).parents[3]
PAGE = (REPO / "docs/own-model.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r'```\w+ title="(\w+: [\w.]+)"\n(.*?)```', PAGE, re.DOTALL))
THEIRS = """
import torch

class LatentActions(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.head = torch.nn.Linear(3, width)

    def forward(self, before, after):
        return self.head((after - before).mean((2, 3)))
"""


@pytest.fixture(params=["transformers", "repository"])
def example(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The example's folder is importable; so is the repository that one of them takes."""
    folder = tmp_path / "my-lam"
    make_model_folder("my-lam", folder, REPO / "images/baseline")
    package = folder / "src/lary_my_lam"
    (package / "my_lam.py").write_text(BLOCKS[f"{request.param}: my_lam.py"], encoding="utf-8")
    card = (package / "image.yaml").read_text(encoding="utf-8").split("  - key:")[0]
    (package / "image.yaml").write_text(card + BLOCKS[f"{request.param}: image.yaml"], encoding="utf-8")
    (tmp_path / "theirs/their_lam").mkdir(parents=True)
    (tmp_path / "theirs/their_lam/model.py").write_text(THEIRS, encoding="utf-8")
    for path in (folder / "src", tmp_path / "theirs"):
        monkeypatch.syspath_prepend(str(path))
    yield request.param
    for name in [name for name in sys.modules if name.split(".")[0] in ("lary_my_lam", "their_lam")]:
        del sys.modules[name]


def parts() -> tuple[ModuleType, ModelCard]:
    module = importlib.import_module("lary_my_lam.my_lam")
    card = ImageCard.load(Path(str(module.__file__)).with_name("image.yaml")).card("my-lam")
    assert card is not None
    return module, card


@torch.inference_mode()
def latents(model: Model) -> torch.Tensor:
    frames = 2 if model.mode == "image" else model.spec.input.shape[0]
    inputs = np.stack([model.preprocess(tiny_clip(frames, seed)) for seed in range(2)])
    assert (inputs.shape[1:], str(inputs.dtype)) == (model.spec.input.shape, model.spec.input.dtype)
    return model.encode(torch.from_numpy(inputs), np.arange(2)).tokens


def test_it_gives_what_its_card_says(example: str) -> None:
    module, card = parts()
    for mode in card.modes:
        model = module.MyLam(card, mode, card.variants[0])
        model.random_weights(torch.device("cpu"), torch.float32, 0)
        tokens = latents(model)
        assert tokens.shape == (2, *model.spec.tokens)
        assert tokens.isfinite().all()
        assert not torch.equal(tokens[0], tokens[1])


def test_its_weights_are_read_strictly(example: str, tmp_path: Path) -> None:
    """Saved and loaded, it gives the same; with a tensor more it is refused."""
    module, card = parts()
    model = module.MyLam(card, "image", card.variants[0])
    cpu = torch.device("cpu")
    model.random_weights(cpu, torch.float32, 0)
    before = latents(model)
    folder = tmp_path / "weights"
    folder.mkdir()
    file = folder / "model.safetensors"
    if example == "transformers":
        model.network.save_pretrained(folder)
    else:
        save_file(model.network.state_dict(), file)
    where = folder if example == "transformers" else file
    model.load({"model": where}, cpu, torch.float32, 1)
    assert torch.equal(latents(model), before)
    save_file({**model.network.state_dict(), "extra": torch.zeros(1)}, file, {"format": "pt"})
    with pytest.raises(WeightsError, match="extra"):
        model.load({"model": where}, cpu, torch.float32, 1)


def test_the_dependencies_are_toml() -> None:
    parsed = tomllib.loads(BLOCKS["repository: pyproject.toml"])
    assert any("git+https" in dependency for dependency in parsed["dependencies"])
