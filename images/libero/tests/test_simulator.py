"""The simulator on a stand-in for LIBERO's environment, as untidy as the real one; and on the real one, where it is."""

import importlib.util
from typing import Any, Protocol

import numpy as np
import pytest
from lary_libero.perturb import names
from lary_libero.simulator import ACTION_DIM, STATE_DIM, Simulator, axis_angle, check_action
from lary_schema.base import ContractError


class World(Protocol):
    def __call__(self, perturb: tuple[str, ...] = ()) -> Simulator: ...


def episode(simulator: Simulator, state: int, seed: int) -> list[Any]:
    seen = [simulator.reset(state, seed).state.tolist()]
    for number in range(4):
        observation, done = simulator.step(np.full(ACTION_DIM, 0.1 * number))
        seen.append((observation.state.tolist(), done))
    return seen


def test_an_episode_is_a_function_of_state_and_seed_alone(world: World) -> None:
    simulator = world()
    wanted = {(s, n): episode(world(), s, n) for s in range(3) for n in (0, 7)}
    for key in [(0, 0), (2, 7), (0, 0), (1, 0), (1, 7), (0, 7), (2, 0), (0, 0)]:
        np.random.seed(5)
        assert episode(simulator, *key) == wanted[key]
    assert len({str(found) for found in wanted.values()}) == len(wanted)


def test_two_simulators_do_not_disturb_each_other_nor_the_callers_chance(world: World) -> None:
    alone, one, other = episode(world(), 1, 3), world(), world()
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


def test_pictures_are_upright_and_the_state_is_told(world: World) -> None:
    observation = world().reset(1)
    assert observation.images["agentview"][-1].min() == 255
    assert observation.images["agentview"][:-1].max() < 255
    assert observation.state.tolist() == pytest.approx([4, 5, 6, 0, 0, 0, 0.02, -0.02])
    assert observation.state.shape == (STATE_DIM,)


@pytest.mark.parametrize("state", [-1, 3])
def test_a_state_that_is_not_stored_is_refused(world: World, state: int) -> None:
    with pytest.raises(ContractError, match=f"no initial state {state}: they are numbered from 0 to 2"):
        world().reset(state)


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


@pytest.mark.parametrize("kinds", [("lighting",), ("camera",), ("camera", "lighting")])
def test_a_perturbation_changes_what_is_seen_alone(world: World, kinds: tuple[str, ...]) -> None:
    plain, perturbed = world(), world(kinds)
    assert episode(plain, 1, 0) == episode(perturbed, 1, 0)
    plain.reset(1, 0)
    seen, values = [], []
    for kind in (0, 0, 1):
        images = [perturbed.reset(1, kind).images["agentview"]]
        values.append([perturbed.nuisance().tolist()])
        for _ in range(6):
            images.append(perturbed.step(np.zeros(ACTION_DIM))[0].images["agentview"])
            values[-1].append(perturbed.nuisance().tolist())
        seen.append(np.stack(images).tolist())
    assert seen[0] == seen[1] != seen[2]
    assert values[0] == values[1] != values[2]
    assert len(values[0][0]) == len(names(kinds))
    assert len({str(one) for one in values[0]}) == 7


def test_an_unknown_perturbation_is_refused() -> None:
    with pytest.raises(ContractError, match="no perturbation 'fog'; there are lighting, camera, distractor"):
        Simulator.make("libero_goal", 1, perturb=("fog",))


@pytest.mark.skipif(not importlib.util.find_spec("libero"), reason="the simulator is not installed here")
def test_the_real_one_repeats_bit_for_bit() -> None:
    simulator = Simulator.make("libero_goal", 1, size=64)
    first = episode(simulator, 0, 0)
    assert episode(simulator, 1, 0) != first
    assert episode(simulator, 0, 0) == first
    assert episode(Simulator.make("libero_goal", 1, size=64), 0, 0) == first
