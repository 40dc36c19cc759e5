"""The scripted policy on worlds of boxes: where it takes things, how it steers, and a whole pick and place."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from lary_libero.grasp import FROM_TOP, candidates, choose, hits, turn_needed, turned
from lary_libero.scene import SPACING, Points, Scene, Target, find_goal, on_thing, surface
from lary_libero.scripted import PHASES, Scripted, Settings, rotation_to, steer
from lary_schema.base import ContractError

NOTHING = np.zeros((0, 3))


def box(middle: tuple[float, float, float], half: tuple[float, float, float], angle: float = 0.0) -> Points:
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return surface(half) @ turn.T + np.array(middle)


def bowl(x: float, y: float, radius: float = 0.055, height: float = 0.05) -> Points:
    """A floor and a wall of 40 boxes."""
    ring = [
        box((x + radius * np.cos(a), y + radius * np.sin(a), height / 2), (0.002, 0.008, height / 2), a)
        for a in np.arange(40) * np.pi / 20
    ]
    return np.concatenate([box((x, y, 0.002), (0.03, 0.03, 0.002)), *ring])


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2, 2.5])
def test_a_box_is_taken_across_its_narrow_side(angle: float) -> None:
    thing = box((0.1, -0.2, 0.03), (0.02, 0.06, 0.03), angle)
    best = min(candidates(thing, NOTHING, now=angle), key=lambda grasp: grasp.cost)
    assert turn_needed(best.angle, angle) < np.pi / 24 + 1e-9
    assert np.allclose(best.position[:2], [0.1, -0.2], atol=0.006)
    assert best.position[2] == pytest.approx(0.06 - FROM_TOP)


def test_a_neighbour_where_a_finger_would_go_turns_the_hand() -> None:
    thing = box((0, 0, 0.03), (0.02, 0.022, 0.03))
    neighbour = box((0.05, 0, 0.03), (0.008, 0.02, 0.03))
    free = min(candidates(thing, NOTHING, now=0.0), key=lambda grasp: grasp.cost)
    beside = min(candidates(thing, neighbour, now=0.0), key=lambda grasp: grasp.cost)
    assert turn_needed(free.angle, 0.0) < 0.2
    assert turn_needed(beside.angle, 0.0) > 0.6
    assert hits(beside.position, beside.angle, neighbour, NOTHING) == 0
    assert hits(free.position, free.angle, neighbour, NOTHING) > 0


def test_what_is_too_wide_is_taken_at_its_rim() -> None:
    found = list(candidates(bowl(0.3, 0.1), NOTHING, now=0.0))
    assert len(found) == 24
    for grasp in found:
        out = grasp.position[:2] - [0.3, 0.1]
        assert np.linalg.norm(out) == pytest.approx(0.055, abs=0.004)
        assert turn_needed(grasp.angle, float(np.arctan2(out[1], out[0]))) < 0.1
        assert grasp.position[2] == pytest.approx(0.05 - 0.017, abs=0.001)


def test_points_of_a_box_are_close_to_each_other() -> None:
    points = surface((0.05, 0.02, 0.001))
    assert np.abs(points).max(0).tolist() == pytest.approx([0.05, 0.02, 0.001])
    for point in points:
        others = np.linalg.norm(points - point, axis=1)
        assert np.sort(others)[1] <= SPACING + 1e-9


def test_a_plate_is_lower_in_its_middle() -> None:
    plate = np.concatenate([box((0, 0, 0.002), (0.08, 0.08, 0.002)), box((0.08, 0, 0.02), (0.002, 0.08, 0.02))])
    assert on_thing("plate", plate).position[2] == pytest.approx(0.004)


@pytest.mark.parametrize(
    "goal",
    [[["open", "cabinet_1"]], [["on", "a", "b"], ["on", "c", "b"]], [["turnon", "stove_1"]], []],
)
def test_another_goal_is_refused(goal: list[list[str]]) -> None:
    with pytest.raises(ContractError, match="picks one thing and places it"):
        find_goal(goal)


def test_goals_that_are_a_pick_and_place() -> None:
    assert find_goal([["in", "milk_1", "basket_1_contain_region"]]) == ("milk_1", "basket_1_contain_region", True)
    assert find_goal([["on", "bowl_1", "plate_1"]]) == ("bowl_1", "plate_1", False)


def test_a_step_goes_as_far_as_it_can_in_its_direction() -> None:
    assert steer(np.array([0.025, 0, 0]), np.zeros(3), -1).tolist() == [0.5, 0, 0, 0, 0, 0, -1]
    far = steer(np.array([0.2, -0.1, 0]), np.array([0, 0, 2.0]), 1)
    assert far.tolist() == pytest.approx([1, -0.5, 0, 0, 0, 1, 1])
    assert far.dtype == np.float32


def test_the_hand_turns_to_the_nearer_of_two_equal_grasps() -> None:
    for now in np.linspace(-3, 3, 13):
        for wanted in np.linspace(-3, 3, 13):
            rotation = rotation_to(turned(now), wanted)
            assert np.linalg.norm(rotation[:2]) < 1e-9
            assert abs(rotation[2]) <= np.pi / 2 + 1e-6
            assert turn_needed(now + rotation[2], wanted) < 1e-6


@dataclass
class Toy:
    """A hand that goes where it is sent and a thing that follows it while it is closed around it."""

    thing: Points
    target: Target
    slips: int = 0
    """How often the thing falls out of the hand when it is closed."""
    grip: np.ndarray = field(default_factory=lambda: np.array([0.0, 0.0, 0.3]))
    angle: float = 1.4
    held: bool = False
    closed: int = 0

    def look(self) -> Scene:
        at = (self.thing.max(0) + self.thing.min(0)) / 2
        there = np.linalg.norm(at[:2] - self.target.position[:2]) < 0.02 and not self.held
        low = self.thing[:, 2].min() - self.target.position[2]
        return Scene(
            self.grip.copy(),
            turned(self.angle),
            {"thing": self.thing},
            "thing",
            self.target,
            bool(there and low < 0.02),
        )

    def act(self, action: np.ndarray) -> None:
        way = action[:3] * 0.05
        self.grip += way
        self.angle += float(action[5]) * 0.5
        self.closed = self.closed + 1 if action[6] > 0 else 0
        if self.held:
            self.thing = self.thing + way
        near = np.linalg.norm(self.grip[:2] - (self.thing.max(0) + self.thing.min(0))[:2] / 2) < 0.02
        if self.closed == 8 and near and self.grip[2] < self.thing[:, 2].max():
            self.held, self.slips = self.slips == 0, max(0, self.slips - 1)
        if not self.closed and self.held:
            self.held = False
            self.thing = self.thing - [0, 0, max(0, self.thing[:, 2].min() - self.target.position[2])]


def play(toy: Toy, settings: Settings | None = None) -> list[str]:
    phases = []
    for action, phase in Scripted(toy.look, settings or Settings()).moves():
        assert action.shape == (7,)
        assert np.abs(action).max() <= 1
        phases.append(phase)
        toy.act(action)
        assert len(phases) < 1000
    return phases


@pytest.mark.parametrize("rim", [None, 0.14])
def test_a_pick_and_place_in_its_phases(rim: float | None) -> None:
    toy = Toy(box((0.2, -0.1, 0.04), (0.02, 0.03, 0.04)), Target(np.array([-0.1, 0.2, 0.0]), rim, "basket"))
    phases = play(toy)
    assert toy.look().done
    order = [phase for n, phase in enumerate(phases) if n == 0 or phases[n - 1] != phase]
    assert order == ["idle", "reach", "grasp", "lift", "move", "place", "idle"]
    assert set(order) == set(PHASES)


@pytest.mark.parametrize(("slips", "done", "attempts"), [(0, True, 1), (2, True, 3), (3, False, 3)])
def test_what_falls_out_of_the_hand_is_taken_again(slips: int, done: bool, attempts: int) -> None:
    toy = Toy(box((0.2, 0, 0.04), (0.02, 0.03, 0.04)), Target(np.array([0, 0.2, 0.0]), None, "plate"), slips)
    phases = play(toy)
    assert toy.look().done == done
    assert sum(a == "reach" != b for a, b in pairwise(phases)) == attempts


def test_another_attempt_takes_another_place() -> None:
    toy = Toy(bowl(0.1, 0.1), Target(np.zeros(3), None, "plate"))
    first, second = choose(toy.look(), 0), choose(toy.look(), 1)
    assert np.linalg.norm(first.position - second.position) > 0.005
