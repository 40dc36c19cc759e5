"""UniVLA's stage 2 is read twice, by the images lapa (held against golden vectors) and latentvla: the same latents."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from lary_lapa import univla
from lary_lapa.univla import Univla
from lary_lapa.univla_size import LamSize, UnivlaSize, VitSize
from lary_latentvla import released
from lary_latentvla.released import ReleasedUnivla
from lary_latentvla.univla_facts import UnivlaConfig
from lary_latentvla.univla_network import make_univla
from lary_parts import encoders
from lary_parts.encoders import FrameEncoder
from lary_schema.cards import ImageCard, ModelCard
from lary_worker.checkpoints import renamed
from lary_worker.preprocessing import imagenet_normalised
from safetensors.torch import save_file

CPU = torch.device("cpu")
WIDTH, CODE, CODES, FEATURES = 64, 8, 64, 48


class _Small(Univla):
    config = UnivlaSize(
        VitSize(embed_dim=FEATURES, depth=1, num_heads=2),
        LamSize(model_dim=WIDTH, latent_dim=CODE, num_latents=CODES, enc_blocks=2, num_heads=1),
    )


class _Frames(FrameEncoder):
    tokens, width = 256, FEATURES


def _card(module: ModuleType, key: str) -> ModelCard:
    found = ImageCard.load(Path(str(module.__file__)).parent / "image.yaml").card(key)
    assert found is not None
    return found


def _released(model: Univla) -> dict[str, torch.Tensor]:
    """Its tensors under the names of a released file; what it does without, drawn."""
    config = UnivlaConfig(
        stage=2, size=224, patch=14, width=WIDTH, heads=1, encoder_layers=2, decoder_layers=1, codes=CODES,
        code_width=CODE, encoder="dinov2-b-reg",
    )  # fmt: skip
    rest = make_univla(config, _Frames(), 0).kept_state()
    own = {n: t for n, t in model.network.state_dict().items() if not n.startswith("backbone.")}
    own = {
        renamed(n, ((r"\.to_out\.", ".to_out.0."), (r"^codebook\.", "vq_action.embedding."))): t for n, t in own.items()
    }
    assert set(own) < set(rest)
    return {f"lam.{n.replace('.embedding.', '.codebook.')}": t.contiguous() for n, t in (rest | own).items()}


def test_both_images_give_the_same_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _Small(_card(univla, "univla"), "video", "corrected")
    first.load({}, CPU, torch.float32, 0)
    folder, dino = tmp_path / "released-univla-two", tmp_path / "dino"
    folder.mkdir()
    save_file(_released(first), folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    network: Any = first.network
    network.backbone.save_pretrained(dino)
    sizes = {"hidden_size": FEATURES, "num_hidden_layers": 1, "num_attention_heads": 2}
    monkeypatch.setattr(encoders, "DINO", {**encoders.DINO, **sizes})
    monkeypatch.setenv("LARY_MOUNT_WEIGHTS", str(tmp_path))
    family = _card(released, folder.name)
    noise = torch.randint(0, 256, (1, 3, 224, 224, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    clips = noise // torch.tensor([1, 3, 9]).to(torch.uint8)[:, None, None, None]
    with torch.inference_mode():
        expected = first.encode(clips, np.arange(1))
        before = network.latents(imagenet_normalised(clips).permute(0, 1, 4, 2, 3))
        for variant, tokens in (("codebook", expected.tokens), ("embed", before)):
            second = ReleasedUnivla(ReleasedUnivla.resolve(family, folder.name), "video", variant)
            second.load({"model": folder, "encoder": dino}, CPU, torch.float32, 0)
            found = second.encode(clips, np.arange(1))
            torch.testing.assert_close(found.tokens, tokens, atol=1e-5, rtol=1e-5)
            assert found.indices is not None
            assert expected.indices is not None
            assert torch.equal(found.indices, expected.indices)
    assert (before[:, 0] - before[:, 1]).abs().max() > 1e-3, "the frames matter"
