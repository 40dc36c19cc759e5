"""The model gives what its card declares, for each row by itself."""

from pathlib import Path

import lary_baseline
import numpy as np
import pytest
import torch
from lary_baseline.frame_diff import FrameDiff
from lary_schema.cards import ImageCard, Mode

IMAGE = ImageCard.load(Path(lary_baseline.__file__).with_name("image.yaml"))
CARD = IMAGE.card("frame-diff")
assert CARD is not None


@pytest.mark.parametrize("variant", CARD.variants)
@pytest.mark.parametrize("mode", CARD.modes)
def test_frame_diff_keeps_to_its_card(mode: Mode, variant: str) -> None:
    assert CARD is not None
    spec = CARD.spec(mode, variant)
    model = FrameDiff(CARD, mode, variant)
    clips = np.random.default_rng(0).integers(0, 256, (2, spec.input.shape[0], 48, 64, 3), np.uint8)
    inputs = np.stack([model.preprocess(clip) for clip in clips])
    assert (inputs.shape, str(inputs.dtype)) == ((2, *spec.input.shape), spec.input.dtype)

    model.random_weights(torch.device("cpu"), torch.float32, seed=0)
    with torch.inference_mode():
        both = model.encode(torch.from_numpy(inputs), np.arange(2)).tokens
        alone = model.encode(torch.from_numpy(inputs[1:]), np.array([1])).tokens
    assert both.shape == (2, *spec.tokens)
    assert both.isfinite().all()
    assert both.std() > 0
    torch.testing.assert_close(both[1:], alone)
