"""Every case of the golden manifest: our loader, preprocessing and arithmetic give LARYBench's numbers."""

import hashlib

import numpy as np
import pytest
import torch
from lary_worker.preprocessing import unit_range


def test_this_machine_draws_the_golden_numbers(golden):
    facts = golden.manifest["self_check"]
    weight = golden.weights.fill("a.weight", (3, 5), "check")
    clip = golden.weights.frames(1, 2, 12, 16)
    assert hashlib.sha256(weight.tobytes()).hexdigest() == facts["fill('a.weight', (3, 5), 'check')"]
    assert hashlib.sha256(clip.tobytes()).hexdigest() == facts["frames(1, 2, 12, 16)"]


def test_latents(bench, golden, case, variant, record_property):
    model = bench.model(case, variant)
    got = bench.arrays(case, variant, bench.encode(model, golden.frames(case)))
    for name in got:
        record_property(f"difference {name}", golden.difference(case, name, got[name]))
    assert got
    assert golden.problems(case, got) == []


def test_noise_is_as_long_as_the_distance_to_the_code(bench, golden, case):
    """`lary-v1` of the noisy keys, whose tokens upstream draws anew in every run."""
    if "residual_norm" not in case["arrays"]:
        pytest.skip("this key draws no noise")
    frames = golden.frames(case)
    clean, noisy = (bench.model(case, variant) for variant in ("corrected", "lary-v1"))
    out = noisy.laq.vq.project_out.weight  # (d, q)
    if out.shape[0] < out.shape[1]:
        pytest.skip("the output projection cannot be undone")
    added = bench.encode(noisy, frames).tokens[0] - bench.encode(clean, frames).tokens[0]  # (T, n, d)
    with torch.inference_mode():
        codes = added @ torch.linalg.pinv(out).mT  # (T, n, q), read as (q, n)
        lengths = codes.mT.reshape(codes.shape).norm(dim=-1)
    assert golden.problems(case, {"residual_norm": lengths.numpy()}) == []


def test_preprocessing_is_bit_equal(bench, golden, case):
    model = bench.unloaded(case, "lary-v1")
    if model.card.preprocessing != "cv2-cubic-224":
        pytest.skip("another preprocessing")
    clip = unit_range(torch.from_numpy(model.preprocess(golden.frames(case)))).numpy()  # (T, H, W, 3)
    planes = np.moveaxis(clip, -1, 0)  # (3, T, H, W)
    if len(case["arrays"]["input"]["shape"]) == 5:
        planes = np.stack([planes[:, t : t + 2] for t in range(len(clip) - 1)])
    assert golden.difference(case, "input", planes) == 0.0
    assert golden.problems(case, {"input": planes}) == []
