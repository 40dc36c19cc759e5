"""Downloaded networks: folders as the hub has them, of the real architectures at one layer, with random weights."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from lary_latentvla.text import make_text_encoder
from lary_latentvla.vla_build import Parts, config_document, load_network, make_network
from lary_latentvla.vla_facts import VlaConfig
from lary_latentvla.vocabulary import WRAPPINGS
from lary_schema.base import WeightsError
from safetensors.torch import load_file, save_file

SMOLVLM, QWEN = "smolvlm-256m", "qwen3-vl-2b"
CONFIGS: dict[str, VlaConfig] = {
    SMOLVLM: VlaConfig(backbone="smolvlm-256m", size=512, chunk=4, strategy="la-cond"),
    QWEN: VlaConfig.model_validate(
        {"backbone": "qwen3-vl-2b", "size": 224, "chunk": 4, "strategy": "la-cond", "lora": {"rank": 2, "alpha": 4}}
    ),
}
IMAGE_TOKENS = {SMOLVLM: 64, QWEN: 49}
"""(512 / 16 / 4)^2 and (224 / 16 / 2)^2."""
PARTS = Parts((), labels=6, dimensions=3, aligned=0)
WORDS = ["what", "action", "should", "the", "robot", "take", "to", "push", "red", "blue", "user", "assistant"]


def save_tokenizer(folder: Path, special: Sequence[str]) -> dict[str, int]:
    """Of words, with the special tokens of a family. Their ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = ["<unk>", *special, *WORDS]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(known)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(list(special))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", pad_token=special[0]
    ).save_pretrained(folder)
    return {word: number for number, word in enumerate(known)}


