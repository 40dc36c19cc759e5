"""Image-text models of Hugging Face: made of a small configuration, or read from a folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from lary_schema.base import WeightsError
from lary_worker.checkpoints import load_pretrained
from torch import Tensor, nn

from lary_latentvla.vla_facts import BackboneKey, Lora, VlaConfig
from lary_latentvla.vocabulary import TINY_SPECIAL, Vocabulary

MODEL_TYPES = {"qwen3-vl": "qwen3_vl", "smolvlm": "smolvlm"}
"""Of each family, as `config.json` says it."""
MEAN = STD = 0.5
"""Of pixels in [0, 1], in both families."""
_SPECIAL = {name: number for number, name in enumerate(TINY_SPECIAL)}
_TINY_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 128,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
_TINY_VISION: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "patch_size": 16}


def tiny_config(key: BackboneKey, size: int, vocabulary: int) -> Any:
    """Half a million parameters; ids are those of `vocabulary.word_tokenizer`."""
    from transformers import Qwen3VLConfig, SmolVLMConfig

    if key == "qwen3-vl-tiny":
        rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
        vision = {"depth": 2, "num_heads": 4, "spatial_merge_size": 2, "out_hidden_size": 64}
        side = max(8, size // 16)
        return Qwen3VLConfig(
            text_config=_TINY_TEXT | {"vocab_size": vocabulary, "rope_parameters": rope},
            vision_config=_TINY_VISION | vision | {"deepstack_visual_indexes": [0], "num_position_embeddings": side**2},
            image_token_id=_SPECIAL["<image>"],
            video_token_id=_SPECIAL["<video>"],
            vision_start_token_id=_SPECIAL["<vision>"],
            vision_end_token_id=_SPECIAL["</vision>"],
            tie_word_embeddings=True,
        )
    text = _TINY_TEXT | {"model_type": "llama", "vocab_size": vocabulary, "pad_token_id": 0}
    vision = {"num_hidden_layers": 2, "num_attention_heads": 4, "image_size": size}
    return SmolVLMConfig(
        text_config=text,
        vision_config=_TINY_VISION | vision,
        scale_factor=2,
        image_token_id=_SPECIAL["<image>"],
        pad_token_id=0,
        tie_word_embeddings=True,
    )


def make_backbone(config: VlaConfig, vocabulary: Vocabulary, base: int, folder: Path | None) -> nn.Module:
    """An image-text model with room for `vocabulary`; drawn by torch's generator where `folder` is None.

    `base`: tokens before any were added. Raises WeightsError where the folder is missing, of another family, or not
    whole.
    """
    from transformers import AutoModelForImageTextToText

    if config.facts.weights is None:
        made = AutoModelForImageTextToText.from_config(
            tiny_config(config.backbone, config.size, base), attn_implementation="sdpa"
        )
    elif folder is None:
        raise WeightsError(f"backbone {config.backbone} needs its downloaded folder, given as weights 'backbone'")
    else:
        # In float32 whatever the file has: the head is, and full training in bfloat16 would round its steps away.
        made = load_pretrained(
            AutoModelForImageTextToText,
            folder,
            model_type=MODEL_TYPES[config.facts.family],
            attn_implementation="sdpa",
            dtype=torch.float32,
        )
        _require_width(made, config, folder)
    rows = made.get_input_embeddings().num_embeddings
    if len(vocabulary) > rows:
        made.resize_token_embeddings(len(vocabulary), mean_resizing=folder is not None)
    backbone: nn.Module = _adapted(made, config.lora, vocabulary.added) if config.lora else made
    return backbone


def _require_width(made: Any, config: VlaConfig, folder: Path) -> None:
    width = made.get_input_embeddings().embedding_dim
    if width != config.facts.width:
        raise WeightsError(
            f"{folder}: hidden states of width {width}, backbone {config.backbone} has {config.facts.width}; this is "
            "another model"
        )


def _adapted(made: Any, lora: Lora, added: list[int]) -> Any:
    """With low-rank adapters; of the embeddings the rows of the added tokens alone are trained."""
    from peft import LoraConfig, get_peft_model

    names = [name for name, module in made.named_modules() if module is made.get_input_embeddings()]
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules="all-linear",
        init_lora_weights="gaussian",
        trainable_token_indices={names[0]: added},
    )
    with warnings.catch_warnings():
        # peft 0.21 asks for a property that transformers 5.23 has under another name by now.
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(made, settings).base_model.model


def image_tokens(family: str, backbone: Any, size: int) -> int:
    """Tokens of one square frame of `size` pixels, as the model's own configuration says."""
    config = backbone.config
    side = size // config.vision_config.patch_size
    merged = config.vision_config.spatial_merge_size if family == "qwen3-vl" else config.scale_factor
    return int((side // merged) ** 2)


def image_inputs(family: str, backbone: Any, frames: Tensor) -> dict[str, Tensor]:
    """uint8 (B, H, W, 3) -> what the model's forward takes of images."""
    pixels = (frames.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
    if family == "smolvlm":
        return {"pixel_values": pixels[:, None]}
    vision = backbone.config.vision_config
    patch, merge, times = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    count, _, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    blocks = pixels.reshape(count, 3, rows // merge, merge, patch, columns // merge, merge, patch)
    # In blocks of merge x merge patches; each patch its colours, the frame repeated over time, its pixels.
    patches = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)[..., None, :, :].expand(*(-1,) * 6, times, -1, -1)
    grid = torch.tensor([[1, rows, columns]] * count, device=frames.device)
    return {"pixel_values": patches.reshape(count * rows * columns, -1), "image_grid_thw": grid}
