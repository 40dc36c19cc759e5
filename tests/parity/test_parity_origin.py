"""The backbones alone, `corrected`: the scales they were trained with, computed here in another way.

The golden arrays of these cases hold LARYBench's scales. They still show that everything but the scale is
as it was: that is the first test.
"""

import cv2
import numpy as np
import pytest
import torch
import transformers
from lary_lapa import models
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
)

SCALES = {
    "dinov2-origin": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "dinov3-origin": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "siglip2-origin": (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD),
}
"""What the published image processors of these checkpoints say (transformers)."""
NETWORKS = {
    "dinov2-origin": (transformers.Dinov2Model, 1),
    "dinov3-origin": (transformers.DINOv3ViTModel, 5),
    "siglip2-origin": (transformers.SiglipVisionModel, 0),
}
"""Class, and number of tokens ahead of the patches."""
OLD = {
    "dinov2-origin": models.Dinov2Origin,
    "dinov3-origin": models.Dinov3Origin,
    "siglip2-origin": models.Siglip2Origin,
}


def _planes(key, frames):
    """float64 (T, 3, 224, 224), plane by plane."""
    mean, std = SCALES[key]
    resized = [cv2.resize(frame, (224, 224), interpolation=cv2.INTER_CUBIC) for frame in frames]
    return np.stack([[(f[..., c] / 255.0 - mean[c]) / std[c] for c in range(3)] for f in resized])


def _expected(bench, case, frames):
    """(T, n, d) of the folder as transformers loads it."""
    key = case["key"]
    network, ahead = NETWORKS[key]
    backbone = network.from_pretrained(bench.checkpoint(case["checkpoint"])["backbone"]).eval()
    with torch.inference_mode():
        return backbone(torch.from_numpy(_planes(key, frames)).float()).last_hidden_state[:, ahead:].numpy()


def test_all_but_the_scale_is_upstreams(bench, golden, origin_case):
    """The golden arrays, by the scales that they were made with."""
    model = bench.model(origin_case, "corrected")
    batch = torch.from_numpy(model.preprocess(golden.frames(origin_case)))[None]
    with torch.inference_mode():
        old = OLD[origin_case["key"]].encode(model, batch, np.array([0]))
    assert golden.problems(origin_case, bench.arrays(origin_case, "corrected", old)) == []


def test_corrected_is_fed_as_the_backbone_was_trained(bench, golden, origin_case):
    frames = golden.frames(origin_case)
    got = bench.encode(bench.model(origin_case, "corrected"), frames).tokens[0].numpy()
    expected = _expected(bench, origin_case, frames)
    atol = golden.tolerance(origin_case)
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)
    # And the test sees a wrong scale: the golden arrays' one is far away.
    assert golden.difference(origin_case, "tokens", got) > 10 * atol


@pytest.mark.parametrize("key", SCALES)
def test_black_and_white_as_fed(bench, golden, key):
    """-mean / std and (1 - mean) / std, channel by channel."""
    case = next(c for c in golden.cases if (c["key"], c["mode"], c["size"]) == (key, "image", "small"))
    model = bench.model(case, "corrected")
    seen = []
    model.features.get_submodule("backbone").register_forward_pre_hook(
        lambda module, args, options: seen.append(options["pixel_values"]), with_kwargs=True
    )
    pair = np.stack([np.zeros((224, 224, 3), np.uint8), np.full((224, 224, 3), 255, np.uint8)])
    bench.encode(model, pair)
    mean, std = map(np.array, SCALES[key])
    for image, value in zip(seen[0].numpy(), (0.0, 1.0), strict=True):
        np.testing.assert_allclose(image.min((1, 2)), (value - mean) / std, atol=1e-6)
        np.testing.assert_allclose(image.max((1, 2)), (value - mean) / std, atol=1e-6)


@pytest.mark.parametrize("key", SCALES)
def test_the_variants_name_their_preprocessing(key):
    from importlib.resources import files

    from lary_schema.cards import ImageCard

    card = ImageCard.load(files("lary_lapa") / "image.yaml").card(key)
    assert card.preprocessing_of("lary-v1") == "cv2-cubic-224"
    assert card.preprocessing_of("corrected") != "cv2-cubic-224"
