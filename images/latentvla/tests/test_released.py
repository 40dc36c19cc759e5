"""Released files as models: folders below the weights root, random weights under the released names, at small sizes."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lary_latentvla import released
from lary_latentvla.action_range import ActionRange
from lary_latentvla.released import ReleasedTokenizer, ReleasedUnivla
from lary_latentvla.text import T5_WIDTH, TextEncoder
from lary_latentvla.tokenizer_facts import TokenizerConfig
from lary_latentvla.tokenizer_network import ActionTokenizer
from lary_latentvla.univla_facts import UnivlaConfig
from lary_latentvla.univla_network import UnivlaLam, make_univla
from lary_orch.catalog.cards import Catalog
from lary_orch.cli.models import rows
from lary_orch.workspace import Workspace
from lary_parts import encoders
from lary_parts.encoders import FrameEncoder
from lary_schema.base import WeightsError, path_sha256
from lary_schema.cards import ImageCard, ModelCard
from lary_worker.convert import convert
from lary_worker.encode import check_latents
from lary_worker.registry import describe, find_image
from lary_worker.selftest import selftest
from safetensors.torch import load_file, save_file
from torch import nn

CPU = torch.device("cpu")
IMAGE = ImageCard.load(Path(released.__file__).parent / "image.yaml")
DINO_FOLDER = "dinov2-with-registers-base"
DINO = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SIZES: dict[str, Any] = {
    "size": 224, "patch": 14, "width": 64, "heads": 1, "encoder_layers": 2, "decoder_layers": 1, "tokens": 4,
    "codes": 16, "code_width": 8, "encoder": "dinov2-b-reg",
}  # fmt: skip
STAGES = {"one": (1, False), "two": (2, False), "policy": (2, True)}
"""Stage 1, stage 2, and P2T's stage 2 with its action head."""
State = dict[str, torch.Tensor]


class _Frames(FrameEncoder):
    tokens, width = 256, DINO["hidden_size"]


class _Text(TextEncoder):
    width = T5_WIDTH


def univla(stage: int, *, policy: bool) -> UnivlaLam:
    config = UnivlaConfig.model_validate(SIZES | {"stage": stage, "text": "t5-base" if stage == 1 else "none"})
    return make_univla(config, _Frames(), 3, _Text() if stage == 1 else None, 6 if policy else None)


def released_names(network: UnivlaLam) -> State:
    state = {}
    for name, tensor in network.kept_state().items():
        theirs = name.replace("vq.embedding.", "vq.codebook.").replace("vq_action.embedding.", "vq_action.codebook.")
        state[theirs if name.startswith("action_decoder.") else f"lam.{theirs}"] = tensor.clone()
    frozen = ("dino_encoder.cls_token", *(("text_encoder.shared.weight",) if network.config.stage == 1 else ()))
    return state | {f"lam.{name}": torch.zeros(1) for name in frozen}


def tokenizer_parts(dimensions: int) -> dict[str, State]:
    torch.manual_seed(0)
    made = ActionTokenizer(TokenizerConfig(), dimensions)
    made.vq.draw(np.random.default_rng(0))
    parts: dict[str, State] = {"encoder": {}, "vq": {}, "decoder": {}}
    for name, tensor in made.kept_state().items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    return parts


@pytest.fixture(autouse=True)
def image(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LARY_IMAGE", "latentvla")
    find_image.cache_clear()
    yield
    find_image.cache_clear()


@pytest.fixture(scope="module")
def root_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights root with every kind of released file, converted, and the frozen encoder's folder."""
    import transformers

    root = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    backbone = transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**DINO, patch_size=14))
    backbone.save_pretrained(root / DINO_FOLDER)
    for name, (stage, policy) in STAGES.items():
        folder = root / f"released-univla-{name}"
        folder.mkdir()
        content = {"state_dict": released_names(univla(stage, policy=policy)), "epoch": 3, "callbacks": {}}
        torch.save(content, root / "lam.ckpt")
        convert(root / "lam.ckpt", folder / "model.safetensors", "state_dict", trusted=True)
        write_config(folder, {"text_states": "text"} if stage == 1 else {})
    folder = root / "released-tokenizer-libero"
    folder.mkdir()
    parts = tokenizer_parts(7)
    torch.save(parts, root / "tokenizer_step_9.pt")
    for part in parts:
        convert(root / "tokenizer_step_9.pt", folder / f"{part}.safetensors", part, trusted=True)
    write_config(folder, {"steps": 8, "low": [-2, -1, 0, 0, 0, 0, 1], "high": [2, 3, 1, 1, 1, 1, 1]})
    return root


