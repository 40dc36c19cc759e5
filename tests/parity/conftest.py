"""The golden vectors: their cases, their checkpoints made from nothing, and the models under test."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_type_hints

import cv2
import numpy as np
import pytest
import torch
import transformers
from _pytest.mark.structures import ParameterSet
from lary_schema.cards import ImageCard, Mode, ModelCard
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


def served(key: str) -> tuple[type[Model], ModelCard]:
    """The class and the resolved card of a key, from whatever images are installed."""
    found = _declared(key)
    assert found is not None, f"no installed image serves {key}"
    point, card = found
    model: type[Model] = point.load()
    return model, model.resolve(card, key)


@cache
def _declared(key: str) -> tuple[EntryPoint, ModelCard] | None:
    for point in entry_points(group="lary.models"):
        image = ImageCard.load(Path(str(files(point.module.split(".")[0]) / "image.yaml")))
        card = image.card(key)
        if card is not None and card.key == point.name:
            return point, card
    return None


def _fitted(card: ModelCard, case: Case, mode: Mode, variant: str) -> ModelCard:
    """`card` with the widths of a small network in place of the official ones; T stays."""
    spec = card.spec(mode, variant)
    steps = spec.tokens[0]
    *rows, width = case["arrays"]["tokens_continuous" if "tokens_continuous" in case["arrays"] else "tokens"]["shape"]
    changes: dict[str, Any] = {"tokens": (steps, math.prod(rows) // steps, width)}
    if spec.indices is not None:
        changes["indices"] = (steps, math.prod(case["arrays"]["indices"]["shape"]) // steps)
    fitted = spec.model_copy(update=changes)
    return card.model_copy(update={"modes": {mode: fitted}, "variant_modes": {variant: {mode: fitted}}})


def _sized(model: type[Model], config: dict[str, Any]) -> type[Model]:
    """`model` with the sizes of a golden case in place of the official ones.

    A class holds its sizes as dataclasses in `config` and `tokenizer`, with fields named as upstream's; None
    stands for the defaults. Backbones in folders and networks with a config file are left out: they read theirs.
    """
    sized = {}
    for role, values in (("config", config.get("model")), ("tokenizer", config.get("tokenizer", {}).get("ddconfig"))):
        if values and hasattr(model, role):
            official = getattr(model, role) or get_args(get_type_hints(model)[role])[0]()
            sized[role] = _replaced(official, values)
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

    def model(self, case: Case, variant: str) -> Model:
        """Loaded from the case's checkpoint by the model's own loader."""
        model = self.unloaded(case, variant)
        model.load(self.checkpoint(case["checkpoint"]), CPU, torch.float32, seed=0)
        return model

    def unloaded(self, case: Case, variant: str) -> Model:
        cls, card = served(case["key"])
        fitted = _fitted(card, case, case["mode"], variant) if case["size"] == "small" else card
        return _sized(cls, case["config"])(fitted, case["mode"], variant)

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

    def noise_lengths(self, clean: Model, noisy: Model, clip: NDArray[np.uint8]) -> NDArray[Any]:
        """(T, n): how long the noise of `lary-v1` is before the last projection, of one LAQ key in both variants."""
        added = self.encode(noisy, clip).tokens[0] - self.encode(clean, clip).tokens[0]  # (T, n, d)
        laq: Any = noisy
        with torch.inference_mode():
            codes = added @ torch.linalg.pinv(laq.laq.vq.project_out.weight).mT  # (T, n, q), a view of (T, q, n)
        lengths: NDArray[Any] = codes.mT.reshape(codes.shape).norm(dim=-1).numpy()
        return lengths


# --- fixtures ---------------------------------------------------------------------------------


def _folder() -> Path:
    return Path(os.environ.get("LARY_GOLDEN") or Path(__file__).parents[1] / "golden")


_GOLDEN = Golden(_folder())


def variants_of(case: Case) -> list[str]:
    variants = [*case["serves"], *(["codebook"] if "tokens_codebook" in case["arrays"] else [])]
    return [variant for variant in variants if not is_fed_otherwise(case, variant)]


def is_fed_otherwise(case: Case, variant: str) -> bool:
    """The backbones alone, `corrected`: the golden arrays hold the scales of LARYBench's LAQ models.

    `test_parity_origin` computes what they should be.
    """
    return variant == "corrected" and case["key"].endswith("-origin")


def draws_noise(case: Case) -> bool:
    """And the noise can be recovered from the tokens: the last projection does not narrow."""
    return "residual_norm" in case["arrays"] and case["config"]["model"]["dim"] >= case["config"]["model"]["quant_dim"]


def _is_cubic(case: Case) -> bool:
    found = _declared(case["key"])
    return found is not None and found[1].preprocessing_of("lary-v1") == "cv2-cubic-224"


CLIPS = ("univla", "flux2", "wan2-2", "vjepa2", "villa-x")
"""The keys of whole clips and of UniVLA; all but UniVLA have a preprocessing of their own."""

_SELECTIONS: dict[str, Callable[[Case], bool]] = {
    "case": lambda case: True,
    "noisy_case": draws_noise,
    "cubic_case": _is_cubic,
    "clip_case": lambda case: case["key"] in CLIPS[1:] and case["size"] == "small",
    "origin_case": lambda case: is_fed_otherwise(case, case["variant"]) and case["size"] == "small",
    "coded_case": lambda case: "latents_before_quantisation" in case["arrays"],
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`case` and its narrower kin run over the manifest; `variant`, where requested, over what a case has."""
    for name in set(_SELECTIONS) & set(metafunc.fixturenames):
        cases = [case for case in _GOLDEN.cases if _SELECTIONS[name](case)]
        if "variant" in metafunc.fixturenames:
            params = [_param(case, variant) for case in cases for variant in variants_of(case)]
            metafunc.parametrize(f"{name},variant", params)
        else:
            metafunc.parametrize(name, [_param(case) for case in cases])


def _param(case: Case, *variant: str) -> ParameterSet:
    name = "-".join((case["size"], case["key"], case["mode"], *(variant or (case["variant"],))))
    return pytest.param(case, *variant, id=name, marks=[pytest.mark.full] if case["size"] == "full" else [])


@pytest.fixture(scope="session")
def golden() -> Golden:
    return _GOLDEN


@pytest.fixture(scope="session")
def small_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    return {}


@pytest.fixture
def bench(
    golden: Golden,
    small_checkpoints: dict[str, dict[str, Path]],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Bench]:
    """Small checkpoints are written once; full ones, of gigabytes, are gone after their test."""
    passing: list[Path] = []
    threads = torch.get_num_threads()
    if request.node.get_closest_marker("full") is None:
        torch.set_num_threads(1)  # small networks only wait for each other's threads

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
    torch.set_num_threads(threads)
    for root in passing:
        shutil.rmtree(root)
