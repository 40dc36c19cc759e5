"""Two runs side by side: the scores of cells that both have, and what made them different."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lary_schema.base import ContractError
from lary_schema.printable import finite
from lary_schema.results import ProbeResult
from lary_terminal.tables import Table

from lary_results.files import nothing_found, read_results
from lary_results.recipes import recipe_differences
from lary_results.scores import Score, collect, number


class Made(NamedTuple):
    """A score and the result that it stands in."""

    score: Score
    result: ProbeResult


@dataclass(frozen=True)
class Pair:
    """One cell of both runs; values in our units (top-1 in 0..1, MSE)."""

    first: Made
    second: Made

    @property
    def difference(self) -> float:
        return self.second.score.value - self.first.score.value

    @property
    def reasons(self) -> tuple[str, ...]:
        """What differs behind the two; nothing: they were made alike."""
        return tuple(_differing(self.first, self.second))


@dataclass(frozen=True)
class Difference:
    runs: tuple[str, str]
    pairs: tuple[Pair, ...]
    alone: tuple[tuple[str, Score], ...]
    """(run, score) of cells that one of them does not have."""


def difference(results: Path, first: str, second: str) -> Difference:
    """Every cell of two runs, controls too. Raises ContractError where a run has no results, or none in common."""
    ours, theirs = (_cells(results, run) for run in (first, second))
    pairs = tuple(Pair(ours[key], theirs[key]) for key in ours if key in theirs)
    alone = [(first, made.score) for key, made in ours.items() if key not in theirs]
    alone += [(second, made.score) for key, made in theirs.items() if key not in ours]
    if not pairs:
        raise ContractError(f"{first} and {second} have no cell in common: {'; '.join(_alone_text(alone))}")
    return Difference((first, second), pairs, tuple(alone))


def _cells(results: Path, run: str) -> dict[tuple[str, ...], Made]:
    """Whatever the protocol: two runs of one protocol and of two are compared alike. The newest of each cell."""
    found = list(read_results(results, run))
    if not found or run == "*":
        raise ContractError(nothing_found(results, run, None))
    made = [Made(score, result) for path, result in found for score in collect([(path, result)])]
    return {_key(one.score): one for one in reversed(made)}


def _key(score: Score) -> tuple[str, ...]:
    return (*score.line, *score.column, score.control)


def _differing(first: Made, second: Made) -> Iterator[str]:
    (a, one), (b, two) = first, second
    if a.protocol != b.protocol:
        yield f"protocol {a.protocol}, {b.protocol}"
    yield from (f"recipe: {text}" for text in recipe_differences(a.recipe, b.recipe, "there"))
    pairs = {
        "seeds": (a.probe_seeds, b.probe_seeds),
        "CSV": (a.metadata, b.metadata),
        "labels or actions": (a.targets, b.targets),
        "weights": _of_stores(one, two, "weights"),
        "model code": _of_stores(one, two, "code_sha256"),
        "image": _of_stores(one, two, "image_digest"),
        "probe code": (one.probe_code_sha256, two.probe_code_sha256),
        "probe device": (one.device, two.device),
    }
    yield from (name for name, (ours, theirs) in pairs.items() if ours != theirs)
    if a.latents != b.latents and not any(
        pairs[name][0] != pairs[name][1] for name in ("CSV", "weights", "model code")
    ):
        yield "latents: other settings or libraries"
    if (a.failed, a.train_failed) != (b.failed, b.train_failed):
        yield f"failed rows {a.failed + a.train_failed}, {b.failed + b.train_failed}"
    yield from _libraries(one.libraries, two.libraries)


def _of_stores(one: ProbeResult, two: ProbeResult, name: str) -> tuple[Any, Any]:
    ours, theirs = ([getattr(store, name) for store in result.stores] for result in (one, two))
    return ours, theirs


def _libraries(ours: dict[str, str], theirs: dict[str, str]) -> Iterator[str]:
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            yield f"probe's {name} {ours.get(name, '-')}, {theirs.get(name, '-')}"


def difference_table(made: Difference) -> Table:
    """The largest difference first, of each metric."""
    order = sorted(made.pairs, key=lambda pair: (pair.first.score.metric != "top1", -abs(pair.difference)))
    shown = {score.metric for _, score in made.alone} | {pair.first.score.metric for pair in made.pairs}
    units = "top-1 in percent, MSE" if len(shown) > 1 else "top-1 in percent" if "top1" in shown else "MSE"
    return Table(
        f"{made.runs[1]} minus {made.runs[0]} ({units})",
        ("model", "variant", "dataset", "control", *made.runs, "difference", "what differs"),
        [_line(pair) for pair in order],
        right=frozenset({4, 5, 6}),
        keys=frozenset({0, 1, 2}),
        notes=tuple(_alone_text(made.alone)),
    )


def _line(pair: Pair) -> tuple[str, ...]:
    score, other = pair.first.score, pair.second.score
    values = (number(score.metric, score.value), number(score.metric, other.value))
    signed = number(score.metric, pair.difference)
    plus = "+" if pair.difference > 0 else ""
    column = f"{score.dataset}/{score.split}" + (f" ({score.probe})" if score.probe else "")
    return (*score.line, column, score.control, *values, f"{plus}{signed}", "; ".join(pair.reasons) or "nothing")


def _alone_text(alone: Iterable[tuple[str, Score]]) -> list[str]:
    cells: dict[str, list[str]] = {}
    for run, score in alone:
        cells.setdefault(run, []).append(score.named + ("" if score.control == "none" else f", {score.control}"))
    return [f"only in {run}: {', '.join(names)}" for run, names in cells.items()]


def difference_json(made: Difference) -> dict[str, Any]:
    """The same; a value that is no finite number is null."""
    document = {
        "runs": list(made.runs),
        "cells": [_cell_json(pair) for pair in made.pairs],
        "alone": [{"run": run, "cell": _names(score)} for run, score in made.alone],
    }
    found: dict[str, Any] = finite(document)
    return found


def _cell_json(pair: Pair) -> dict[str, Any]:
    values: Sequence[float] = [made.score.value for made in (pair.first, pair.second)]
    more = {"values": list(values), "difference": pair.difference, "differs": list(pair.reasons)}
    return _names(pair.first.score) | more


def _names(score: Score) -> dict[str, str]:
    names = ("model", "variant", "dataset", "split", "metric", "probe", "control")
    return dict(zip(names, _key(score), strict=True))
