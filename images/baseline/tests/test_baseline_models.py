"""The baselines: what their numbers mean, and that they are what the cards say."""

import numpy as np
import pytest
import torch
from lary_schema.cards import Mode, ModelCard
from lary_worker import Model, registry
from numpy.typing import NDArray

KEYS = ["frame-diff", "pixels", "random-vit"]
FRAMES: dict[Mode, int] = {"video": 9, "image": 2}


@pytest.fixture(autouse=True)
def _image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARY_IMAGE", "baseline")
    registry.find_image.cache_clear()


def make(key: str, mode: Mode = "video", seed: int = 0) -> Model:
    model = registry.make_model(key, mode, "corrected")
    model.load({}, torch.device("cpu"), torch.float32, seed)
    return model


def clip(frames: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (frames, 48, 64, 3), np.uint8)


def encode(model: Model, *clips: NDArray[np.uint8]) -> torch.Tensor:
    batch = torch.from_numpy(np.stack([model.preprocess(c) for c in clips]))
    with torch.inference_mode():
        return model.encode(batch, np.arange(len(clips))).tokens


@pytest.mark.parametrize(
    ("key", "mode"), [*((key, mode) for key in KEYS for mode in FRAMES), ("single-frame", "image")]
)
def test_shapes_are_those_of_the_card(key: str, mode: Mode) -> None:
    card: ModelCard = registry.find_card(key)
    spec, model = card.spec(mode, "corrected"), make(key, mode)
    array = model.preprocess(clip(FRAMES[mode]))
    assert (array.shape, str(array.dtype)) == (spec.input.shape, spec.input.dtype)
    assert encode(model, clip(FRAMES[mode]), clip(FRAMES[mode], 1)).shape == (2, *spec.tokens)


@pytest.mark.parametrize("key", KEYS)
def test_rows_do_not_depend_on_each_other(key: str) -> None:
    model = make(key)
    together = encode(model, clip(9), clip(9, 1))
    torch.testing.assert_close(together[1:], encode(model, clip(9, 1)))


def test_pixels_are_patches_of_the_frames() -> None:
    frames = np.zeros((9, 32, 32, 3), np.uint8)
    frames[3, 4:8, 8:12] = (255, 0, 51)  # the second row of patches, the third of its eight
    tokens = encode(make("pixels"), frames)[0]
    expected = torch.full((9, 64, 48), -1.0)
    expected[3, 10] = torch.tensor([1.0, -1.0, -0.6]).repeat(16)
    torch.testing.assert_close(tokens, expected)


def test_differences_have_a_sign_and_none_where_nothing_moves() -> None:
    frames = np.full((9, 40, 50, 3), 100, np.uint8)
    frames[5:] = 151
    tokens = encode(make("frame-diff"), frames)[0]
    expected = torch.zeros(8, 64, 48)
    expected[4] = 0.2
    torch.testing.assert_close(tokens, expected)
    torch.testing.assert_close(encode(make("frame-diff"), frames[::-1])[0], -expected.flip(0))


def test_the_random_transformer_follows_from_its_seed_alone() -> None:
    torch.manual_seed(1)
    first = encode(make("random-vit"), clip(9))
    torch.manual_seed(2)
    torch.testing.assert_close(encode(make("random-vit"), clip(9)), first, rtol=0, atol=0)
    assert not torch.allclose(encode(make("random-vit", seed=3), clip(9)), first)
    assert not torch.allclose(encode(make("random-vit"), clip(9, 1)), first)


def test_preprocessing_needs_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, numpy as np; from lary_worker.registry import make_model\n"
        "for key in ('pixels', 'random-vit'):\n"
        "    make_model(key, 'video', 'corrected').preprocess(np.zeros((9, 8, 8, 3), 'uint8'))\n"
        "raise SystemExit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=280).returncode == 0


def test_a_single_frame_is_the_second_one_alone() -> None:
    pair, model = clip(2), make("single-frame", "image")
    other = np.stack([clip(1, 7)[0], pair[1]])
    tokens = encode(model, pair, other)
    torch.testing.assert_close(tokens[0], tokens[1])
    torch.testing.assert_close(tokens[0], encode(make("pixels", "image"), pair)[0, 1:])
