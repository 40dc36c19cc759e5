"""A stand-in for LIBERO's environment, which is as untidy as the real one and needs no simulator."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lary_libero.simulator import Simulator
from lary_libero.suites import Task

STATES = np.arange(12.0).reshape(3, 4)


class Untidy:
    """Fixtures stand where chance and the number of resets put them; a step depends on what is left over, and draws."""

    def __init__(self) -> None:
        self.resets = 0
        self.left_over = 0.0
        self.position = np.zeros(4)
        light = SimpleNamespace(ambient=np.ones(3), diffuse=np.ones(3), specular=np.ones(3))
        self.light = SimpleNamespace(headlight=light)
        self.sim = SimpleNamespace(model=None, reset=self._clear)

    def _clear(self) -> None:
        self.left_over = 0.0

    def reset(self) -> None:
        self.resets += 1
        drawn = np.random.uniform(size=(2, 3)) + 0.01 * self.resets
        lights = {f"light_{name}": np.ones((1, 3)) for name in ("ambient", "diffuse", "specular")}
        for value in vars(self.light.headlight).values():
            value[:] = 1
        self.sim.model = SimpleNamespace(
            body_pos=drawn, body_quat=drawn[:, :1] * np.ones(4), cam_pos=np.zeros((2, 3)), vis=self.light, **lights
        )
        self.left_over = float(np.random.uniform())

    def set_init_state(self, state: np.ndarray) -> dict[str, Any]:
        self.position = state.copy()
        return self._seen()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, dict[str, Any]]:
        self.left_over += float(action.sum())
        self.position = self.position + self.left_over + self.sim.model.body_pos.sum() + np.random.uniform()
        return self._seen(), 0.0, False, {}

    def check_success(self) -> bool:
        return bool(self.position[0] > 10)

    def close(self) -> None:
        self.position = np.full(4, np.nan)

    def _seen(self) -> dict[str, Any]:
        """A picture of the first number, brighter with the light, moved with the camera; its first line is white."""
        model = self.sim.model
        level = 40 * model.light_diffuse[0, 0] + 100 * model.cam_pos[0, 0] + self.position[0] % 50
        image = np.full((32, 32, 3), level, np.uint8)
        image[0] = 255
        return {
            "agentview_image": image,
            "robot0_eef_pos": self.position[:3],
            "robot0_eef_quat": np.array([0.0, 0.0, 0.0, 1.0]),
            "robot0_gripper_qpos": np.array([0.02, -0.02]),
        }


def make_world(perturb: tuple[str, ...] = (), number: int = 0) -> Simulator:
    task = Task("suite", number, f"task {number}", f"do {number}", Path("file.bddl"), STATES)
    return Simulator(task, Untidy(), ("agentview",), perturb)


@pytest.fixture
def world() -> Callable[..., Simulator]:
    return make_world
