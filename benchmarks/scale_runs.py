"""What a workspace costs that grows: 10, 100 and 1,000 results, in one run and in many, and a store of 35,000 shards.

    python benchmarks/scale_runs.py --rounds 3 --save

`scale_parts.py` fills the workspaces; of a store with many shards all but the first 20 are copies of one of them. Then
each command is a process of its own: wall and processor time and peak memory, medians of --rounds. `exponent` is of the
processor time above that of the smallest size, between the two larger ones: 1 is linear. Files lie in the page cache.
"""

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import arguments, child, report, run

PYTHON = Path(sys.executable)
COMMAND = str(PYTHON.with_name("lary-orch"))
COMMANDS = ("status", "runs", "results", "results --json", "report")
NOISE_S = 0.02
"""Of processor time: what the middle size adds has to be above it."""
Figures = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Shape:
    """How a workspace of a size is filled."""

    sizes: tuple[int, ...]
    models: tuple[str, ...]
    datasets: int = 0
    """0: as many as the size takes."""
    rows: int = 0
    """Of train; 0: few; -1: the size."""
    shard_rows: int = 1024
    seeds: int = 1
    """Runs; 0: as many as the size takes."""

    def counts(self, size: int) -> tuple[int, int, int]:
        """Datasets, rows and runs."""
        datasets = self.datasets or size // len(self.models)
        rows = {0: 24, -1: size}[self.rows]
        return datasets, rows, self.seeds or size // (datasets * len(self.models))


SHAPES = {
    "results of one run": Shape((12, 100, 1000), ("frame-diff", "pixels", "random-vit", "single-frame")),
    "results of many runs": Shape((10, 100, 1000), ("random-vit",), datasets=10, seeds=0),
    "shards of one store": Shape((350, 3500, 35000), ("frame-diff",), datasets=1, rows=-1, shard_rows=1),
}


def measure(command: list[str]) -> dict[str, float]:
    """Wall and processor seconds and peak memory (MiB) of a command that has to end well."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        with child(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)}: exit {process.returncode}\n{said.read().decode()}")
    processor = usage.ru_utime + usage.ru_stime
    return {"wall_s": seconds, "processor_s": processor, "peak_mib": usage.ru_maxrss / 1024}


def medians(command: list[str], rounds: int) -> dict[str, float]:
    found = [measure(command) for _ in range(rounds)]
    return {name: round(statistics.median(one[name] for one in found), 3) for name in found[0]}


def figures_of(shape: Shape, size: int, root: Path, rounds: int) -> Figures:
    datasets, rows, seeds = shape.counts(size)
    keys, models = ",".join(f"set-{number:04d}" for number in range(datasets)), ",".join(shape.models)
    fill = [str(PYTHON), str(Path(__file__).with_name("scale_parts.py"))]
    run([*fill, str(root), str(rows), str(shape.shard_rows), models, keys, str(seeds)], check=True)
    folders = ["--workspace", str(root / "w")]
    found = {words: medians([COMMAND, *words.split(), *folders], rounds) for words in COMMANDS}
    plan = ["plan", "-m", models, "-d", keys, "--protocol", "smoke", "--target", "absolute", "--no-control"]
    plan += ["--seed", str(seeds - 1), "--catalog", str(root / "cards"), "--data-dir", str(root / "data")]
    plan += ["--runtime", "process", "--env", "current", "--device", "cpu", "--cpu-slots", "1"]
    return found | {"plan": medians([COMMAND, *plan, *folders], rounds)}


def growth(found: dict[int, Figures]) -> dict[str, float]:
    """By command, where there is something to say."""
    if len(found) < 3:
        return {}
    least, middle, largest = sorted(found)
    exponents = {}
    for name in found[largest]:
        low, high = (found[size][name]["processor_s"] - found[least][name]["processor_s"] for size in (middle, largest))
        if low > NOISE_S:
            exponents[name] = round(math.log(high / low) / math.log((largest - least) / (middle - least)), 2)
    return exponents


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", choices=SHAPES, action="append", help="repeatable [all]")
    parser.add_argument("--most", type=int, help="leave larger sizes out")
    options = parser.parse_args()
    for name in options.only or SHAPES:
        found: dict[int, Figures] = {}
        for size in SHAPES[name].sizes:
            if size <= (options.most or size):
                with tempfile.TemporaryDirectory() as folder:
                    found[size] = figures_of(SHAPES[name], size, Path(folder), options.rounds)
                print(name, size, found[size], file=sys.stderr, flush=True)
        figures: dict[str, Any] = {"of": name, "rounds": options.rounds, "sizes": found, "exponent": growth(found)}
        report(f"scale_{name.replace(' ', '_')}", figures, options.save)


if __name__ == "__main__":
    main()
