"""How often the scripted policy does a task of LIBERO, by LIBERO's rule and after release; random and zero beside it.

    python benchmarks/libero_scripted.py --states 0-19 --rows rows.jsonl --out benchmarks/results/libero_scripted.json

In the environment of the image libero. Without cameras. Goes on where it was killed: a row for each episode.
"""

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import machine
from lary_libero.commands.describe import installed
from lary_libero.commands.generate import numbers
from lary_libero.episodes import record
from lary_libero.simulator import Simulator

TASKS = {
    "libero_object": tuple(range(10)),
    "libero_spatial": tuple(range(10)),
    "libero_goal": (1, 2, 4, 6, 8, 9),
}
"""Pick one thing and place it. The other goals are drawers, a knob, and pushing."""
HORIZON = 400
TUNED_ON = "20-22"


def main() -> None:
    options = _parser().parse_args()
    rows = _read(options.rows)
    done = {(row["policy"], row["suite"], row["task"], row["state"]) for row in rows}
    for suite, tasks in TASKS.items():
        for task in tasks if options.tasks is None else options.tasks:
            states = [s for s in options.states if (options.policy, suite, task, s) not in done]
            if states and (options.suite in (None, suite)) and task in tasks:
                _run(options, suite, task, states)
    if options.out:
        options.out.write_text(json.dumps(_summary(_read(options.rows)), indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="scripted")
    parser.add_argument("--suite")
    parser.add_argument("--tasks", type=numbers)
    parser.add_argument("--states", type=numbers, default=tuple(range(20)))
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    return parser


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _run(options: argparse.Namespace, suite: str, task: int, states: list[int]) -> None:
    simulator = Simulator.make(suite, task, cameras=())
    for state in states:
        begun = time.process_time()
        recording = record(simulator, options.policy, state, 0, HORIZON)
        row = {
            "policy": options.policy, "suite": suite, "task": task, "instruction": simulator.instruction,
            "state": state, "rule": recording.first_success is not None,
            "after_release": recording.success_after_release, "steps": len(recording.actions),
            "first_success": recording.first_success, "cpu_s": round(time.process_time() - begun, 2),
        }  # fmt: skip
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    table = []
    for key in dict.fromkeys((row["policy"], row["suite"], row["task"]) for row in rows):
        mine = [row for row in rows if (row["policy"], row["suite"], row["task"]) == key]
        table.append(
            {
                "policy": key[0], "suite": key[1], "task": key[2], "instruction": mine[0]["instruction"],
                "episodes": len(mine), "states": sorted(row["state"] for row in mine),
                "rule": sum(row["rule"] for row in mine), "after_release": sum(row["after_release"] for row in mine),
                "mean_steps": round(sum(row["steps"] for row in mine) / len(mine), 1),
                "failed_states": sorted(row["state"] for row in mine if not row["after_release"]),
            }
        )  # fmt: skip
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine(), "libraries": installed(),
        "settings_chosen_on_states": TUNED_ON,
        "wanted": "15 tasks of three suites, states 0-19", "horizon": HORIZON, "cameras": "none",
        "cpu_s_per_episode": round(sum(row["cpu_s"] for row in rows) / max(1, len(rows)), 2), "tasks": table,
    }  # fmt: skip


if __name__ == "__main__":
    main()
