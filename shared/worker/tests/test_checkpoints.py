"""Strict loading: each wrong file is an error that names it, with the exit code for weights."""

import json
import pickle

import pytest
import torch
from lary_schema.base import ExitCode, WeightsError
from lary_worker.checkpoints import (
    build,
    load_pretrained,
    load_strict,
    read_config,
    read_state,
    require_folder,
    strip_prefix,
)
from safetensors.torch import save_file
from torch import nn

CPU = torch.device("cpu")
STATE = {"body.weight": torch.ones(3, 2), "body.bias": torch.zeros(3)}


def make():
    return nn.Sequential(nn.Linear(2, 3))


RENAMES = ((r"^body\.", "0."),)


# --- reading ----------------------------------------------------------------------------------


def test_formats_are_told_apart_by_content(tmp_path):
    save_file(STATE, tmp_path / "tensors.pt")
    torch.save(STATE, tmp_path / "zip.pt")
    torch.save(STATE, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    for name in ("tensors.pt", "zip.pt", "legacy.pt"):
        state = read_state(tmp_path / name)
        assert state.keys() == STATE.keys()
        assert torch.equal(state["body.weight"], STATE["body.weight"])


def test_an_entry_is_found_and_its_neighbours_are_left(tmp_path):
    torch.save({"epoch": 3, "other": {"x": torch.ones(1)}, "model": STATE}, tmp_path / "a.pt")
    save_file({f"model.{k}": v for k, v in STATE.items()} | {"other.x": torch.ones(1)}, tmp_path / "a.safetensors")
    save_file(STATE, tmp_path / "flat.safetensors")
    for name in ("a.pt", "a.safetensors", "flat.safetensors"):
        assert read_state(tmp_path / name, "model").keys() == STATE.keys()


def _pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


def _truncated(path):
    torch.save({"w": torch.ones(10_000)}, path)
    path.write_bytes(path.read_bytes()[:20_000])


def _truncated_safetensors(path):
    save_file({"w": torch.ones(10_000)}, path)
    path.write_bytes(path.read_bytes()[:20_000])


def _pickled(path):
    torch.save({"model": STATE, "hyper": Exception("an object")}, path)


def _plain_pickle(path):
    path.write_bytes(pickle.dumps({"w": Exception("an object")}))


@pytest.mark.parametrize(("write", "message"), [
    (lambda path: None, "missing"),
    (lambda path: path.mkdir(), "is a folder"),
    (lambda path: path.write_bytes(b""), "empty"),
    (lambda path: path.write_bytes(b"<html>not found</html>"), "neither"),
    (_pointer, "Git LFS pointer"),
    (_truncated, "fetch it again"),
    (_truncated_safetensors, "truncated"),
    (_pickled, "weights convert"),
    (_plain_pickle, "neither"),
    (lambda path: torch.save(torch.ones(3), path), "dictionary of tensors"),
    (lambda path: torch.save({"w": torch.ones(3), "epoch": 3}, path), "epoch not tensors"),
])  # fmt: skip
def test_a_wrong_file_is_an_error_that_names_it(tmp_path, write, message):
    path = tmp_path / "laq.pt"
    write(path)
    with pytest.raises(WeightsError, match=r"laq\.pt") as caught:
        read_state(path)
    assert caught.value.exit_code == ExitCode.WEIGHTS
    assert message in str(caught.value)


def test_a_missing_entry_names_what_was_found(tmp_path):
    torch.save({"state": STATE, "epoch": 1}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"a\.pt: has no entry 'model' \(found: state, epoch\)"):
        read_state(tmp_path / "a.pt", "model")


def test_folders_and_configs(tmp_path):
    with pytest.raises(WeightsError, match=r"gone: is missing, but a folder with config\.json"):
        require_folder(tmp_path / "gone", ["config.json"])
    with pytest.raises(WeightsError, match=r"config\.json: the file is missing"):
        require_folder(tmp_path, ["config.json"])
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        read_config(tmp_path / "config.json")
    with pytest.raises(WeightsError, match="is a file, but a folder"):
        require_folder(tmp_path / "config.json", ["a"])
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(WeightsError, match="JSON object"):
        read_config(tmp_path / "config.json")


# --- names ------------------------------------------------------------------------------------


def test_a_prefix_goes_where_all_have_it():
    assert strip_prefix({"module.a": CPU, "module.b": CPU}, "module.").keys() == {"a", "b"}
    assert strip_prefix({"module.a": CPU, "b": CPU}, "module.").keys() == {"module.a", "b"}
    assert strip_prefix({"m.a": CPU, "b": CPU}, "m.", only=True).keys() == {"a"}
    assert strip_prefix({"b": CPU}, "m.", only=True).keys() == {"b"}


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s.pop("body.bias"), r"1 missing: 0\.bias"),
    (lambda s: s.update({"head.weight": torch.ones(1)}), r"1 unexpected: head\.weight"),
    (lambda s: s.update({"body.bias": torch.ones(4)}), r"body\.bias \(4,\), expected \(3,\)"),
    (lambda s: s.update({"0.bias": torch.ones(3)}), r"2 twice: body\.bias, 0\.bias"),
])  # fmt: skip
def test_what_does_not_fit_is_named(change, message):
    state = dict(STATE)
    change(state)
    with pytest.raises(WeightsError, match=rf"(?s)laq\.pt: does not fit Sequential:.*{message}"):
        load_strict(make(), state, "laq.pt", renames=RENAMES)


