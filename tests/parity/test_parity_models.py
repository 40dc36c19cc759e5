"""Every case of the golden manifest: our loader, preprocessing and arithmetic give LARYBench's numbers."""

import hashlib

import numpy as np
import torch
from lary_worker.preprocessing import unit_range


def test_this_machine_draws_the_golden_numbers(golden):
    facts = golden.manifest["self_check"]
    weight = golden.weights.fill("a.weight", (3, 5), "check")
    clip = golden.weights.frames(1, 2, 12, 16)
    assert hashlib.sha256(weight.tobytes()).hexdigest() == facts["fill('a.weight', (3, 5), 'check')"]
    assert hashlib.sha256(clip.tobytes()).hexdigest() == facts["frames(1, 2, 12, 16)"]


def test_latents(bench, golden, case, variant):
    model = bench.model(case, variant)
    latents = bench.encode(model, golden.frames(case))
    assert tuple(latents.tokens.shape[1:]) == model.spec.tokens
    got = bench.arrays(case, variant, latents)
    assert got
    assert golden.problems(case, got) == []


def test_noise_is_as_long_as_the_distance_to_the_code(bench, golden, noisy_case):
    """`lary-v1` of the LAQ keys, whose tokens upstream draws anew in every run."""
    clean, noisy = (bench.model(noisy_case, variant) for variant in ("corrected", "lary-v1"))
    lengths = bench.noise_lengths(clean, noisy, golden.frames(noisy_case))
    assert golden.problems(noisy_case, {"residual_norm": lengths}) == []


def test_preprocessing_is_bit_equal(bench, golden, cubic_case):
    model = bench.unloaded(cubic_case, "lary-v1")
    clip = unit_range(torch.from_numpy(model.preprocess(golden.frames(cubic_case)))).numpy()  # (T, H, W, 3)
    planes = np.moveaxis(clip, -1, 0)  # (3, T, H, W)
    if len(cubic_case["arrays"]["input"]["shape"]) == 5:
        planes = np.stack([planes[:, t : t + 2] for t in range(len(clip) - 1)])
    assert golden.difference(cubic_case, "input", planes) == 0.0
    assert golden.problems(cubic_case, {"input": planes}) == []
