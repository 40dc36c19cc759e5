"""The parity tests notice what they are there for: each mistake here is one that they must report."""

import cv2
import numpy as np
import pytest
import torch
from lary_schema.base import WeightsError


@pytest.fixture
def lapa_case(golden):
    """`lapa`, the smallest one that has a resize, a prefix-free file and codes."""
    return _small(golden, "lapa")


def _small(golden, key):
    return next(c for c in golden.cases if (c["key"], c["mode"], c["size"]) == (key, "image", "small"))


def _problems(bench, golden, case, model, frames, variant="corrected"):
    return golden.problems(case, bench.arrays(case, variant, bench.encode(model, frames)))


def _with_resize(model, interpolation):
    model.preprocess = lambda frames: np.stack(
        [cv2.resize(frame, (224, 224), interpolation=interpolation) for frame in frames]
    )
    return model


def test_the_right_model_passes(bench, golden, lapa_case):
    model = _with_resize(bench.model(lapa_case, "corrected"), cv2.INTER_CUBIC)
    assert _problems(bench, golden, lapa_case, model, golden.frames(lapa_case)) == []


@pytest.mark.parametrize("interpolation", [cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_LANCZOS4])
def test_another_resize_is_noticed(bench, golden, lapa_case, interpolation):
    model = _with_resize(bench.model(lapa_case, "corrected"), interpolation)
    assert any("tokens" in p for p in _problems(bench, golden, lapa_case, model, golden.frames(lapa_case)))


@pytest.mark.parametrize(
    ("key", "variant"), [("lapa", "corrected"), ("dinov2", "corrected"), ("siglip2-origin", "lary-v1")]
)
def test_a_wrong_channel_order_is_noticed(bench, golden, key, variant):
    case = _small(golden, key)
    model, frames = bench.model(case, variant), golden.frames(case)
    assert _problems(bench, golden, case, model, frames, variant) == []
    bgr = np.ascontiguousarray(frames[..., ::-1])
    assert any("tokens" in p for p in _problems(bench, golden, case, model, bgr, variant))


def test_a_reversed_pair_is_noticed(bench, golden, lapa_case):
    backwards = np.ascontiguousarray(golden.frames(lapa_case)[::-1])
    assert any(
        "tokens" in p for p in _problems(bench, golden, lapa_case, bench.model(lapa_case, "corrected"), backwards)
    )


def test_one_wrong_tensor_is_noticed(bench, golden, lapa_case):
    model = bench.model(lapa_case, "corrected")
    with torch.no_grad():
        model.laq.spatial.layers[1].attention.k_scale.mul_(1.01)
    assert _problems(bench, golden, lapa_case, model, golden.frames(lapa_case))


def _saved_again(bench, case, folder, change):
    """The case's files, its LAQ file with other names."""
    paths = bench.checkpoint(case["checkpoint"])
    state = torch.load(paths["model"], weights_only=True)
    changed = folder / paths["model"].name
    torch.save({change(name): tensor for name, tensor in state.items()}, changed)
    return {**paths, "model": changed}


def _load(bench, case, weights):
    bench.unloaded(case, "corrected").load(weights, torch.device("cpu"), torch.float32, seed=0)


def test_a_dropped_prefix_is_an_error_that_names_the_tensors(bench, lapa_case, tmp_path):
    weights = _saved_again(bench, lapa_case, tmp_path, lambda name: name.removeprefix("enc_spatial_transformer."))
    with pytest.raises(WeightsError, match=r"(?s)missing: .*spatial\.layers\.0.*unexpected: .*layers\.0\.0\.dsconv"):
        _load(bench, lapa_case, weights)


def test_an_unknown_prefix_is_an_error(bench, lapa_case, tmp_path):
    weights = _saved_again(bench, lapa_case, tmp_path, lambda name: f"net.{name}")
    with pytest.raises(WeightsError, match=r"unexpected: net\."):
        _load(bench, lapa_case, weights)


def test_a_file_with_the_other_prefix_style_loads(bench, golden, lapa_case, tmp_path):
    """`module.`, which a distributed training run leaves, may be there or not."""
    weights = _saved_again(bench, lapa_case, tmp_path, lambda name: f"module.{name}")
    model = bench.unloaded(lapa_case, "corrected")
    model.load(weights, torch.device("cpu"), torch.float32, seed=0)
    assert _problems(bench, golden, lapa_case, model, golden.frames(lapa_case)) == []
