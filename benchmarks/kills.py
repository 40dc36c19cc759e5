"""Kills processes at random moments until the work has ended, and compares what it left with undisturbed work.

    python benchmarks/kills.py --part processes --kills 80 --save
    python benchmarks/kills.py --part containers --kills 40 --save      needs an engine and built images

One round: a fresh folder, the part's commands, each again and again until it exits with 0, and at random moments
SIGKILL to one of its processes: the orchestrator, a worker, a decode process (also one that just starts), a probe, a
simulator, a policy, a data tool, uv, or a whole container; processes inside containers are found by their containers'
labels. Where a part names kinds, it is first drawn which is next, so that each is killed about as often; then one is
waited for, and killed at a random moment of its life, whose length an undisturbed run has shown. Then every file is
compared byte for byte, every failed row of a store is counted as lost, and the scores must be equal. The parts are in
`kill_parts.py`. Needs psutil.
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

import docker
import psutil
from common import child, report
from docker.errors import APIError
from kill_parts import CONTAINER, ORCHESTRATOR, PARTS, Part, failed_rows, files, kind_of, scores

REPO = Path(__file__).parents[1]
PARTIAL = ".partial/"
"""In the path of what a killed writer leaves next to a store; nobody reads it, and `lary-orch clean` removes it."""
LONGEST_S = 900
"""A command that takes longer, undisturbed, hangs."""
LOOK_S = 0.1
UNEVEN = 2
PATIENCE = 0.3
"""Of a command's duration: so much later than in an undisturbed run one is waited for; then another kind is drawn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), default="processes")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument(
        "--of-a-command", type=int, default=8, metavar="N",
        help="at most so many of one command in a round, so that all of a part's commands get theirs [8]",
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=24 * 60, help="no round begins later")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    part, draw = PARTS[given.part], random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="lary-kills-") as scratch:
        killer = Killer(part, Path(scratch), draw, given.kills, given.of_a_command)
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
    name: object
    """The same at every look."""
    kill: Callable[[], object]


class Life(NamedTuple):
    """Of the processes of a kind, in one undisturbed command."""

    first: float
    """Seconds after the command's start."""
    seconds: float
    """Of the longest."""


class Turns:
    """Which kind is next, in one attempt at a command."""

    def __init__(
        self, kinds: tuple[str, ...], lives: dict[str, Life], draw: random.Random, kills: Counter[str]
    ) -> None:
        self.lives, self._draw, self._kills = lives, draw, kills
        self._kinds = [kind for kind in kinds if kind in lives]
        self._late: set[str] = set()
        self._began = time.monotonic()

    def next(self) -> str:
        """One of those that were killed no more than `UNEVEN` times oftener than another, and may still come."""
        left = [kind for kind in self._kinds if kind not in self._late] or [ORCHESTRATOR]
        least = min(self._kills[kind] for kind in left)
        return self._draw.choice([kind for kind in left if self._kills[kind] <= least + UNEVEN])

    def is_late(self, kind: str) -> bool:
        """Whether one of the kind will not come any more; then it is not drawn again."""
        expected = self.lives[kind].first + PATIENCE * self.lives[ORCHESTRATOR].seconds
        if late := time.monotonic() - self._began > expected:
            self._late.add(kind)
        return late


