"""Kills processes at random moments until the work has ended, and compares what it left with undisturbed work.

    python benchmarks/kills.py --part processes --kills 80 --save
    python benchmarks/kills.py --part containers --kills 40 --save      needs an engine and built images

One round: a fresh folder, the part's commands, each again and again until it exits with 0, and at random moments
SIGKILL to one of its processes: the orchestrator, a worker, a decode process (also one that just starts), a probe, a
data tool, uv, or a whole container. Then every file is compared byte for byte, every failed row of a store is counted
as lost, and the scores must be equal. The parts are in `kill_parts.py`. Needs psutil.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from common import report
from kill_parts import PARTS, Part, failed_rows, files, kind_of, scores

REPO = Path(__file__).parents[1]
MOST_OF_A_COMMAND = 8
"""Kills of one command in a round: so all of a part's commands get theirs, and there are several rounds."""
PARTIAL = ".partial/"
"""In the path of what a killed writer leaves next to a store; nobody reads it, and `lary-orch clean` removes it."""
LONGEST_S = 900
"""A command that takes longer, undisturbed, hangs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), default="processes")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=24 * 60, help="no round begins later")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    part, draw = PARTS[given.part], random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="lary-kills-") as scratch:
        killer = Killer(part, Path(scratch), draw, given.kills)
        killer.prepare()
        rounds: list[dict[str, Any]] = []
        end = time.monotonic() + 60 * given.minutes
        while killer.kills.total() < given.kills and time.monotonic() < end:
            rounds.append(killer.round())
            print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    figures = {"seed": given.seed, "kills": dict(killer.kills), "rounds": rounds}
    report(f"kills_{given.part}", figures, given.save)
    faults = ("files_that_differ", "files_more", "rows_lost", "scores_that_differ")
    if any(any(map(each.get, faults)) for each in rounds):
        sys.exit(1)


class Target(NamedTuple):
    """What can be killed."""

    kind: str
    kill: Callable[[], object]


class Killer:
    """Runs a part's commands undisturbed once, then against kills. All rounds have the same folder: files name it."""

    def __init__(self, part: Part, scratch: Path, draw: random.Random, most: int) -> None:
        self.kills: Counter[str] = Counter()
        self._part, self._draw, self._most = part, draw, most
        self._inputs, self._out, self._output = scratch / "inputs", scratch / "work", scratch / "output.txt"
        self._seconds: list[float] = []
        self._expected: dict[str, str] = {}
        self._scores: dict[str, Any] = {}

    def prepare(self) -> None:
        """Make the inputs, and what undisturbed commands leave."""
        self._part.prepare(self._inputs)
        for command in self._commands():
            start = time.monotonic()
            subprocess.run(command, check=True, capture_output=True)
            self._seconds.append(time.monotonic() - start)
        self._expected, self._scores = files(self._out, self._part.results), scores(self._out)
        shutil.rmtree(self._out)

    def round(self) -> dict[str, Any]:
        """All commands once, to their end; how their results compare."""
        before = self.kills.copy()
        for command, seconds in zip(self._commands(), self._seconds, strict=True):
            self._run_killed(command, seconds)
        found = files(self._out, self._part.results)
        done = {
            "kills": dict(self.kills - before),
            "files": len(self._expected),
            "files_that_differ": sorted(k for k, digest in self._expected.items() if found.get(k) != digest),
            "files_more": sorted(name for name in found.keys() - self._expected.keys() if PARTIAL not in name),
            "unfinished_files": sum(PARTIAL in name for name in found),
            "rows_lost": failed_rows(self._out),
            "scores_that_differ": _differences(scored := scores(self._out), self._scores),
            # Where `describe` was killed again and again, a run went on without that model: another run.
            "results_more": sorted(scored.keys() - self._scores.keys()),
        }
        shutil.rmtree(self._out)
        return done

    def _commands(self) -> list[list[str]]:
        self._out.mkdir(exist_ok=True)
        return self._part.commands(self._inputs, self._out)

    def _run_killed(self, command: list[str], seconds: float) -> None:
        """Run until it exits with 0; it is left alone once the drawn number of kills was made."""
        code, until = None, min(self._most, self.kills.total() + self._draw.randint(1, MOST_OF_A_COMMAND))
        while code != 0:
            with self._start(command) as process:
                while process.poll() is None and self.kills.total() < until:
                    # Many moments are early: processes start, locks are taken, the first results are written.
                    time.sleep(self._draw.choice([0.1, 0.5, 1.0]) * self._draw.random() * max(seconds / 3, 1))
                    if kind := self._kill(process):
                        self.kills[kind] += 1
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LONGEST_S)
                code = process.poll()
                if code is None:
                    sys.exit(f"hangs: {command}")

    @contextlib.contextmanager
    def _start(self, command: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
        with self._output.open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _kill(self, process: "subprocess.Popen[bytes]") -> str | None:
        """SIGKILL to one of those that live; kinds are drawn alike."""
        by_kind: dict[str, list[Target]] = {}
        for target in self._targets(process):
            by_kind.setdefault(target.kind, []).append(target)
        if not by_kind:
            return None
        kind = self._draw.choice(sorted(by_kind))
        try:
            self._draw.choice(by_kind[kind]).kill()
        except (psutil.Error, subprocess.CalledProcessError):
            return None
        return kind

    def _targets(self, process: "subprocess.Popen[bytes]") -> list[Target]:
        found, living = [], []
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(process.pid)
            living = [parent, *parent.children(recursive=True)]
        if self._part.containers:
            own = _containers(self._out)
            found = [Target("container", lambda name=name: _docker("kill", name)) for name in own]
            living += [each for name in own for each in _inside(name)]
        for each in living:
            with contextlib.suppress(psutil.Error):
                if kind := kind_of(each.cmdline()):
                    found.append(Target(kind, each.kill))
        return found


def _differences(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """By result: what it is and what it should be."""
    return {name: [found.get(name), value] for name, value in expected.items() if found.get(name) != value}


def _containers(workspace: Path) -> list[str]:
    return _docker("ps", "--quiet", "--filter", f"label=lary.owner={workspace}").split()


def _inside(container: str) -> list[psutil.Process]:
    found = []
    with contextlib.suppress(subprocess.CalledProcessError):
        for pid in _docker("top", container, "-o", "pid").split()[1:]:
            with contextlib.suppress(psutil.Error, ValueError):
                found.append(psutil.Process(int(pid)))
    return found


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    os.chdir(REPO)
    main()
