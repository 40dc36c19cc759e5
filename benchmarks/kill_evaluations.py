"""The evaluations that `kills.py` kills: a toy, and LIBERO with a policy that acts by every pixel of its pictures."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

COMMAND = [sys.executable, "-m", "lary_orch"]
Commands = Callable[[Path, Path], list[list[str]]]
"""From the folder of the inputs and that of the outputs."""


def evaluate(runtime: str, *options: str) -> Commands:
    def commands(_: Path, out: Path) -> list[list[str]]:
        tasks = ["-b", "demo_turn", "--task", "left-clockwise-open,right-clockwise-close", "--episodes", "20"]
        runs = ["--cpu-slots", "2", "--runtime", runtime, *options, "--workspace", str(out)]
        return [[*COMMAND, "evaluate", "-m", "random,zero", *tasks, "--record", *runs]]

    return commands


def evaluate_libero(runtime: str, *options: str) -> Commands:
    """Two tasks that one policy serves, short episodes, pictures drawn for the policy and for videos."""

    def commands(inputs: Path, out: Path) -> list[list[str]]:
        tasks = ["-b", "libero_object", "--task", "0,1", "--episodes", "2", "--horizon", "8", "--settle", "2"]
        runs = ["--cpu-slots", "1", "--runtime", runtime, *options, "--workspace", str(out)]
        catalog = ["--catalog", str(inputs / "images")]
        # Its module is found by the interpreter that has LIBERO; jobs inherit where.
        path = os.pathsep.join(filter(None, [str(inputs), os.environ.get("PYTHONPATH")]))
        return [["env", f"PYTHONPATH={path}", *COMMAND, "evaluate", "-m", "looks", *tasks, *catalog, *runs]]

    return commands


def evaluate_libero_blind(_: Path, out: Path) -> list[list[str]]:
    """In containers: `random` looks at nothing, so pictures are drawn for videos alone."""
    tasks = ["-b", "libero_object", "--task", "0,1", "--episodes", "2", "--horizon", "8", "--settle", "2"]
    runs = ["--cpu-slots", "1", "--runtime", "docker", "--workspace", str(out)]
    return [[*COMMAND, "evaluate", "-m", "random", *tasks, *runs]]


LOOKS = """
import numpy as np
from lary_policy import Policy


class Looks(Policy):
    def fit(self, space):
        self.width = len(space.actions)
        return ("agentview",)

    def reset(self, instruction, seed):
        self.draws = np.random.default_rng(seed)

    def act(self, observation):
        # Of every pixel: one that differs leads elsewhere.
        seen = np.frombuffer(observation["agentview"].tobytes(), np.uint8).astype(np.int64)
        weights = 1 + np.arange(len(seen)) % 9973
        moved = [((seen * weights).sum() * (3 + n) % 1009) / 1009 - 0.5 for n in range(self.width)]
        return (self.draws.uniform(-0.5, 0.5, (4, self.width)) + moved).astype(np.float32)
"""
LOOKS_CARD = """
name: looks
kind: model
module: lary_policy
policies:
  - {key: looks, title: acts by every pixel, license: MIT, source: benchmarks}
"""


def make_looks(inputs: Path) -> None:
    """The package of a policy, its installation, and its image's folder."""
    package, info, image = inputs / "lary_looks", inputs / "lary_looks-1.dist-info", inputs / "images/looks"
    for folder in (package, info, image / "src"):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_text(LOOKS, encoding="utf-8")
    (package / "image.yaml").write_text(LOOKS_CARD, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lary-looks\nVersion: 1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[lary.policies]\nlooks = lary_looks:Looks\n", encoding="utf-8")
    (image / "pyproject.toml").write_text("", encoding="utf-8")
    (image / "src/lary_looks").symlink_to(package)
