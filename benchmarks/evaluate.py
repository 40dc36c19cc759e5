"""Steps a second of a simulator alone, with a policy in its process, and with the same policy behind the socket.

    python benchmarks/evaluate.py --save                             the demo arm
    python benchmarks/evaluate.py --benchmark libero_object --task 0    in the simulator's own environment
    python benchmarks/evaluate.py --width 224                        larger pictures, of noise

One policy does nothing but look at every observation, one action at a time: the most that the socket can be used. The
socket's share is the time of the exchanges alone, of what a step takes with it. `alone` steps without asking anybody.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from common import child, report
from lary_policy import EpisodeStart, Policy, Simulator, Space
from lary_policy.policy import Observation
from lary_policy.registry import make_simulator
from lary_policy.talk import Remote, serve
from lary_schema.cards import TensorSpec
from numpy.typing import NDArray

SERVE = "--serve"


class Looks(Policy):
    """Reads every number that it is shown, and does nothing."""

    width = 0

    def fit(self, space: Space) -> tuple[str, ...]:
        self.width = len(space.actions)
        return tuple(space.observations)

    def reset(self, instruction: str, seed: int) -> None:
        del instruction, seed

    def act(self, observation: Observation) -> NDArray[np.float32]:
        assert sum(int(array.size) for array in observation.values()) > 0
        return np.zeros((1, self.width), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", default="demo_turn")
    parser.add_argument("--task")
    parser.add_argument("--steps", type=int, default=200, help="of each way and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, help="of two pictures of noise in place of the simulator's")
    parser.add_argument("--save", action="store_true")
    parser.add_argument(SERVE, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(Looks("looks"), given.serve, 600, 600)
        return
    # Several images with policies or simulators are installed side by side in the development environment.
    os.environ.setdefault("LARY_IMAGE", "arm" if given.benchmark == "demo_turn" else "libero")
    measure(given)


def measure(given: argparse.Namespace) -> None:
    simulator = _simulator(given)
    shown = dict(simulator.card.observations)
    if given.width:
        shown = {name: TensorSpec(shape=(given.width, given.width, 3), dtype="uint8") for name in ("a", "b")}
    noise = {name: np.random.default_rng(0).integers(0, 255, spec.shape, np.uint8) for name, spec in shown.items()}
    space = Space(simulator.card.key, simulator.task.key, shown, simulator.card.actions)
    with tempfile.TemporaryDirectory(prefix="lary-evaluate-") as folder:
        socket = Path(folder) / "s"
        remote, here = Remote(socket, space, 600, 600), Looks("looks")
        here.fit(space)
        with child([sys.executable, __file__, SERVE, str(socket)]), closing(remote):
            seconds = _seconds(simulator, remote, here, given, noise)
    _report(given, seconds, shown)


def _seconds(
    simulator: Simulator, remote: Remote, here: Policy, given: argparse.Namespace, noise: Observation
) -> dict[str, list[float]]:
    """Of a step, by way and round; ways take turns."""
    seconds: dict[str, list[float]] = {"alone": [], "in process": [], "socket": [], "exchange": []}
    for _ in range(given.rounds):
        for name, actor in (("alone", None), ("in process", here), ("socket", remote)):
            total, exchange = _run(simulator, actor, given.steps, noise if given.width else None)
            seconds[name].append(total / given.steps)
            if actor is remote:
                seconds["exchange"].append(exchange / given.steps)
    return seconds


def _simulator(given: argparse.Namespace) -> Simulator:
    from lary_policy.registry import benchmark_card

    task = given.task or benchmark_card(given.benchmark).tasks[0].key
    return make_simulator(given.benchmark, task)


def _run(simulator: Simulator, actor: Any, steps: int, noise: Observation | None) -> tuple[float, float]:
    """Seconds of so many steps, and of them those in the policy's hands."""
    observation = simulator.reset(0, 0)
    if actor is not None:
        actor.begin(EpisodeStart("x", 0, simulator.task.key, 0))
    idle = np.array([simulator.card.idle], np.float32)
    began, asked = time.perf_counter(), 0.0
    for _ in range(steps):
        before = time.perf_counter()
        chunk = idle if actor is None else actor.act(noise or observation)
        asked += time.perf_counter() - before
        observation = simulator.step(chunk[0]).observation
    return time.perf_counter() - began, asked


def _report(given: argparse.Namespace, seconds: dict[str, list[float]], shown: dict[str, TensorSpec]) -> None:
    median = {name: statistics.median(values) for name, values in seconds.items()}
    name = f"evaluate_{given.benchmark}{f'_{given.width}' if given.width else ''}"
    figures = {
        "benchmark_key": given.benchmark,
        "bytes_a_step": sum(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in shown.values()),
        "steps_per_second": {way: round(1 / median[way], 1) for way in ("alone", "in process", "socket")},
        "exchange_ms": round(1000 * median["exchange"], 3),
        "socket_share": round(median["exchange"] / median["socket"], 4),
    }
    report(name, figures, given.save)


if __name__ == "__main__":
    main()