class Killer:
    """Runs a part's commands undisturbed once, then against kills. All rounds have the same folder: files name it."""

    def __init__(self, part: Part, scratch: Path, draw: random.Random, most: int, of_a_command: int) -> None:
        self.kills: Counter[str] = Counter()
        self._part, self._draw, self._most, self._of_a_command = part, draw, most, of_a_command
        self._engine = docker.from_env() if part.containers else None
        self._inputs, self._out, self._output = scratch / "inputs", scratch / "work", scratch / "output.txt"
        self._lives: list[dict[str, Life]] = []
        """Of each command, by kind."""
        self._expected: dict[str, str] = {}
        self._scores: dict[str, Any] = {}

    def prepare(self) -> None:
        """Make the inputs, and what undisturbed commands leave."""
        self._part.prepare(self._inputs)
        for command in self._commands():
            with self._start(command) as process:
                self._lives.append(self._watched(process))
            if process.returncode:
                sys.exit(f"exit {process.returncode}, undisturbed: {command}\n{self._output.read_text()[-2000:]}")
        self._expected, self._scores = files(self._out, self._part.results), scores(self._out)
        shutil.rmtree(self._out)

    def round(self) -> dict[str, Any]:
        """All commands once, to their end; how their results compare."""
        before = self.kills.copy()
        for command, lives in zip(self._commands(), self._lives, strict=True):
            self._run_killed(command, lives)
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

    def _watched(self, process: "subprocess.Popen[bytes]") -> dict[str, Life]:
        """Until it ends: when those of each kind live."""
        seen: dict[tuple[str, object], list[float]] = {}
        began = time.monotonic()
        while process.poll() is None:
            for target in self._targets(process):
                seen.setdefault((target.kind, target.name), []).append(time.monotonic() - began)
            time.sleep(LOOK_S)
        lives = {ORCHESTRATOR: Life(0, time.monotonic() - began)}
        for (kind, _), moments in seen.items():
            first, seconds = lives.get(kind, Life(moments[0], LOOK_S))
            lives[kind] = Life(min(first, moments[0]), max(seconds, moments[-1] - moments[0]))
        return lives

    def _run_killed(self, command: list[str], lives: dict[str, Life]) -> None:
        """Run until it exits with 0; it is left alone once the drawn number of kills was made."""
        code, until = None, min(self._most, self.kills.total() + self._draw.randint(1, self._of_a_command))
        while code != 0:
            before = self.kills.total()
            with self._start(command) as process:
                turns = Turns(self._part.kinds or tuple(lives), lives, self._draw, self.kills)
                while process.poll() is None and self.kills.total() < until:
                    self._kill_one(process, turns)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LONGEST_S)
                code = process.poll()
            if code is None:
                sys.exit(f"hangs: {command}")
            if code and self.kills.total() == before:
                sys.exit(f"exit {code}, undisturbed: {command}\n{self._output.read_text()[-2000:]}")

    def _kill_one(self, process: "subprocess.Popen[bytes]", turns: "Turns") -> None:
        """SIGKILL to one of the kind that is next, unless it ends before."""
        kind = turns.next()
        while not self._living(process, kind):
            if process.poll() is not None or turns.is_late(kind):
                return
            time.sleep(LOOK_S)
        # Many moments are early: processes start, locks are taken, the first results are written.
        time.sleep(self._draw.choice([0.1, 0.5, 1.0]) * self._draw.random() * turns.lives[kind].seconds)
        if process.poll() is None and (found := self._living(process, kind)):
            with contextlib.suppress(psutil.Error, APIError):
                self._draw.choice(found).kill()
                self.kills[kind] += 1

    def _living(self, process: "subprocess.Popen[bytes]", kind: str) -> list[Target]:
        return [target for target in self._targets(process) if target.kind == kind]

    @contextlib.contextmanager
    def _start(self, command: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
        with (
            self._output.open("ab") as output,
            child(command, stdout=output, stderr=output, start_new_session=True) as process,
        ):
            try:
                yield process
            except BaseException:
                # Nobody is left to go on with what an orchestrator that is killed now leaves.
                for container in self._containers():
                    container.remove(force=True)
                raise

    def _containers(self) -> list[Any]:
        if self._engine is None:
            return []
        label = {"label": f"lary.owner={self._out}"}
        return list(self._engine.containers.list(filters=label, ignore_removed=True))

    def _targets(self, process: "subprocess.Popen[bytes]") -> list[Target]:
        found, living = [], []
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(process.pid)
            living = [parent, *parent.children(recursive=True)]
        for container in self._containers():
            found.append(Target(CONTAINER, container.id, container.kill))
            living += _inside(container)
        for each in living:
            with contextlib.suppress(psutil.Error):
                if kind := kind_of(each.cmdline()):
                    found.append(Target(kind, each.pid, each.kill))
        return found


def _differences(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """By result: what it is and what it should be."""
    return {name: [found.get(name), value] for name, value in expected.items() if found.get(name) != value}


def _inside(container: Any) -> list[psutil.Process]:
    """Its processes, as this machine numbers them; none where it has just ended."""
    found = []
    with contextlib.suppress(APIError):
        for (pid,) in container.top(ps_args="-o pid")["Processes"] or ():
            with contextlib.suppress(psutil.Error):
                found.append(psutil.Process(int(pid)))
    return found


if __name__ == "__main__":
    os.chdir(REPO)
    main()
