"""What the benchmarks share: alternating measurement, the machine in words, saving."""

import argparse
import datetime
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def alternate(
    ways: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each way per round: A B A B ..., so that a drifting machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = clock()
            way()
            seconds[name].append(clock() - start)
    return seconds


def summary(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, smallest and largest of each way."""
    return {name: {"median_s": statistics.median(s), "min_s": min(s), "max_s": max(s)} for name, s in seconds.items()}


def machine() -> dict[str, Any]:
    """The hardware, in words that say nothing of whose it is."""
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = [round(one, 1) for one in os.getloadavg()]
    found = {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(gib, 1), "load": load}
    return found | {"python": platform.python_version()}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def report(name: str, figures: dict[str, Any], save: bool) -> None:
    """Print the figures; with `save` keep them under results/NAME.json."""
    document = {"benchmark": name, "date": datetime.date.today().isoformat(), "machine": machine(), **figures}
    text = json.dumps(document, indent=2) + "\n"
    print(text, end="")
    if save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(text)


def parity() -> Any:
    """The parity tests' reader of golden cases and maker of checkpoints."""
    path = Path(__file__).parents[1] / "tests" / "parity" / "conftest.py"
    spec = importlib.util.spec_from_file_location("parity_tests", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="keep the figures under benchmarks/results")
    return parser
