"""LAQ files with a copy of their backbone, as upstream writes them: what the loader makes of it."""

import pytest
import torch
import yaml
from lary_schema.base import WeightsError

KEYS = {
    "dinov2": "dino_tokenizer.encoder.layer.1.attention.attention.query.weight",
    "dinov3": "dino_tokenizer.layer.1.attention.q_proj.weight",
    "siglip2": "encoder.vision_model.encoder.layers.1.self_attn.q_proj.weight",
    "magvit2": "magvit2_tokenizer.encoder.mid_block.0.conv1.weight",
}
"""A tensor of each key's copy."""


def _case(golden, key):
    return next(c for c in golden.cases if (c["key"], c["mode"], c["size"]) == (key, "image", "small"))


def _spoilt(bench, case, tmp_path, change):
    """The case's files, with the LAQ file's tensors given to `change`."""
    paths = bench.checkpoint(case["checkpoint"])
    content = torch.load(paths["model"], weights_only=True)
    change(content.get("model", content))
    torch.save(content, tmp_path / paths["model"].name)
    return {**paths, "model": tmp_path / paths["model"].name}


def _load(bench, case, weights):
    bench.unloaded(case, "corrected").load(weights, torch.device("cpu"), torch.float32, seed=0)


@pytest.mark.parametrize("key", KEYS)
def test_a_copy_with_one_other_value_is_refused(bench, golden, tmp_path, key, caplog):
    case = _case(golden, key)

    def change(state):
        name = next(name for name in state if name.endswith(KEYS[key]))
        state[name].view(-1)[7] += 1e-3

    with pytest.raises(WeightsError, match=r"was trained on another network than .*: 1 of the \d+ tensors"):
        _load(bench, case, _spoilt(bench, case, tmp_path, change))
    ours = [record for record in caplog.records if record.name.startswith("lary")]
    assert ours == [], "every other tensor found its partner"


@pytest.mark.parametrize("key", KEYS)
def test_a_file_without_a_copy_loads(bench, golden, tmp_path, key):
    case = _case(golden, key)
    copy = bench.unloaded(case, "corrected").copy

    def change(state):
        copied = [name for name in state if name.removeprefix("module.").startswith(copy)]
        assert copied
        for name in copied:
            del state[name]

    _load(bench, case, _spoilt(bench, case, tmp_path, change))


def test_the_tokenizers_yaml_is_compared(bench, golden, tmp_path):
    case = _case(golden, "magvit2")
    facts = case["config"]["tokenizer"]
    path = tmp_path / facts["file"]
    weights = {**bench.checkpoint(case["checkpoint"]), "config": path}
    path.write_text(yaml.safe_dump({"model": {"init_args": {"ddconfig": facts["ddconfig"]}}}))
    _load(bench, case, weights)
    path.write_text(yaml.safe_dump({"model": {"init_args": {"ddconfig": facts["ddconfig"] | {"ch": 64}}}}))
    with pytest.raises(WeightsError, match="ch is 64, expected 32"):
        _load(bench, case, weights)
