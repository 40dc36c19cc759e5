"""The copy of the backbone that a LAQ file may hold, and the tokenizer's yaml: compared, not believed."""

import logging

import pytest
import torch
import yaml
from lary_lapa.copies import compare_copy
from lary_lapa.facts import DINOV2, DINOV3, MagvitConfig
from lary_lapa.magvit2 import check_config
from lary_schema.base import ExitCode, WeightsError
from torch import nn


class Backbone(nn.Module):
    """Two tensors under the names of transformers 5."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict({"layer": nn.ModuleList([nn.ModuleDict({"attention": nn.ModuleDict()})])})
        self.layers["layer"][0]["attention"]["q_proj"] = nn.Linear(3, 2)


OLD = "dino_tokenizer.layers.layer.0.attention.attention.query."
NEW = "dino_tokenizer.layers.layer.0.attention.q_proj."


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return Backbone()


def _copy(backbone, prefix, dtype=torch.float32):
    q_proj = backbone.layers["layer"][0]["attention"]["q_proj"]
    return {f"{prefix}{name}": t.detach().clone().to(dtype) for name, t in q_proj.named_parameters()}


def _compare(state, backbone, tmp_path, skippable=(), renames=DINOV2.old_names):
    compare_copy(
        {**state, "vq.codebooks": torch.zeros(1)},
        "dino_tokenizer.",
        backbone,
        renames=renames,
        skippable=skippable,
        where=tmp_path / "laq_dinov2.pt",
        source=tmp_path / "dinov2-large",
    )


@pytest.mark.parametrize("prefix", [OLD, NEW])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_a_copy_of_the_same_values_passes(backbone, tmp_path, caplog, prefix, dtype):
    """Under the names of either library version, in any precision."""
    _compare(_copy(backbone, prefix, dtype), backbone, tmp_path)
    assert caplog.records == []


@pytest.mark.parametrize("prefix", [OLD, NEW])
def test_one_other_value_is_an_error_that_names_both_files(backbone, tmp_path, prefix):
    state = _copy(backbone, prefix)
    state[f"{prefix}bias"][1] += 1e-4
    with pytest.raises(WeightsError, match=r"laq_dinov2.pt: .*dinov2-large: 1 of the 2 .*first .*bias") as caught:
        _compare(state, backbone, tmp_path)
    assert caught.value.exit_code == ExitCode.WEIGHTS


def test_another_shape_is_another_value(backbone, tmp_path):
    state = _copy(backbone, OLD)
    state[f"{OLD}bias"] = torch.zeros(5)
    with pytest.raises(WeightsError, match="1 of the 2"):
        _compare(state, backbone, tmp_path)


def test_unknown_names_are_said_and_parts_that_are_not_built_pass(backbone, tmp_path, caplog):
    strange = {"dino_tokenizer.head.weight": torch.zeros(1), "dino_tokenizer.rope.table": torch.zeros(1)}
    with caplog.at_level(logging.WARNING):
        _compare({**_copy(backbone, OLD), **strange}, backbone, tmp_path, skippable=(r"head\.",))
    assert "1 of 3 tensors below dino_tokenizer." in caplog.text
    assert "rope.table: unknown names" in caplog.text


def test_a_file_without_a_copy_passes(backbone, tmp_path, caplog):
    _compare({}, backbone, tmp_path)
    assert caplog.records == []


def test_dinov3_names_of_both_versions_meet():
    network = nn.ModuleDict({"model": nn.ModuleDict({"layer": nn.ModuleList([nn.Linear(2, 2)])})})
    state = {f"layer.{name}": t + 1 for name, t in network["model"]["layer"].named_parameters()}
    with pytest.raises(WeightsError, match="2 of the 2"):
        compare_copy(state, "", network, renames=DINOV3.old_names, skippable=(), where="a", source="b")


# --- MAGVIT2_CONFIG_PATH ----------------------------------------------------------------------

OFFICIAL = {
    "double_z": False,
    "z_channels": 18,
    "resolution": 128,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 1, 2, 2, 4],
    "num_res_blocks": 4,
}


def _yaml(tmp_path, content):
    path = tmp_path / "pretrain_lfqgan_256_262144.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def _config(**changes):
    return {"model": {"class_path": "x.VQModel", "init_args": {"n_embed": 262144, "ddconfig": OFFICIAL | changes}}}


def test_the_official_config_passes_and_what_shapes_no_encoder_does_not_count(tmp_path):
    check_config(_yaml(tmp_path, _config()), MagvitConfig())
    check_config(_yaml(tmp_path, _config(resolution=256, out_ch=1)), MagvitConfig())


@pytest.mark.parametrize(
    ("name", "value"),
    [("ch", 64), ("ch_mult", [1, 1, 2, 4]), ("num_res_blocks", 2), ("z_channels", 14), ("double_z", True)],
)
def test_another_encoder_is_refused_by_name(tmp_path, name, value):
    with pytest.raises(WeightsError, match=rf"262144.yaml: not the config .*{name} is "):
        check_config(_yaml(tmp_path, _config(**{name: value})), MagvitConfig())


def test_a_missing_entry_is_named(tmp_path):
    config = _config()
    del config["model"]["init_args"]["ddconfig"]["ch"]
    with pytest.raises(WeightsError, match="ch is missing, expected 128"):
        check_config(_yaml(tmp_path, config), MagvitConfig())


@pytest.mark.parametrize(
    ("text", "said"),
    [("model: [", "not YAML"), ("model: {}", "has no model.init_args.ddconfig"), ("", "empty"), ("- 1", "ddconfig")],
)
def test_a_file_that_is_no_config_of_the_tokenizer(tmp_path, text, said):
    path = tmp_path / "pretrain_lfqgan_256_262144.yaml"
    path.write_text(text)
    with pytest.raises(WeightsError, match=said) as caught:
        check_config(path, MagvitConfig())
    assert str(path) in str(caught.value)
