"""Which frames are chosen: LARYBench's formula where it is right."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from lary_data.sampling import Sampled, frame_differences, motion_indices, sample_clip, uniform_indices
from lary_data.ssim import ssim
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

CLIPS = Path(__file__).parents[5] / "shared" / "data" / "clips"
RNG = np.random.default_rng(0)


def images() -> list[NDArray[np.uint8]]:
    ramp = np.add.outer(np.arange(60), 2 * np.arange(40)).astype(np.uint8)
    noise = RNG.integers(0, 256, (60, 40), dtype=np.uint8)
    near = np.clip(ramp.astype(int) + RNG.integers(-3, 4, ramp.shape), 0, 255).astype(np.uint8)
    return [ramp, noise, near, np.zeros_like(ramp), np.full_like(ramp, 255), ramp[::-1].copy()]


@pytest.mark.parametrize("i", range(6))
@pytest.mark.parametrize("j", range(6))
def test_ssim_is_scikit_images(i: int, j: int) -> None:
    a, b = images()[i], images()[j]
    assert ssim(a, b) == pytest.approx(structural_similarity(a, b), abs=1e-12)


def test_differences_are_of_neighbours() -> None:
    frames = images()[:3]
    expected = [1 - structural_similarity(frames[0], frames[1]), 1 - structural_similarity(frames[1], frames[2])]
    assert frame_differences(frames) == pytest.approx(expected, abs=1e-12)


def test_constant_motion_is_sampled_at_equal_steps() -> None:
    assert motion_indices([0.5] * 40, 9) == [2, 7, 11, 16, 20, 24, 29, 33, 38]


def test_motion_counts_by_its_square_root() -> None:
    # Roots 3 | 1 | 1 | 1, accumulated 3/6 | 4/6 | 5/6 | 1; targets 1/6, 3/6, 5/6.
    assert motion_indices([9, 1, 1, 1], 3) == [1, 1, 3]
    # Roots 1 | 1 | 2, accumulated 1/4 | 1/2 | 1; the target 3/4 is as near to 1/2 as to 1.
    assert motion_indices([1, 1, 4], 2) == [1, 2]


def test_the_first_of_equally_near_frames_is_taken() -> None:
    assert motion_indices([1, 0, 0, 1, 0, 0], 1) == [1]


def test_a_difference_below_zero_is_no_motion() -> None:
    noisy = [0.5] * 20 + [-1e-17] + [0.5] * 20
    clean = [0.5] * 20 + [0.0] + [0.5] * 20
    assert motion_indices(noisy, 9) == motion_indices(clean, 9)
    assert len(set(motion_indices(noisy, 9) or [])) == 9


def test_no_motion_has_no_indices() -> None:
    assert motion_indices([0.0] * 40, 9) is None
    assert motion_indices([-1e-17] * 40, 9) is None


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (5, [0, 0, 1, 1, 2, 2, 3, 3, 4]),
        (9, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (18, [0, 2, 4, 6, 8, 10, 12, 14, 16]),
        (40, [0, 4, 8, 13, 17, 22, 26, 31, 35]),
    ],
)
def test_uniform_sampling(count: int, expected: list[int]) -> None:
    assert uniform_indices(count, 9) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (2, Sampled([0, 1, 1, 1, 1, 1, 1, 1, 1], "uniform (short)")),
        (5, Sampled([0, 1, 2, 3, 4, 4, 4, 4, 4], "uniform (short)")),
        (18, Sampled([0, 2, 4, 6, 8, 10, 12, 14, 16], "uniform (short)")),
    ],
)
def test_short_clips_are_sampled_uniformly(tmp_path: Path, count: int, expected: Sampled, write_clip) -> None:
    write_clip(tmp_path / "a.mp4", count)
    assert sample_clip(tmp_path / "a.mp4", "a.mp4", 9, "motion") == expected


def test_a_moving_clip_is_sampled_by_motion(tmp_path: Path, write_clip) -> None:
    """It stands still but for frames 20 to 29."""
    write_clip(tmp_path / "a.mp4", 40, moving=range(20, 30))
    sampled = sample_clip(tmp_path / "a.mp4", "a.mp4", 9, "motion")
    assert sampled.how == "motion"
    assert sampled.indices[0] >= 20
    assert sampled.indices[-1] <= 31
    uniform = sample_clip(tmp_path / "a.mp4", "a.mp4", 9, "uniform")
    assert uniform == Sampled([0, 4, 8, 13, 17, 22, 26, 31, 35], "uniform")


def test_a_static_clip_is_sampled_uniformly_and_says_so(tmp_path: Path, write_clip) -> None:
    write_clip(tmp_path / "a.mp4", 40, moving=range(0), codec="ffv1", suffix="mkv")
    sampled = sample_clip(tmp_path / "a.mp4", "a.mp4", 9, "motion")
    assert sampled == Sampled([0, 4, 8, 13, 17, 22, 26, 31, 35], "uniform (static)")


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the shared clips are not next to the repository")
@pytest.mark.parametrize("name", ["h264_720p.mp4", "h264_1080p.mp4"])
def test_real_clips_as_the_formula_written_anew(name: str) -> None:
    """With another decoder, scikit-image's SSIM and the arithmetic in one go."""
    capture, grey = cv2.VideoCapture(str(CLIPS / name)), []
    while (read := capture.read())[0]:
        grey.append(cv2.resize(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY), (224, 224)))
    motion = np.sqrt([1 - structural_similarity(a, b) for a, b in pairwise(grey)])
    share = np.cumsum(motion) / motion.sum()
    expected = [int(np.abs(share - (2 * i + 1) / 18).argmin()) + 1 for i in range(9)]
    assert sample_clip(CLIPS / name, name, 9, "motion") == Sampled(expected, "motion")