def smolvlm(folder: Path) -> Any:
    """SmolVLM2-256M but for its depth, the width of its layers' MLPs and its words."""
    ids = save_tokenizer(folder, ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"))
    text = {
        "model_type": "llama", "hidden_size": 576, "num_hidden_layers": 1, "num_attention_heads": 9,
        "num_key_value_heads": 3, "intermediate_size": 64, "vocab_size": len(ids), "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12, "patch_size": 16, "image_size": 512,
        "intermediate_size": 64,
    }  # fmt: skip
    return transformers.SmolVLMConfig(
        text_config=text, vision_config=vision, scale_factor=4, image_token_id=ids["<image>"], pad_token_id=0
    )


def qwen(folder: Path) -> Any:
    """Qwen3-VL-2B but for its depth, the width of its layers' MLPs and its words; tied as there."""
    special = ("<|image_pad|>", "<|video_pad|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
    ids = save_tokenizer(folder, special)
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    text = {
        "hidden_size": 2048, "num_hidden_layers": 1, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "intermediate_size": 64, "vocab_size": len(ids), "rope_parameters": rope,
        "tie_word_embeddings": True,
    }  # fmt: skip
    vision = {
        "hidden_size": 1024, "depth": 1, "num_heads": 16, "patch_size": 16, "spatial_merge_size": 2,
        "intermediate_size": 64, "out_hidden_size": 2048, "deepstack_visual_indexes": [0],
        "num_position_embeddings": 2304,
    }  # fmt: skip
    return transformers.Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """In bfloat16, as such models are published."""
    made = {}
    for key, configured in ((SMOLVLM, smolvlm), (QWEN, qwen)):
        made[key] = tmp_path_factory.mktemp("hub") / key
        torch.manual_seed(0)
        network = transformers.AutoModelForImageTextToText.from_config(configured(made[key]), dtype=torch.bfloat16)
        network.save_pretrained(made[key])
    return made


@pytest.fixture(params=CONFIGS)
def key(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def frames(size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8))


def test_a_downloaded_backbone_is_read_whole_and_in_float32(key: str, folders: dict[str, Path]) -> None:
    config = CONFIGS[key]
    torch.manual_seed(1)
    network = make_network(config, PARTS, folders[key])
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    own = {n.replace(".base_layer", ""): t for n, t in network.backbone.state_dict().items()}
    file = load_file(folders[key] / "model.safetensors")
    for name, tensor in file.items():
        rows = own[name.replace("embed_tokens.", "embed_tokens.token_adapter.") if name not in own else name]
        assert torch.equal(rows[: len(tensor)], tensor.float()), name
    with torch.no_grad():
        seen = network(frames(config.size), ("push red",))
    prompt = network.prompt(("push red",), torch.device("cpu"))
    assert int(prompt.image.sum()) == IMAGE_TOKENS[key]
    assert seen.actions.shape == (1, 4, 3)
    assert seen.slots.shape == (1, 20, config.facts.width)
    assert seen.scores is not None
    assert torch.isfinite(seen.scores).all()


def test_a_trained_one_is_read_on_the_backbone_that_it_was_trained_on(
    key: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Frozen tensors are not in a checkpoint of ours: the folder has them."""
    from lary_latentvla.action_range import ActionRange

    config = CONFIGS[key]
    torch.manual_seed(1)
    network = make_network(config, PARTS, folders[key])
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    kept = network.kept_state()
    frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
    assert bool(frozen) == (config.lora is not None)
    assert not frozen & set(kept)
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, tmp_path / "model.safetensors")
    document = config_document("r", config, PARTS, ActionRange(np.zeros(3), np.ones(3)))
    (tmp_path / "config.json").write_text(json.dumps(document))
    again = load_network(tmp_path, folders[key])
    with torch.no_grad():
        expected, found = (each.eval()(frames(config.size), ("push red",)) for each in (network, again))
    assert torch.equal(found.actions, expected.actions)
    assert expected.scores is not None
    assert found.scores is not None
    assert torch.equal(found.scores, expected.scores)


def test_a_backbone_that_is_not_whole_is_refused(key: str, folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders[key], tmp_path / "harmed")
    file = tmp_path / "harmed/model.safetensors"
    whole = load_file(file)
    name = sorted(n for n in whole if "visual" in n or "vision" in n)[0]
    for harmed, said in (
        ({n: t for n, t in whole.items() if n != name}, name),
        (whole | {"model.more.weight": torch.zeros(1)}, "model.more.weight"),
        (whole | {name: torch.zeros(3, 5)}, "harmed"),
    ):
        save_file(harmed, file, metadata={"format": "pt"})
        with pytest.raises(WeightsError, match=said.replace(".", r"\.")):
            make_network(CONFIGS[key], PARTS, tmp_path / "harmed")
    file.unlink()
    torch.save(whole, file.with_name("pytorch_model.bin"))
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        make_network(CONFIGS[key], PARTS, tmp_path / "harmed")


def test_another_familys_folder_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(WeightsError, match="is a smolvlm model, but qwen3_vl is expected"):
        make_network(CONFIGS[QWEN].model_copy(update={"lora": None}), PARTS, _with_tokens(folders[SMOLVLM]))


def _with_tokens(folder: Path) -> Path:
    """A folder whose tokenizer knows the other family's image token as well."""
    made = folder.parent / "both"
    shutil.copytree(folder, made)
    save_tokenizer(made, (WRAPPINGS["qwen3-vl"].image, WRAPPINGS["smolvlm"].image))
    return made


# --- T5 ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole T5, whose decoder nobody reads."""
    folder = tmp_path_factory.mktemp("hub") / "t5-base"
    ids = save_tokenizer(folder, ("<pad>", "</s>"))
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=len(ids), d_model=768, d_kv=64, d_ff=64, num_layers=1, num_heads=12, pad_token_id=ids["<pad>"]
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_t5_gives_the_states_of_its_encoder(t5: Path) -> None:
    read = make_text_encoder("t5-base", (), t5)
    assert read is not None
    states, there = read(("push red", "push the blue robot"))
    assert states.shape == (2, 4, 768)
    assert there.tolist() == [[True, True, False, False], [True] * 4]
    own = transformers.T5ForConditionalGeneration.from_pretrained(t5).eval().get_encoder()
    tokens = transformers.AutoTokenizer.from_pretrained(t5)(["push red"], return_tensors="pt")
    with torch.no_grad():
        expected = own(input_ids=tokens["input_ids"]).last_hidden_state
    torch.testing.assert_close(states[:1, :2], expected, atol=1e-5, rtol=1e-5)
    assert not any(p.requires_grad for p in read.parameters())


def test_a_t5_that_is_not_whole_is_refused(t5: Path, tmp_path: Path) -> None:
    shutil.copytree(t5, tmp_path / "t5")
    file = tmp_path / "t5/model.safetensors"
    whole = load_file(file)
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    save_file({n: t for n, t in whole.items() if n != name}, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        make_text_encoder("t5-base", (), tmp_path / "t5")
    save_file(whole | {"encoder.more": torch.zeros(1)}, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"encoder\.more"):
        make_text_encoder("t5-base", (), tmp_path / "t5")
