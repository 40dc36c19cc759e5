"""Boards: results side by side that one recipe made, and what they may be compared by."""

import math
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

from lary_results.averages import Average, averages
from lary_results.baselines import BASELINE_MODELS
from lary_results.common_rows import CommonRows, CommonScore, common_rows
from lary_results.comparing import REASONS
from lary_results.published import published
from lary_results.recipes import RecipeOf, made_by, recipe_title
from lary_results.scores import Column, Score, is_nuisance, newest, rank

MAX_FAILED = 0.05
"""Share of rows without a latent, of train or of the evaluated ones, above which a score is not compared."""
Line = tuple[str, str]
"""Model, and variant with unusual settings."""
Titles = Mapping[str, str]
"""Titles of protocols, by key; a protocol may be without one (a YAML file of the user's, not named now)."""
NO_TITLES: Titles = MappingProxyType({})


@dataclass(frozen=True)
class Reference:
    """A line below the table: a baseline, or what shuffled targets give."""

    name: str
    variant: str
    values: dict[Column, float]


@dataclass(frozen=True)
class Board:
    """All newest scores of one protocol that one recipe made, and how they are laid out."""

    protocol: str
    kept: tuple[Score, ...]
    older: tuple[Score, ...] = ()
    """Scores that newer ones of the same cell replaced."""
    name: str | None = None
    """The protocol's title."""
    recipe: str | None = None
    """Of a board next to the protocol's main one: what its recipe differs in."""
    key: str = ""
    """Unique among the boards of one page."""
    max_failed: float = MAX_FAILED

    @cached_property
    def title(self) -> str:
        if self.recipe is not None:
            return f"protocol {self.protocol}, {self.recipe}"
        return f"protocol {self.protocol}" + (f": {self.name}" if self.name else "")

    @cached_property
    def columns(self) -> list[Column]:
        return sorted({score.column for score in self.kept}, key=lambda c: (c[2] != "top1", is_nuisance(c), c))

    @cached_property
    def columns_of(self) -> dict[str, list[Column]]:
        """By dataset, in the order of the columns."""
        return _grouped(self.columns, lambda column: column[0])

    @cached_property
    def ours(self) -> list[Score]:
        """All but controls and models that are baselines."""
        return [score for score in self.kept if _is_model(score)]

    @cached_property
    def of_column(self) -> dict[Column, list[Score]]:
        """All of `kept`, controls and baselines too."""
        return _grouped(self.kept, lambda score: score.column)

    @cached_property
    def of_dataset(self) -> dict[str, list[Score]]:
        return _grouped(self.kept, lambda score: score.dataset)

    @cached_property
    def _ours_of(self) -> dict[Column, list[Score]]:
        return _grouped(self.ours, lambda score: score.column)

    @cached_property
    def _cells(self) -> dict[tuple[Line, Column], Score]:
        return {(score.line, score.column): score for score in self.ours}

    def cell(self, line: Line, column: Column) -> Score | None:
        return self._cells.get((line, column))

    @cached_property
    def lines(self) -> list[Line]:
        """Best first, by the first column; a model without a score there comes after those with one.

        No model is better for what it shows of a nuisance: such columns do not count.
        """
        return sorted({score.line for score in self.ours}, key=self._order)

    def _order(self, line: Line) -> list[Any]:
        found = [self.cell(line, column) for column in self.columns if not is_nuisance(column)]
        return [*(math.inf if score is None else self.rank(score) for score in found), *line]

    def rank(self, score: Score) -> float:
        """Lower is better: by the common rows where there are some; what is not compared comes last."""
        found = self.common.get(score.column)
        if self.is_refused(score) or (found is not None and found.scores and score.line in found.without):
            return math.inf
        common = self.on_common_rows(score)
        return score.rank if common is None else rank(score.metric, common.value)

    def best(self, column: Column) -> Score | None:
        """The best score of a column, of those that are compared; no score of a nuisance is."""
        return self._best.get(column)

    @cached_property
    def _best(self) -> dict[Column, Score]:
        first = {
            column: min((self.rank(score), score.line, nth) for nth, score in enumerate(scores))
            for column, scores in self._ours_of.items()
            if not is_nuisance(column)
        }
        return {c: self._ours_of[c][nth] for c, (rank, _, nth) in first.items() if not math.isinf(rank)}

    # --- rows -------------------------------------------------------------------------------

    @cached_property
    def refused(self) -> list[Score]:
        """Scores that are not compared: too many of their rows have no latent."""
        return [score for score in self.ours if self.is_refused(score)]

    def is_refused(self, score: Score) -> bool:
        return _is_model(score) and score.failed_share > self.max_failed

    @cached_property
    def common(self) -> dict[Column, CommonRows]:
        """Of the columns whose models are not all scored on the same rows."""
        comparable = [s for s in self.ours if not (self.is_refused(s) or self.other_rows(s))]
        found = {c: common_rows(scores) for c, scores in _grouped(comparable, lambda score: score.column).items()}
        return {column: rows for column, rows in found.items() if rows is not None}

    def on_common_rows(self, score: Score) -> CommonScore | None:
        found = self.common.get(score.column)
        if found is None or score.control != "none" or self.cell(score.line, score.column) is not score:
            return None
        return found.scores.get(score.line)

    @cached_property
    def on_common(self) -> list[tuple[Score, CommonScore]]:
        """Every score that has one on common rows."""
        return [(score, common) for score in self.ours if (common := self.on_common_rows(score)) is not None]

    def other_rows(self, score: Score) -> bool:
        """Whether a score is from another CSV than the newest one of its column, or of other labels or actions."""
        newest = self._newest[score.column]
        return score.metadata != newest.metadata or self.other_targets(score)

    def other_targets(self, score: Score) -> bool:
        """Whether a score's files changed under the CSV. Not seen where rows failed: `--paired` compares row by row."""
        newest = self._newest[score.column]
        whole = not any(s.failed or s.train_failed or s.targets is None for s in (score, newest))
        return whole and score.metadata == newest.metadata and score.targets != newest.targets

    @cached_property
    def _newest(self) -> dict[Column, Score]:
        """The newest score of each column: scores come newest first."""
        return {score.column: score for score in reversed(self.kept)}

    # --- published scores -------------------------------------------------------------------

    @cached_property
    def averages(self) -> dict[Line, dict[str, Average]]:
        """By line and title."""
        scores = _grouped(self.ours, lambda score: score.line)
        return {line: {a.title: a for a in averages(scores[line])} for line in self.lines}

    @cached_property
    def average_columns(self) -> list[tuple[str, str]]:
        """Title and metric of the averages that at least one model is complete for."""
        return list(dict.fromkeys((a.title, a.metric) for found in self.averages.values() for a in found.values()))

    @cached_property
    def letters(self) -> dict[str, str]:
        """Reason -> its footnote's letter, of those that keep a published score away."""
        used = {reason for score in self.ours if score.printed is not None for reason in score.differences}
        return dict(zip((name for name in REASONS if name in used), string.ascii_lowercase, strict=False))

    def letters_of(self, score: Score) -> str:
        """Letters of the reasons why no published score is shown with this one."""
        return "" if score.printed is None else ",".join(self.letters[name] for name in score.differences)

    def average_letters(self, average: Average, model: str) -> str:
        if published(average.metric, model, average.name) is None:
            return ""
        return ",".join(self.letters[name] for name in REASONS if name in average.differences)

    # --- below the table --------------------------------------------------------------------

    @cached_property
    def baselines(self) -> list[Reference]:
        """What any score has to beat: what needs no latent, models that are baselines, classes learned by chance."""
        any_of = {column: self._newest[column] for column in self.columns}
        chance = {c: s.chance for c, s in any_of.items() if s.metric == "top1" and s.chance is not None}
        made = [Reference("chance", "", chance)] if chance else []
        made.append(Reference("most frequent class, mean action", "", {c: s.floor for c, s in any_of.items()}))
        models = [s for s in self.kept if s.model in BASELINE_MODELS and s.control == "none"]
        made += _references("{}", models)
        return made + _references("shuffled control of {}", [s for s in self.kept if s.measures == "chance"])

    @cached_property
    def without_baseline_models(self) -> list[Column]:
        """Regressions of image pairs that no model which is a baseline was probed on; the usual probe's alone."""
        there = {score.column for score in self.kept if score.model in BASELINE_MODELS}
        wanted = {score.column for score in self.ours if (score.input, score.probe) == ("image", "")}
        return [column for column in self.columns if column in wanted - there and column[2] == "mse"]

    @cached_property
    def overfitting(self) -> list[Reference]:
        """Regressions of shuffled targets: worse than the mean action by construction, so no baseline."""
        return _references("overfitting of {} (shuffled)", [s for s in self.kept if s.measures == "overfitting"])


