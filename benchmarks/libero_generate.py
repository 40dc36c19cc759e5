"""How much faster two processes make a set of LIBERO's episodes than one, and whether both make the same files.

    python benchmarks/libero_generate.py --tasks 0-3 --episodes 15 --rounds 1 --save

In the environment of the image libero, on a quiet machine of two cores or more. Both ways in turn, each into an empty
folder; the simulators' start is part of it. `results/libero_generate.json` says how many episodes were made.
"""

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from common import arguments, measured, ratio, report, run
from lary_schema.base import file_sha256

WAYS = {"one_process": 1, "two_processes": 2}


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("--suite", default="libero_object")
    parser.add_argument("--tasks", default="0-3")
    parser.add_argument("--episodes", type=int, default=15, help="of each task")
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    given = ["--suite", options.suite, "--tasks", options.tasks, "--episodes", str(options.episodes)]
    given += ["--size", str(options.size)]
    with tempfile.TemporaryDirectory() as root:
        made: dict[str, dict[str, str]] = {}

        def make(name: str) -> None:
            out = Path(root) / f"{name}-{time.monotonic_ns()}"
            _generate([*given, "--workers", str(WAYS[name]), "--out", str(out)])
            made[name] = _hashes(out)

        found = measured({name: partial(make, name) for name in WAYS}, options.rounds)
    episodes = sum(name.startswith("episodes/") and name.endswith(".json") for name in made["one_process"])
    figures: dict[str, Any] = {
        "suite": options.suite, "tasks": options.tasks, "episodes": episodes, "size": options.size,
        "rounds": options.rounds, "cameras": 1, "renderer": os.environ.get("MUJOCO_GL", "as found"), **found,
        "faster": ratio(found, "one_process", "two_processes")["wall"], "wanted": 1.7,
        "same_files": made["one_process"] == made["two_processes"],
    }  # fmt: skip
    report("libero_generate", figures, options.save)


def _generate(given: list[str]) -> None:
    command = [sys.executable, "-m", "lary_libero", "generate", *given]
    done = run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def _hashes(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): file_sha256(path) for path in sorted(root.rglob("*")) if path.is_file()}


if __name__ == "__main__":
    main()