NO_WEIGHTS = [torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64]
"""Quantised without their scales, masks, and numbers of which half would go."""


@pytest.mark.parametrize("found", NO_WEIGHTS)
def test_numbers_of_another_type_are_named(found):
    state = STATE | {"body.bias": torch.ones(3).to(found)}
    for load in (
        lambda: load_strict(make(), state, "laq.pt", renames=RENAMES),
        lambda: build(make, state, "laq.pt", renames=RENAMES, device=CPU, dtype=torch.float32),
    ):
        with pytest.raises(WeightsError, match=rf"1 of another type: body\.bias {found}, expected torch\.float32"):
            load()
    norm = nn.BatchNorm1d(2)
    counted = norm.state_dict() | {"num_batches_tracked": torch.tensor(1.5)}
    with pytest.raises(WeightsError, match=r"1 of another type: num_batches_tracked torch\.float32"):
        load_strict(norm, counted, "f")


@pytest.mark.parametrize("found", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_floating_numbers_of_any_width_are_weights(found):
    network = build(
        make, {k: v.to(found) for k, v in STATE.items()}, "f", renames=RENAMES, device=CPU, dtype=torch.float32
    )
    assert torch.equal(network[0].weight, STATE["body.weight"])


def test_many_names_are_cut_short():
    state = STATE | {f"x{i}": torch.ones(1) for i in range(20)}
    with pytest.raises(WeightsError, match=r"20 unexpected: x0, .* x7 and 12 more$"):
        load_strict(make(), state, "laq.pt", renames=RENAMES)


def test_skippable_names_are_skipped_from_their_start_only():
    state = STATE | {"decoder.w": torch.ones(1)}
    load_strict(make(), state, "laq.pt", renames=RENAMES, skippable=(r"decoder\.",))
    with pytest.raises(WeightsError, match=r"x\.decoder\.w"):
        load_strict(make(), state | {"x.decoder.w": torch.ones(1)}, "f", renames=RENAMES, skippable=(r"decoder\.",))


def test_a_network_is_built_with_its_own_copy_in_the_requested_type():
    network = build(make, STATE, "laq.pt", renames=RENAMES, device=CPU, dtype=torch.bfloat16)
    weight = network[0].weight
    assert not network.training
    assert weight.dtype == torch.bfloat16
    assert weight.device == CPU
    same = build(make, STATE, "laq.pt", renames=RENAMES, device=CPU, dtype=torch.float32)
    assert same[0].weight.data_ptr() != STATE["body.weight"].data_ptr()


def test_counters_keep_their_type():
    norm = nn.BatchNorm1d(2)
    state = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    built = build(lambda: nn.BatchNorm1d(2), state, "f", device=CPU, dtype=torch.bfloat16)
    assert built.num_batches_tracked.dtype == torch.int64
    assert built.running_mean.dtype == torch.bfloat16


# --- hub folders ------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A tiny transformer as its hub folder."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=28)
    transformers.Dinov2Model(config).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def _load(folder, model_type="dinov2", **options):
    from transformers import Dinov2Model

    return load_pretrained(Dinov2Model, folder, model_type=model_type, **options)


def test_a_hub_folder_loads(folder):
    assert _load(folder).config.hidden_size == 8


def test_another_models_folder_is_refused(folder):
    with pytest.raises(WeightsError, match=r"config\.json: is a dinov2 model, but dinov3_vit is expected"):
        _load(folder, "dinov3_vit")


def test_a_hub_folder_is_strict(folder):
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    dropped = {k: v for k, v in state.items() if k != "layernorm.bias"}
    save_file(dropped | {"head.weight": torch.ones(1)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"(?s)1 missing: layernorm\.bias.*1 unexpected: head\.weight"):
        _load(folder)
    with pytest.raises(WeightsError, match="1 missing"):
        _load(folder, skippable=(r"head\.",))


def test_a_hub_folder_of_other_sizes_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 16}))
    with pytest.raises(WeightsError, match="vit"):
        _load(folder)


@pytest.mark.parametrize("damage", [_pointer, _truncated_safetensors, lambda path: path.unlink()])
def test_a_damaged_hub_folder_is_an_error(folder, damage):
    damage(folder / "model.safetensors")
    with pytest.raises(WeightsError, match="vit"):
        _load(folder)


@pytest.mark.parametrize("found", NO_WEIGHTS[:-1])
def test_a_hub_folder_with_numbers_of_another_type_is_refused(folder, found):
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    state["layernorm.bias"] = state["layernorm.bias"].to(found)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 tensors are no floating-point numbers: layernorm\.bias"):
        _load(folder)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "fp8", "of-tomorrow"])
def test_a_quantised_hub_folder_is_refused(folder, method):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": method}}))
    with pytest.raises(WeightsError, match=r"config\.json: says that the weights are quantised"):
        _load(folder)
