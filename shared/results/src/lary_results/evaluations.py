"""Policies in closed loop: success per task and over a benchmark, and differences of two policies.

They lie below the results, in `evaluate/BENCHMARK/POLICY/TASK.sSEED.FINGERPRINT/evaluation.json`.

An episode that counts as not evaluated (`lary_schema.evaluation`) is in no share. Evaluations stand in one table where
benchmark, simulator and protocol are the same; of two evaluations of one cell the newer one counts, and one that was
made here goes before an imported one.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

from lary_schema.base import ContractError, fingerprint
from lary_schema.evaluation import EVALUATION_FILE, Episode, EpisodeProtocol, EvaluateValues, EvaluationResult
from lary_schema.files import unlisted
from lary_schema.intervals import difference, estimate, wilson

from lary_results.files import FOLDER, import_name, imports

RESAMPLES = 1000


class Rate(NamedTuple):
    """A share of episodes."""

    value: float
    low: float
    high: float
    episodes: int
    """All seeds together."""


@dataclass
class Standing:
    """One policy on one board: the episodes of each task and seed, by state."""

    policy: str
    episodes: dict[str, dict[int, dict[int, Episode]]] = field(default_factory=dict)
    folders: dict[tuple[str, int], Path] = field(default_factory=dict)
    """(task, seed) -> where its result lies."""
    imported: dict[tuple[str, int], str] = field(default_factory=dict)
    """(task, seed) -> the file that it was imported from, where it was."""

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for seeds in self.episodes.values() for seed in seeds})

    def all(self, task: str | None = None) -> list[Episode]:
        """Of one task, or of all."""
        tasks = self.episodes if task is None else {task: self.episodes.get(task, {})}
        return [one for seeds in tasks.values() for states in seeds.values() for one in states.values()]

    def scores(self, tasks: Iterable[str], *, held: bool = False) -> dict[tuple[str, int], list[float]]:
        """(task, state) -> success by seed, where every seed has evaluated it."""
        found = {}
        for task in tasks:
            seeds = [self.episodes.get(task, {}).get(seed, {}) for seed in self.seeds]
            for state in sorted(set(seeds[0]).intersection(*seeds[1:])) if seeds else ():
                row = [states[state] for states in seeds]
                if all(episode.evaluated for episode in row):
                    found[task, state] = [float(one.held is True if held else one.success) for one in row]
        return found

    def rate(self, tasks: Sequence[str], *, held: bool = False) -> Rate | None:
        """Over these tasks; None where nothing is evaluated."""
        rows = self.scores(tasks, held=held)
        if not rows:
            return None
        seeds = len(self.seeds)
        if seeds == 1:
            successes = round(sum(row[0] for row in rows.values()))
            return Rate(successes / len(rows), *wilson(successes, len(rows)), len(rows))
        import numpy as np

        scores = np.array(list(rows.values())).T
        found = estimate(scores, np.arange(len(rows)), resamples=RESAMPLES, seed=0, bounds=(0, 1))
        return Rate(found.value, found.low, found.high, scores.size)

    @property
    def steps(self) -> float | None:
        """Median of the steps to success."""
        steps = [episode.steps for episode in self.all() if episode.success]
        return float(median(steps)) if steps else None

    @property
    def faults(self) -> int:
        """Episodes that failed by the policy's fault: counted as failures."""
        return sum(episode.fault is not None and episode.evaluated for episode in self.all())

    @property
    def not_evaluated(self) -> int:
        return sum(not episode.evaluated for episode in self.all())


@dataclass
class Board:
    """What may stand in one table."""

    benchmark: str
    protocol: EpisodeProtocol
    simulator: str
    """Hash of the simulator's sources."""
    libraries: dict[str, str] = field(default_factory=dict)
    """Versions of what it is made of, where its card names them."""
    renderer: str | None = None
    """What drew the pictures that policies saw; None: none saw any, or they are the same everywhere."""
    standings: dict[str, Standing] = field(default_factory=dict)

    @property
    def tasks(self) -> list[str]:
        return sorted({task for one in self.standings.values() for task in one.episodes})

    def difference(self, a: str, b: str, task: str | None = None) -> "Difference | None":
        """a - b in success, on the initial states that both have; None where there is none."""
        tasks = self.tasks if task is None else [task]
        one, two = (self.standings[name].scores(tasks) for name in (a, b))
        common = sorted(one.keys() & two.keys())
        if not common:
            return None
        import numpy as np

        first, second = (np.array([rows[key] for key in common]).T for rows in (one, two))
        found = difference(first, second, np.arange(len(common)), resamples=RESAMPLES, seed=0, bounds=(-1, 1))
        only_a = sum(sum(one[key]) / len(one[key]) > sum(two[key]) / len(two[key]) for key in common)
        only_b = sum(sum(one[key]) / len(one[key]) < sum(two[key]) / len(two[key]) for key in common)
        return Difference(a, b, task, found.value, found.low, found.high, len(common), only_a, only_b)


