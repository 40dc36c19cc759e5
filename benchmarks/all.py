"""Every benchmark of time again, one after the other, and what moved against `results/`.

    make benchmarks                            prints what moved
    make benchmarks ARGS="--only store_io --save"

A figure has moved where it is above 1.5 times what it was, or below 1 / 1.5: less than that reads as equal (README).
Ranges, counts and settings are not compared. The load at the beginning is printed for each: figures of a loaded
machine are worth little, processor time a bit more than wall time.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
from common import RESULTS

SCRIPTS = (
    "start", "store_io", "extract", "probe_reading", "encode", "decode", "decode_once", "jobs_in_one_process",
    "partitions", "planning", "scale", "action_files", "demo_drawing", "annotate", "train",
)  # fmt: skip
LEFT_OUT = {
    "gpu": "needs a GPU",
    "slurm": "needs the test cluster",
    "scale_runs, orchestrator": "take many minutes",
    "evaluate, libero_scripted, libero_generate, libero_probes": "need what the image libero has or makes",
    "kills, interval_coverage, damage, parity": "measure no time",
}
MOVED = 1.5
_TIMED = re.compile(r"(_s|_ms|seconds|ratio|share|median|per_s|over_\w+|npz_over_\w+|processor|wall)$")
_UNCOMPARED = re.compile(r"^(machine|date|rounds|rows|batch)$|min|max|range|load|spread")


def figures(document: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """Name and value of what is compared: numbers below a name that says that they are times or ratios."""
    if isinstance(document, dict):
        for name, value in document.items():
            if not _UNCOMPARED.search(name):
                yield from figures(value, (*path, name))
    elif isinstance(document, (int, float)) and not isinstance(document, bool) and any(map(_TIMED.search, path)):
        yield ".".join(path), float(document)


def moved(before: Any, now: Any) -> Iterator[str]:
    """A line for each figure that moved, and for each that is in one of the two alone."""
    old, new = dict(figures(before)), dict(figures(now))
    for name in sorted(old.keys() & new.keys()):
        low, high = sorted((old[name], new[name]))
        if high > MOVED * low > 0 or low <= 0 < high:
            yield f"{name}: {old[name]:g} -> {new[name]:g}"
    for name in sorted(old.keys() ^ new.keys()):
        yield f"{name}: {'no longer measured' if name in old else 'new'}"


def run(script: str, *, save: bool) -> tuple[Any, str]:
    """Its document, or None and the last line that it had to say."""
    command = [sys.executable, str(Path(__file__).with_name(f"{script}.py")), *(["--save"] if save else [])]
    done = common.run(command, capture_output=True, text=True)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return json.loads(done.stdout[done.stdout.index("{") :]), ""


def compare(script: str, *, save: bool) -> Iterator[str]:
    path = RESULTS / f"{script}.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    now, fault = run(script, save=save)
    if now is None:
        yield f"did not run: {fault}"
        return
    if not before:
        yield "there is nothing to compare it with"
        return
    old, new = (document.get("machine", {}) for document in (before, now))
    if any(old.get(name) != new.get(name) for name in ("cpu", "cores")):
        yield f"another machine: {old.get('cpu')} x {old.get('cores')} -> {new.get('cpu')} x {new.get('cores')}"
    lines = list(moved(before, now))
    yield from lines or ["nothing moved"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=SCRIPTS, help="repeatable [all]")
    parser.add_argument("--save", action="store_true", help="keep the figures under benchmarks/results")
    options = parser.parse_args()
    for script in options.only or SCRIPTS:
        print(f"{script} (load {os.getloadavg()[0]:.1f})", flush=True)
        for line in compare(script, save=options.save):
            print(f"  {line}", flush=True)
    for name, why in LEFT_OUT.items():
        print(f"{name}: left out, {why}")


if __name__ == "__main__":
    main()
