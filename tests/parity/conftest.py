"""The golden vectors: their cases, their checkpoints made from nothing, and the models under test."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import transformers
from lary_schema.cards import ImageCard
from lary_worker.model import Latents, Model
from numpy.typing import NDArray
from safetensors.torch import save_file

Case = dict[str, Any]
CPU = torch.device("cpu")
TOKENS = {"corrected": "tokens_continuous", "codebook": "tokens_codebook"}
"""Names of the arrays of noisy keys, by variant; `lary-v1` has none."""


class Golden:
    """One folder in the format of `tests/golden` (its README says how it is used)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sys.path.insert(0, str(folder))
        try:
            self._compare: Any = importlib.import_module("compare")
            self.weights: Any = importlib.import_module("weights")
        finally:
            sys.path.remove(str(folder))
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.cases, self.checkpoints = self._compare.load(folder)

    def frames(self, case: Case) -> NDArray[np.uint8]:
        facts = case["frames"]
        clip: NDArray[np.uint8] = self.weights.frames(facts["seed"], facts["t"], facts["h"], facts["w"])
        assert hashlib.sha256(clip.tobytes()).hexdigest() == facts["sha256"], "this machine draws other frames"
        return clip

    def problems(self, case: Case, got: dict[str, NDArray[Any]]) -> list[str]:
        """What differs from upstream. Arrays are brought to the shapes LARYBench writes."""
        shaped = {name: array.reshape(case["arrays"][name]["shape"]) for name, array in got.items()}
        found: list[str] = self._compare.compare(self.folder, case, shaped, self.tolerance(case))
        return found

    def difference(self, case: Case, name: str, array: NDArray[Any]) -> float:
        facts = case["arrays"][name]
        return float(self._compare.difference(self.folder, case, name, array.reshape(facts["shape"])))

    def tolerance(self, case: Case) -> float:
        same = cv2.__version__.split(".")[0] == self.manifest["libraries"]["opencv-python-headless"].split(".")[0]
        return float(case["tolerance"]["atol" if same else "atol_other_opencv"])

    def tensors(self, file: dict[str, Any], salt: str) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in self._compare.tensors(file, salt)}

    def write(self, checkpoint: str, root: Path) -> dict[str, Path]:
        """Write the files of a checkpoint below `root`; their paths by role."""
        facts = self.checkpoints[checkpoint]
        return {file["role"]: self._write_file(file, facts["salt"], root / file["path"]) for file in facts["files"]}

    def _write_file(self, file: dict[str, Any], salt: str, path: Path) -> Path:
        tensors = self.tensors(file, salt)
        path.parent.mkdir(parents=True, exist_ok=True)
        if file["format"] == "save_pretrained folder":
            _save_pretrained(file, tensors, path)
        elif file["format"] == "safetensors":
            save_file(tensors, path)
        elif file["format"] == "torch.save":
            torch.save(self._with_entries(file, salt, tensors), path)
        else:
            path.mkdir()
            (path / "model_config.json").write_text(json.dumps(file["model_config"]))
            save_file(tensors, path / "model.safetensors")
        return path

    def _with_entries(self, file: dict[str, Any], salt: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        if file.get("top_level_key") is None:
            return dict(tensors)
        others = dict(file.get("other_entries", {}))
        for name in [name for name, value in others.items() if isinstance(value, str)]:
            decoy = {key: self.weights.fill(f"{name}/{key}", tuple(t.shape), salt) for key, t in tensors.items()}
            others[name] = {key: torch.from_numpy(array) for key, array in decoy.items()}
        return {**others, file["top_level_key"]: tensors}


def _save_pretrained(file: dict[str, Any], tensors: dict[str, torch.Tensor], path: Path) -> None:
    config = getattr(transformers, file["config_class"])(**file["config"])
    with torch.device("meta"):
        network = getattr(transformers, file["model_class"])(config)
    network.load_state_dict(tensors, assign=True)
    network.save_pretrained(path)


# --- the models under test --------------------------------------------------------------------


def _served(key: str) -> tuple[type[Model], Any]:
    """The class and the resolved card of a key, from whatever images are installed."""
    for point in entry_points(group="lary.models"):
        card = _image(point).card(key)
        if card is not None and card.key == point.name:
            model: type[Model] = point.load()
            return model, model.resolve(card, key)
    raise AssertionError(f"no installed image serves {key}")


def _image(point: EntryPoint) -> ImageCard:
    return ImageCard.load(Path(str(files(point.module.split(".")[0]) / "image.yaml")))


def _sized(model: type[Model], config: dict[str, Any]) -> type[Model]:
    """`model` with the sizes of a golden case in place of the official ones.

    A class holds its sizes as dataclasses in `config` and `tokenizer`, with fields named as upstream's.
    Backbones in folders and networks with a config file are left out: they read theirs.
    """
    sized = {}
    for role, values in (("config", config.get("model")), ("tokenizer", config.get("tokenizer", {}).get("ddconfig"))):
        if values and hasattr(model, role):
            sized[role] = _replaced(getattr(model, role), values)
    return type(model.__name__, (model,), sized)


def _replaced(official: Any, values: dict[str, Any]) -> Any:
    changes: dict[str, Any] = {}
    for name in {field.name for field in dataclasses.fields(official)} & set(values):
        value, current = values[name], getattr(official, name)
        nested = dataclasses.is_dataclass(current)
        changes[name] = _replaced(current, value) if nested else tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(official, **changes)


class Bench:
    """Runs a model of this project on a golden case."""

    def __init__(self, golden: Golden, checkpoint: Callable[[str], dict[str, Path]]) -> None:
        self.golden = golden
        self.checkpoint = checkpoint

    def model(self, case: Case, variant: str, mode: str | None = None) -> Model:
        """Loaded from the case's checkpoint by the model's own loader."""
        model = self.unloaded(case, variant, mode)
        model.load(self.checkpoint(case["checkpoint"]), CPU, torch.float32, seed=0)
        return model

    def unloaded(self, case: Case, variant: str, mode: str | None = None) -> Model:
        cls, card = _served(case["key"])
        return _sized(cls, case["config"])(card, mode or case["mode"], variant)

    def encode(self, model: Model, *clips: NDArray[np.uint8], rows: tuple[int, ...] | None = None) -> Latents:
        """The latents of a batch of clips."""
        batch = torch.from_numpy(np.stack([model.preprocess(clip) for clip in clips]))
        with torch.inference_mode():
            return model.encode(batch, np.array(rows or range(len(clips))))

    def arrays(self, case: Case, variant: str, latents: Latents) -> dict[str, NDArray[Any]]:
        """One row's latents under the names of the case's arrays."""
        noisy = "tokens_continuous" in case["arrays"]
        name = TOKENS.get(variant) if noisy else "tokens"
        got = {} if name is None else {name: latents.tokens[0].numpy()}
        if latents.indices is not None:
            got["indices"] = latents.indices[0].numpy()
        return got


# --- fixtures ---------------------------------------------------------------------------------


def _folder() -> Path:
    return Path(os.environ.get("LARY_GOLDEN") or Path(__file__).parents[1] / "golden")


_GOLDEN = Golden(_folder())


def _variants(case: Case) -> list[str]:
    return [*case["serves"], *(["codebook"] if "tokens_codebook" in case["arrays"] else [])]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`case` runs over the manifest, and `variant`, where asked for, over what a case tells about."""
    if "case" not in metafunc.fixturenames:
        return
    with_variant = "variant" in metafunc.fixturenames
    params = [
        pytest.param(
            *([case, variant] if with_variant else [case]),
            id="-".join(filter(None, (case["size"], case["key"], case["mode"], variant or case["variant"]))),
            marks=[pytest.mark.full] if case["size"] == "full" else [],
        )
        for case in _GOLDEN.cases
        for variant in (_variants(case) if with_variant else [""])
    ]
    metafunc.parametrize("case,variant" if with_variant else "case", params)


@pytest.fixture(scope="session")
def golden() -> Golden:
    return _GOLDEN


@pytest.fixture(scope="session")
def small_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    return {}


@pytest.fixture
def bench(
    golden: Golden, small_checkpoints: dict[str, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """Small checkpoints are written once; full ones, of gigabytes, are gone after their test."""
    passing: list[Path] = []

    def checkpoint(name: str) -> dict[str, Path]:
        if name in small_checkpoints:
            return small_checkpoints[name]
        root = tmp_path_factory.mktemp(name)
        paths = golden.write(name, root)
        if golden.checkpoints[name]["size"] == "small":
            small_checkpoints[name] = paths
        else:
            passing.append(root)
        return paths

    yield Bench(golden, checkpoint)
    for root in passing:
        shutil.rmtree(root)