@pytest.fixture
def root(root_once: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LARY_MOUNT_WEIGHTS", str(root_once))
    monkeypatch.setattr(encoders, "DINO", {**encoders.DINO, **DINO})
    return root_once


@pytest.fixture
def copied(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A model's folder to do harm to, below a weights root of its own."""

    def copy(key: str) -> Path:
        shutil.copytree(root / key, tmp_path / key)
        (tmp_path / DINO_FOLDER).symlink_to(root / DINO_FOLDER)
        monkeypatch.setenv("LARY_MOUNT_WEIGHTS", str(tmp_path))
        return tmp_path / key

    return copy


def write_config(folder: Path, content: Any) -> None:
    (folder / "config.json").write_text(json.dumps(content))


def card_of(key: str) -> ModelCard:
    found = IMAGE.card(key)
    assert found is not None
    kind = ReleasedUnivla if found.key == "released-univla" else ReleasedTokenizer
    return kind.resolve(found, key)


def loaded(folder: Path, encoder: Path, variant: str = "embed", mode: Any = "image") -> ReleasedUnivla:
    model = ReleasedUnivla(card_of(folder.name), mode, variant)
    model.load({"model": folder, "encoder": encoder}, CPU, torch.float32, 0)
    return model


# --- UniVLA -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STAGES)
def test_what_is_read_is_the_file(name: str, root: Path) -> None:
    stage, policy = STAGES[name]
    folder, dino = root / f"released-univla-{name}", root / DINO_FOLDER
    card = card_of(folder.name)
    assert [spec.path for spec in card.weights] == [folder.name, dino.name]
    assert card.variants == ("embed", "codebook", "onehot", *(("uncontrolled",) if stage == 2 else ()))
    source = univla(stage, policy=policy)
    batch = torch.randint(0, 256, (1, 3, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first = loaded(folder, dino)
    with torch.inference_mode():
        features = first.network.features(first.network.pixels(batch[0]))
        found = source.find(features[:-1], features[1:])
    other = found.uncontrolled or found.controllable
    expected = {
        "embed": (found.controllable.embeddings, found.controllable.indices),
        "codebook": (found.controllable.codes, found.controllable.indices),
        "onehot": (nn.functional.one_hot(found.controllable.indices, 16).float(), found.controllable.indices),
        "uncontrolled": (other.codes, other.indices),
    }
    for variant in card.variants:
        tokens, indices = expected[variant]
        model = loaded(folder, dino, variant)
        with torch.inference_mode():
            read = model.encode(batch[:, :2], np.arange(1))
        check_latents(model, read, 1)
        assert read.indices is not None
        torch.testing.assert_close(read.tokens[0, 0], tokens[0], atol=1e-5, rtol=1e-5)
        assert torch.equal(read.indices[0, 0], indices[0])
    assert card.spec("video", "embed").tokens == (8, 4, 8)


def test_what_stage_one_means_has_to_be_said(copied: Callable[[str], Path]) -> None:
    folder = copied("released-univla-one")
    prints = {}
    for states in ("text", "encoded"):
        write_config(folder, {"text_states": states})
        prints[states] = path_sha256(folder)
        assert card_of(folder.name).modes["image"].tokens == (1, 4, 8)
    assert prints["text"] != prints["encoded"], "equal tensors of another meaning"
    for config, said in (({}, "2025-08-21"), ({"text_states": "both"}, "text_states"), ({"states": "text"}, "states")):
        write_config(folder, config)
        with pytest.raises(WeightsError, match=said):
            card_of(folder.name)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match="README"):
        card_of(folder.name)


def test_stage_two_reads_no_text(copied: Callable[[str], Path]) -> None:
    folder = copied("released-univla-two")
    write_config(folder, {"text_states": "text"})
    with pytest.raises(WeightsError, match="leave text_states out"):
        card_of(folder.name)


@pytest.mark.parametrize("name", STAGES)
def test_each_missing_further_or_misshapen_tensor_is_named(name: str, copied: Callable[[str], Path]) -> None:
    folder = copied(f"released-univla-{name}")
    whole = load_file(folder / "model.safetensors")
    # Frozen copies and the head may be missing; without the second codebook a file looks like stage 1 with more in it.
    free = ("lam.dino_encoder.", "lam.text_encoder.", "action_decoder.", "lam.vq_action.")
    needed = [tensor for tensor in whole if not tensor.startswith(free)]
    for tensor in np.random.default_rng(len(needed)).choice(needed, 5, replace=False):
        save_file({n: t for n, t in whole.items() if n != tensor}, folder / "model.safetensors")
        ours = tensor.removeprefix("lam.").replace(".codebook.", ".embedding.")
        assert {tensor.removeprefix("lam."), ours} & set(words(refused(folder)))
        save_file(whole | {tensor: torch.zeros(3, 5, 7)}, folder / "model.safetensors")
        assert str(folder / "model.safetensors") in refused(folder)
    save_file(whole | {"lam.more.weight": torch.zeros(1)}, folder / "model.safetensors")
    assert "more.weight" in words(refused(folder))


def test_other_files_are_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("released-univla-two")
    save_file({"other": torch.zeros(1)}, folder / "model.safetensors")
    assert "no latent action model of UniVLA" in refused(folder)
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04 no tensors")
    assert "convert the released file again" in refused(folder)
    (folder / "model.safetensors").unlink()
    assert "model.safetensors" in refused(folder)


def refused(folder: Path) -> str:
    with pytest.raises(WeightsError) as error:
        loaded(folder, folder.parent / DINO_FOLDER)
    return str(error.value)


def words(text: str) -> list[str]:
    return text.replace(",", " ").replace("'", " ").replace(";", " ").split()


# --- the action tokenizer ---------------------------------------------------------------------


def tokenizer(folder: Path, variant: str = "codebook") -> ReleasedTokenizer:
    model = ReleasedTokenizer(card_of(folder.name), "actions", variant)
    model.load({"model": folder}, CPU, torch.float32, 0)
    return model


def test_a_tokenizer_reads_physical_actions(root: Path) -> None:
    folder = root / "released-tokenizer-libero"
    card = card_of(folder.name)
    spec = card.spec("actions", "onehot")
    assert (spec.input.shape, spec.tokens, spec.indices) == ((8, 7), (8, 1, 256), (8, 1))
    file = json.loads((folder / "config.json").read_text())
    source = ActionTokenizer(TokenizerConfig(), 7).eval()
    parts = tokenizer_parts(7)
    source.load_state_dict({f"{p}.{n}": t for p, part in parts.items() for n, t in part.items()}, strict=False)
    source.vq.started.fill_(1)
    physical = np.random.default_rng(0).normal(size=(3, 8, 7)) * 2
    bounds = ActionRange(np.array(file["low"], float), np.array(file["high"], float))
    with torch.inference_mode():
        found = source(torch.from_numpy(bounds.clip(bounds.scale(physical))).float())
        read = {}
        for variant in card.variants:
            model = tokenizer(folder, variant)
            read[variant] = model.encode(torch.from_numpy(model.preprocess(physical)), np.arange(3))
            check_latents(model, read[variant], 3)
            indices = read[variant].indices
            assert indices is not None
            assert torch.equal(indices[..., 0], found.indices)
    torch.testing.assert_close(read["embed"].tokens[:, :, 0], found.embeddings, atol=1e-5, rtol=1e-5)
    assert torch.equal(read["codebook"].tokens[:, :, 0], found.codes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": None}, "steps"),
        ({"low": []}, "low"),
        ({"low": [0.0]}, "low has 1 numbers, high 7"),
        ({"high": [-5.0] * 7}, "dimension 0"),
        ({"low": [float("nan")] * 7}, "finite"),
        ({"high": [float("inf")] * 7}, "finite"),
        ({"quantile": 0.01}, "quantile"),
    ],
)
def test_ranges_that_cannot_be_are_refused(changes: dict[str, Any], said: str, copied: Callable[[str], Path]) -> None:
    folder = copied("released-tokenizer-libero")
    write_config(folder, json.loads((folder / "config.json").read_text()) | changes)
    with pytest.raises(WeightsError, match=said):
        card_of(folder.name)


def test_parts_that_do_not_fit_are_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("released-tokenizer-libero")
    for part, tensor in (("encoder", "conv2.bias"), ("vq", "ema_w"), ("decoder", "net.2.weight")):
        path = folder / f"{part}.safetensors"
        whole = load_file(path)
        save_file({n: t for n, t in whole.items() if n != tensor}, path)
        with pytest.raises(WeightsError, match=f"{part}.{tensor}"):
            tokenizer(folder)
        save_file(whole | {"more": torch.zeros(1)}, path)
        with pytest.raises(WeightsError, match=f"{part}.more"):
            tokenizer(folder)
        save_file(whole, path)
    write_config(folder, {"steps": 8, "low": [0] * 6, "high": [1] * 6})
    with pytest.raises(WeightsError, match=r"encoder\.in_proj"):
        tokenizer(folder)


# --- keys -------------------------------------------------------------------------------------


def test_folders_are_keys_that_are_listed(root: Path, tmp_path: Path) -> None:
    workspace = Workspace.locate(tmp_path, weights=root)
    listed = {row["name"]: row for row in rows(Catalog.load([]), workspace)}
    for key in ("released-tokenizer-libero", *(f"released-univla-{name}" for name in STAGES)):
        assert all(weight["found"] for weight in listed[key]["weights"])
        assert describe(key).models[0].key == key


def test_the_image_is_asked_as_the_planner_asks(root: Path, tmp_path: Path) -> None:
    key = "released-tokenizer-libero"
    asked = [sys.executable, "-m", "lary_trainer", "describe", "--model", key, "--weights", str(root)]
    where = {**os.environ, "LARY_MOUNT_WEIGHTS": str(tmp_path), "LARY_IMAGE": "latentvla"}
    found = subprocess.run(asked, env=where, check=True, capture_output=True, text=True).stdout
    described = ImageCard.model_validate_json(found).models[0]
    assert (described.key, described.modes["actions"].tokens) == (key, (8, 1, 128))


@pytest.mark.parametrize("key", ["released-univla-example", "released-tokenizer-example"])
def test_the_example_passes_the_self_test(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARY_MOUNT_WEIGHTS", str(tmp_path))
    out = io.StringIO()
    selftest(key, "cpu", out)
    assert '"ok": true' in out.getvalue()


def test_no_key_is_of_two_families() -> None:
    for key in ("released-univla-0123456789ab", "released-tokenizer-action-tokenizer-0123456789ab"):
        assert [card.key for card in IMAGE.models if card.serves(key)] == ["-".join(key.split("-")[:2])]
