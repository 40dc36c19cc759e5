"""Resizes and scales: what the golden vectors check end to end, checked one by one."""

import cv2
import numpy as np
import torch
from lary_worker.preprocessing import resize_cubic, resize_lanczos, unit_range
from PIL import Image

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (3, 90, 120, 3), np.uint8)


def test_cubic_is_opencvs_frame_by_frame():
    resized = resize_cubic(FRAMES)
    assert resized.shape == (3, 224, 224, 3)
    assert resized.dtype == np.uint8
    for source, target in zip(FRAMES, resized, strict=True):
        assert np.array_equal(target, cv2.resize(source, (224, 224), interpolation=cv2.INTER_CUBIC))


def test_cubic_takes_views_and_leaves_the_input():
    view = FRAMES[:, ::2, ::-1]
    before = view.copy()
    assert np.array_equal(resize_cubic(view, 32), resize_cubic(before, 32))
    assert np.array_equal(view, before)


def test_lanczos_is_pillows_frame_by_frame():
    resized = resize_lanczos(FRAMES, 64)
    assert resized.shape == (3, 64, 64, 3)
    for source, target in zip(FRAMES, resized, strict=True):
        image = Image.fromarray(source).resize((64, 64), Image.Resampling.LANCZOS)
        assert np.array_equal(target, np.asarray(image))


def test_every_byte_becomes_the_float_that_float64_division_gives():
    values = np.arange(256, dtype=np.uint8)
    assert np.array_equal(unit_range(torch.from_numpy(values)).numpy(), (values / 255.0).astype(np.float32))
