"""What the benchmarks share: alternating measurement, the machine in words, saving."""

import argparse
import contextlib
import datetime
import importlib.util
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ENDS_WITHIN_S = 20
"""A command of the bench gives its jobs ten."""
LOAD_BEFORE = [round(one, 1) for one in os.getloadavg()]


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


Seconds = tuple[float, float]
"""Wall time, and processor time of this process, its threads and its children that have ended."""


def measured(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Wall and processor seconds of each way, in turn round by round; medians with the range."""
    found: dict[str, list[Seconds]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(spent(way))
    return {name: medians(pairs) for name, pairs in found.items()}


def spent(work: Callable[[], Any]) -> Seconds:
    """Do it."""
    start, before = time.perf_counter(), _processor()
    work()
    return time.perf_counter() - start, _processor() - before


def ratio(found: dict[str, dict[str, float]], name: str, other: str) -> dict[str, float]:
    """Of the medians of two ways of `measured`."""
    return {
        kind: round(found[name][f"{kind}_s"] / max(found[other][f"{kind}_s"], 1e-9), 3)
        for kind in ("wall", "processor")
    }


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def medians(pairs: list[Seconds]) -> dict[str, float]:
    """Of both clocks, with the smallest and the largest."""
    figures = {}
    for kind, values in zip(("wall", "processor"), zip(*pairs, strict=True), strict=True):
        figures |= {f"{kind}_s": statistics.median(values), f"{kind}_min_s": min(values), f"{kind}_max_s": max(values)}
    return {name: round(value, 4) for name, value in figures.items()}


# --- other processes --------------------------------------------------------------------------


@contextlib.contextmanager
def child(command: Sequence[str | Path], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """A process that does not outlive the block, also where this one gets Ctrl-C, SIGTERM or SIGHUP meanwhile.

    A command of the bench that is asked to end ends its jobs; SIGKILL follows where it does not. `options` are Popen's.
    """
    with _signals_are_exceptions() as begun:
        process = subprocess.Popen(command, **options)
        try:
            begun()
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(ENDS_WITHIN_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def run(
    command: Sequence[str | Path], *, check: bool = False, capture_output: bool = False, **options: Any
) -> "subprocess.CompletedProcess[Any]":
    """`subprocess.run` by a `child`."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with child(command, **options) as process:
        done = subprocess.CompletedProcess(command, 0, *process.communicate())
        done.returncode = process.returncode
    if check:
        done.check_returncode()
    return done


@contextlib.contextmanager
def _signals_are_exceptions() -> Iterator[Callable[[], None]]:
    """Else Python ends at once, and what it started stays. So it would where an exception came while a process starts,
    which nobody holds yet: those signals wait until the block calls what it is given."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    waiting: list[int] = []
    has_begun = False

    def leave(number: int, _: object) -> None:
        if has_begun:
            sys.exit(128 + number)
        waiting.append(number)

    def begun() -> None:
        nonlocal has_begun
        has_begun = True
        if waiting:
            sys.exit(128 + waiting[0])

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield begun
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- what is kept -----------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """The hardware, in words that say nothing of whose it is."""
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = [round(one, 1) for one in os.getloadavg()]
    found = {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(gib, 1), "load": load}
    found |= {"load_before": LOAD_BEFORE}
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
