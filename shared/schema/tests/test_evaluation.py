"""What decides an evaluation, and what draws its pictures."""

from itertools import product
from typing import Any

import pytest
from lary_schema.base import ContractError
from lary_schema.cards import BenchmarkCard, Renderer
from lary_schema.evaluation import Episode, EvaluateValues, video_file

VALUES: dict[str, Any] = {
    "policy": "p", "policy_code_sha256": "c", "weights": {"w": "s"}, "benchmark": "b", "benchmark_code_sha256": "d",
    "task": "t", "states": [0, 1], "seed": 3, "protocol": {"horizon": 9, "settle": 2},
}  # fmt: skip
OLDER = "8b0ad3f4ec5c9b848e0def5a84042bc94803d74026a5721a9106b7bf285b197c"
"""Of these values before there were renderer and libraries: such results are read as before."""


def test_results_of_before_keep_their_fingerprint() -> None:
    assert EvaluateValues.model_validate(VALUES).fingerprint == OLDER
    for nothing in ({"renderer": None}, {"libraries": {}}, {"states": [5]}):
        assert EvaluateValues.model_validate(VALUES | nothing).fingerprint == OLDER


def test_another_renderer_or_library_is_another_evaluation() -> None:
    drawn = [{}, *({"renderer": name} for name in ("egl", "osmesa"))]
    versions = [{}, {"libraries": {"mujoco": "3.17.0"}}, {"libraries": {"mujoco": "3.17.1"}}, {"libraries": {"m": "1"}}]
    made = {EvaluateValues.model_validate(VALUES | a | b).fingerprint for a, b in product(drawn, versions)}
    assert len(made) == len(drawn) * len(versions)


@pytest.mark.parametrize(
    ("given", "cuda", "chosen"),
    [
        (None, True, "egl"),
        ("", True, "egl"),
        (None, False, "osmesa"),
        ("egl", False, "egl"),
        ("osmesa", True, "osmesa"),
    ],
)
def test_what_draws_is_the_users_choice_or_goes_by_the_gpu(given: str | None, cuda: bool, chosen: str) -> None:
    assert Renderer(variable="MUJOCO_GL", gpu="egl", cpu="osmesa").chosen(given, cuda=cuda) == chosen


@pytest.mark.parametrize("given", ["glfw", "glx", "EGL", "egl ", "0", "off", "disable"])
def test_what_a_simulator_does_not_draw_by_is_refused(given: str) -> None:
    with pytest.raises(ContractError, match=rf"MUJOCO_GL={given}: pictures are drawn by egl or osmesa; set"):
        Renderer(variable="MUJOCO_GL", gpu="egl", cpu="osmesa").chosen(given, cuda=False)


def test_videos_show_the_first_picture_of_a_benchmark() -> None:
    seen = {
        "state": {"shape": [3], "dtype": "float32"},
        "depth": {"shape": [4, 4, 3], "dtype": "float32"},
        "mask": {"shape": [4, 4, 1], "dtype": "uint8"},
        "flat": {"shape": [4, 3], "dtype": "uint8"},
        "stack": {"shape": [2, 4, 4, 3], "dtype": "uint8"},
        "front": {"shape": [4, 4, 3], "dtype": "uint8"},
        "wrist": {"shape": [4, 4, 3], "dtype": "uint8"},
    }
    card: dict[str, Any] = {
        "key": "b", "title": "t", "tasks": [{"key": "t", "instruction": "i", "states": 1}], "actions": ["x"],
        "idle": [0], "horizon": 1, "license": "l", "source": "s",
    }  # fmt: skip
    assert BenchmarkCard.model_validate(card | {"observations": seen}).camera == "front"
    del seen["front"], seen["wrist"]
    assert BenchmarkCard.model_validate(card | {"observations": seen}).camera is None


def test_a_video_has_the_name_of_its_very_episode() -> None:
    one = {"state": 7, "success": True, "steps": 3, "trace_sha256": "ab" * 32}
    assert Episode.model_validate(one).video == video_file(7, "ab" * 32) == f"videos/7-{'ab' * 8}.mp4"
    assert Episode.model_validate(one | {"trace_sha256": "ac" * 32}).video != video_file(7, "ab" * 32)
