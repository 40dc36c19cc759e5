"""The simulator on a stand-in for LIBERO's environment, as untidy as the real one; and on the real one, where it is."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lary_libero.simulator import ACTION_DIM, STATE_DIM, Simulator, axis_angle, check_action
from lary_libero.suites import Task
from lary_schema.base import ContractError

STATES = np.arange(12.0).reshape(3, 4)


class Untidy:
    """Fixtures stand where chance and the number of resets put them; a step depends on what is left over, and draws."""

    def __init__(self) -> None:
        self.resets = 0
        self.left_over = 0.0
        self.position = np.zeros(4)
        self.sim = SimpleNamespace(model=None, reset=self._clear)

    def _clear(self) -> None:
        self.left_over = 0.0

    def reset(self) -> None:
        self.resets += 1
        drawn = np.random.uniform(size=(2, 3)) + 0.01 * self.resets
        self.sim.model = SimpleNamespace(body_pos=drawn, body_quat=drawn[:, :1] * np.ones(4))
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
        image = np.zeros((4, 4, 3), np.uint8)
        image[0] = 255
        return {
            "agentview_image": image,
            "robot0_eef_pos": self.position[:3],
            "robot0_eef_quat": np.array([0.0, 0.0, 0.0, 1.0]),
            "robot0_gripper_qpos": np.array([0.02, -0.02]),
        }


def make() -> Simulator:
    task = Task("suite", 0, "name", "do it", Path("file.bddl"), STATES)
    return Simulator(task, Untidy(), ("agentview",))


def episode(simulator: Simulator, state: int, seed: int) -> list[Any]:
    seen = [simulator.reset(state, seed).state.tolist()]
    for number in range(4):
        observation, done = simulator.step(np.full(ACTION_DIM, 0.1 * number))
        seen.append((observation.state.tolist(), done))
    return seen


def test_an_episode_is_a_function_of_state_and_seed_alone() -> None:
    simulator = make()
    wanted = {(s, n): episode(make(), s, n) for s in range(3) for n in (0, 7)}
    for key in [(0, 0), (2, 7), (0, 0), (1, 0), (1, 7), (0, 7), (2, 0), (0, 0)]:
        np.random.seed(5)
        assert episode(simulator, *key) == wanted[key]
    assert len({str(found) for found in wanted.values()}) == len(wanted)


def test_two_simulators_do_not_disturb_each_other_nor_the_callers_chance() -> None:
    alone, one, other = episode(make(), 1, 3), make(), make()
    one.reset(1, 3)
    seen = [one.reset(1, 3).state.tolist()]
    other.reset(0, 9)
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()
    for number in range(4):
        other.step(np.ones(ACTION_DIM))
        observation, done = one.step(np.full(ACTION_DIM, 0.1 * number))
        seen.append((observation.state.tolist(), done))
    assert seen == alone
    assert np.random.get_state()[1].tolist() == before


def test_pictures_are_upright_and_the_state_is_told() -> None:
    observation = make().reset(1)
    assert observation.images["agentview"][-1].min() == 255
    assert observation.images["agentview"][:-1].max() == 0
    assert observation.state.tolist() == pytest.approx([4, 5, 6, 0, 0, 0, 0.02, -0.02])
    assert observation.state.shape == (STATE_DIM,)


@pytest.mark.parametrize("state", [-1, 3])
def test_a_state_that_is_not_stored_is_refused(state: int) -> None:
    with pytest.raises(ContractError, match=f"no initial state {state}: they are numbered from 0 to 2"):
        make().reset(state)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(6), r"\(6,\)"),
        (np.zeros((1, 7)), r"\(1, 7\)"),
        ([0, 0, 0, 0, 0, 0, np.nan], "finite"),
        ([np.inf, 0, 0, 0, 0, 0, 0], "finite"),
    ],
)
def test_an_action_that_is_none_is_refused(action: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        check_action(action)


def test_an_action_is_what_a_float32_holds() -> None:
    assert check_action([0.1, 2, -3, 0, 0, 0, 1]).tolist() == [float(np.float32(0.1)), 1, -1, 0, 0, 0, 1]


def test_axis_angle_turns_as_the_quaternion_does() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        quaternion = generator.normal(size=4)
        quaternion /= np.linalg.norm(quaternion)
        found = axis_angle(quaternion)
        angle = np.linalg.norm(found)
        assert angle <= np.pi + 1e-9
        back = np.append(np.sin(angle / 2) * found / angle, np.cos(angle / 2))
        assert abs(back @ quaternion) == pytest.approx(1)
    assert axis_angle(np.array([0.0, 0.0, 0.0, -1.0])).tolist() == [0, 0, 0]


@pytest.mark.skipif(not importlib.util.find_spec("libero"), reason="the simulator is not installed here")
def test_the_real_one_repeats_bit_for_bit() -> None:
    simulator = Simulator.make("libero_goal", 1, size=64)
    first = episode(simulator, 0, 0)
    assert episode(simulator, 1, 0) != first
    assert episode(simulator, 0, 0) == first
    assert episode(Simulator.make("libero_goal", 1, size=64), 0, 0) == first
