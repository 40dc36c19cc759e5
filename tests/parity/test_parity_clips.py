"""What the latents of the clip encoders and of UniVLA are made from, and that wrong inputs are noticed."""

import numpy as np
import pytest
import torch
from lary_worker.preprocessing import imagenet_normalised, unit_range

CLIPS = ("univla", "flux2", "wan2-2", "vjepa2", "villa-x")


def _as_upstream(model, frames):
    """The tensor that upstream's loader makes of the frames, from this project's bytes."""
    pixels = torch.from_numpy(model.preprocess(frames))  # uint8 (T, H, W, 3)
    key = model.card.key
    if key == "villa-x":
        return pixels
    if key == "vjepa2":
        return imagenet_normalised(pixels).movedim(-1, 0)
    if key == "wan2-2":
        return (unit_range(pixels).movedim(-1, 0) - 0.5) / 0.5
    scaled = model.variant == "corrected" or model.mode == "video"
    return (unit_range(pixels) if scaled else pixels.float()) * 2 - 1


def test_inputs_are_those_of_upstream(bench, golden, clip_case):
    model = bench.unloaded(clip_case, clip_case["variant"])
    got = _as_upstream(model, golden.frames(clip_case)).numpy()
    assert golden.difference(clip_case, "input", got) <= 2.4e-7  # one unit in the last place of [1, 2)
    assert golden.problems(clip_case, {"input": got}) == []


def test_latents_before_quantisation(bench, golden, coded_case):
    """Codes hide small errors; these do not."""
    model = bench.model(coded_case, coded_case["variant"])
    seen = []
    if coded_case["key"] == "univla":
        model.network.to_codebook.register_forward_hook(lambda module, args, output: seen.append(output))
    else:
        model.network.vq.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    bench.encode(model, golden.frames(coded_case))
    assert golden.problems(coded_case, {"latents_before_quantisation": seen[0].numpy()}) == []


@pytest.fixture
def pair(golden):
    def find(key, variant="corrected"):
        return next(
            c
            for c in golden.cases
            if (c["key"], c["mode"], c["size"]) == (key, "image", "small") and variant in c["serves"]
        )

    return find


@pytest.mark.parametrize("key", CLIPS)
def test_a_wrong_channel_order_is_noticed_by_the_clip_encoders(bench, golden, pair, key):
    case = pair(key)
    bgr = np.ascontiguousarray(golden.frames(case)[..., ::-1])
    got = bench.arrays(case, "corrected", bench.encode(bench.model(case, "corrected"), bgr))
    assert any("tokens" in problem for problem in golden.problems(case, got))


def test_flux2_variants_are_not_each_other(bench, golden, pair):
    case = pair("flux2")
    got = bench.arrays(case, "lary-v1", bench.encode(bench.model(case, "lary-v1"), golden.frames(case)))
    assert golden.problems(case, got)


def test_vjepa2_reads_the_target_encoder(bench, golden, pair, tmp_path):
    """The file holds an online encoder of the same names and shapes next to it."""
    case = pair("vjepa2")
    paths = bench.checkpoint(case["checkpoint"])
    content = torch.load(paths["model"], weights_only=True)
    swapped = {**content, "target_encoder": content["encoder"], "encoder": content["target_encoder"]}
    torch.save(swapped, tmp_path / "vitl.pt")
    model = bench.unloaded(case, "corrected")
    model.load({"model": tmp_path / "vitl.pt"}, torch.device("cpu"), torch.float32, seed=0)
    got = bench.arrays(case, "corrected", bench.encode(model, golden.frames(case)))
    assert any("tokens" in problem for problem in golden.problems(case, got))


@pytest.mark.parametrize("key", CLIPS)
def test_a_row_does_not_depend_on_its_batch(bench, golden, pair, key):
    case = pair(key)
    model = bench.model(case, "corrected")
    clips = [golden.weights.frames(seed, 2, 90, 120) for seed in (1, 2, 3)]
    together = bench.encode(model, *clips).tokens
    alone = torch.cat([bench.encode(model, clip).tokens for clip in clips])
    assert (together - alone).abs().max() <= case["tolerance"]["atol"]