@dataclass(frozen=True)
class Difference:
    """Of two policies, paired by initial state."""

    a: str
    b: str
    task: str | None
    value: float
    low: float
    high: float
    states: int
    better: int
    """States on which a succeeds more often."""
    worse: int

    @property
    def verdict(self) -> str:
        if math.isnan(self.low):
            return "one state: no interval"
        if self.low > 0 or self.high < 0:
            return f"{self.a if self.value > 0 else self.b} is better"
        return "no clear difference"


def read_evaluations(results: Path, broken: list[str] | None = None) -> Iterator[tuple[Path, EvaluationResult]]:
    """All that are there, imported ones first, of each the oldest first.

    A file that is none is appended to `broken`, or raised as ContractError.
    """
    above = [results, *imports(results)]
    unread = unlisted(results, 0) or [message for folder in above for message in unlisted(folder / FOLDER, 3)]
    if unread and broken is None:
        raise ContractError(unread[0])
    if broken is not None:
        broken += unread
    inside = f"{FOLDER}/*/*/*/{EVALUATION_FILE}"
    theirs = (path for folder in imports(results) for path in folder.glob(inside))
    for path in (*_by_age(theirs), *_by_age(results.glob(inside))):
        try:
            yield path, EvaluationResult.read(path)
        except ContractError as error:
            if broken is None:
                raise
            broken.append(str(error))


def _by_age(files: Iterable[Path]) -> list[Path]:
    return sorted(files, key=lambda path: (path.stat().st_mtime_ns, str(path)))


def boards(found: Iterable[tuple[Path, EvaluationResult]]) -> list[Board]:
    """By benchmark; of one benchmark, in the order of their protocols' hashes.

    Policies that saw pictures of one renderer stand together, and with them those that saw none.
    """
    groups: dict[tuple[str, str], list[tuple[Path, EvaluationResult]]] = {}
    for path, result in found:
        values = result.values
        world = [values.protocol.model_dump(mode="json"), values.benchmark_code_sha256]
        key = values.benchmark, fingerprint([*world, values.libraries] if values.libraries else world)
        groups.setdefault(key, []).append((path, result))
    return [
        _board([(path, result) for path, result in groups[key] if result.values.renderer in (None, renderer)], renderer)
        for key in sorted(groups)
        for renderer in _renderers(groups[key])
    ]


def _renderers(found: Iterable[tuple[Path, EvaluationResult]]) -> list[str] | list[None]:
    return sorted({one.values.renderer for _, one in found if one.values.renderer}) or [None]


def _board(found: Sequence[tuple[Path, EvaluationResult]], renderer: str | None) -> Board:
    first = found[0][1].values
    board = Board(first.benchmark, first.protocol, first.benchmark_code_sha256, first.libraries, renderer)
    last = {result.values.policy: _identity(result.values) for _, result in found}
    for path, result in found:
        values, cell, origin = result.values, (result.values.task, result.values.seed), imported_from(path)
        # Somebody else's policy of the same name is not the same policy.
        is_other = origin is not None and _identity(values) != last[values.policy]
        name = f"{values.policy} ({origin})" if is_other else values.policy
        standing = board.standings.setdefault(name, Standing(name))
        standing.episodes.setdefault(values.task, {})[values.seed] = {one.state: one for one in result.episodes}
        standing.folders[cell] = path.parent
        standing.imported.pop(cell, None)
        if origin is not None:
            standing.imported[cell] = origin
    return board


def _identity(values: EvaluateValues) -> tuple[object, ...]:
    return values.policy_code_sha256, tuple(sorted(values.weights.items()))


def imported_from(file: Path) -> str | None:
    """The name of the file that an evaluation was imported from; None: it was made here."""
    return import_name(file.parents[4])