_Item = TypeVar("_Item")
_Key = TypeVar("_Key")


def _grouped(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    """In the order of the first of each."""
    found: dict[_Key, list[_Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def _is_model(score: Score) -> bool:
    """Whether a score is of a model that competes: no control, no baseline."""
    return score.control == "none" and score.model not in BASELINE_MODELS


def _references(title: str, scores: Sequence[Score]) -> list[Reference]:
    """A line each."""
    values: dict[Line, dict[Column, float]] = {}
    for score in scores:
        values.setdefault(score.line, {}).setdefault(score.column, score.value)
    return [Reference(title.format(line[0]), line[1], found) for line, found in sorted(values.items())]


def boards(scores: Sequence[Score], titles: Titles = NO_TITLES, max_failed: float = MAX_FAILED) -> list[Board]:
    """One per protocol, by name; each recipe that differs from most scores' one has a board of its own after it."""
    kept = newest(scores)
    shown = set(map(id, kept))
    older = _grouped((score for score in scores if id(score) not in shown), lambda score: score.protocol)
    protocols = _grouped(kept, lambda score: score.protocol)
    return [
        board
        for protocol, found in sorted(protocols.items())
        for board in _of_protocol(protocol, found, older.get(protocol, []), titles, max_failed)
    ]


def _of_protocol(
    protocol: str, kept: list[Score], replaced: list[Score], titles: Titles, max_failed: float
) -> Iterator[Board]:
    main = _main_recipes(kept)
    recipes = {made_by(score): score.recipe for score in kept}
    groups = _grouped(kept, lambda score: None if made_by(score) in main else made_by(score))
    board_of = {score.cell: own for own, found in groups.items() for score in found}
    older = _grouped(replaced, lambda score: board_of[score.cell])
    for own in sorted(groups, key=lambda of: (of is not None, str(of))):
        found, before = tuple(groups[own]), tuple(older.get(own, ()))
        if own is None:
            yield Board(protocol, found, before, titles.get(protocol), key=protocol, max_failed=max_failed)
        else:
            usual = next(recipes[of] for of in main if of[:2] == own[:2])
            key = f"{protocol}-{own.metric}-{own.short}" + ("" if own.head in (None, "mlp") else f"-{own.head}")
            yield Board(protocol, found, before, None, recipe_title(own, recipes[own], usual), key, max_failed)


def _main_recipes(kept: Sequence[Score]) -> set[RecipeOf]:
    """Of each metric and head the recipe of most cells, the newest of equals; recorded ones before others."""
    counts = Counter(made_by(score) for score in kept)
    order = {of: (of.sha256 is not None, count, -nth) for nth, (of, count) in enumerate(counts.items())}
    kinds = {of[:2] for of in counts}
    return {max((of for of in counts if of[:2] == kind), key=order.__getitem__) for kind in kinds}
