"""Our scores against a file of others: the paper's tables, or an earlier `results --json`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lary_schema import commands
from lary_schema.base import ContractError, read_json
from lary_schema.printable import finite
from lary_terminal.tables import Table

from lary_results.comparing import REASONS
from lary_results.published import TASKS, published
from lary_results.recipes import recipe_differences
from lary_results.scores import Score, newest

ROUNDING = 1e-9
"""Keeps 0.28 - 0.27 within 0.01."""
OTHER_CSV = "another CSV: theirs is of other rows"
SHOWN_APART = 30


@dataclass(frozen=True)
class Compared:
    """A cell that both have; values in our units (top1 in 0..1, MSE)."""

    score: Score
    theirs: float
    outside: bool

    @property
    def difference(self) -> float:
        return self.score.value - self.theirs


@dataclass(frozen=True)
class Comparison:
    source: Path
    tolerance: float
    compared: tuple[Compared, ...]
    apart: tuple[tuple[Score, tuple[str, ...]], ...]
    """Cells that both have and that may not be compared, with why."""
    absent: tuple[str, ...]
    """Cells of theirs that are not here; the paper's are not listed."""

    @property
    def outside(self) -> list[Compared]:
        return [cell for cell in self.compared if cell.outside]


class Reference(Protocol):
    """Somebody's scores."""

    def value(self, score: Score) -> float | None:
        """Theirs for the same cell."""

    def reasons(self, score: Score) -> tuple[str, ...]:
        """Why that cell may not be compared."""

    def absent(self, scores: Sequence[Score]) -> tuple[str, ...]:
        """What is theirs alone."""


def compare(scores: Sequence[Score], file: Path, tolerance: float) -> Comparison:
    """Every cell but controls. Raises ContractError for a file of neither format, and where no cell can be compared."""
    reference = read_reference(file)
    ours = [score for score in newest(scores) if score.control == "none"]
    both = [(score, theirs) for score in ours if (theirs := reference.value(score)) is not None]
    apart = tuple((score, why) for score, _ in both if (why := reference.reasons(score)))
    compared = tuple(_compared(s, theirs, tolerance) for s, theirs in both if not reference.reasons(s))
    made = Comparison(file, tolerance, compared, apart, reference.absent(ours))
    if not compared:
        raise ContractError(f"{file}: none of the {len(ours)} scores here can be compared with it\n{_apart_text(made)}")
    return made


def _compared(score: Score, theirs: float, tolerance: float) -> Compared:
    # Written so that a NaN is outside.
    return Compared(score, theirs, outside=not abs(score.value - theirs) <= tolerance + ROUNDING)


# --- the two formats --------------------------------------------------------------------------


def read_reference(file: Path) -> Reference:
    """Raises ContractError naming the file, and the entry that is wrong."""
    content = read_json(file)
    if isinstance(content, dict) and any(task in content for task in TASKS.values()):
        _check_tables(file, content)
        return _Tables(content)
    if isinstance(content, list):
        return _saved(file, content)
    raise ContractError(
        f"{file}: neither published tables (an object with {' or '.join(TASKS.values())}) nor a list that "
        f"`{commands.command('results', '--json')}` printed"
    )


@dataclass(frozen=True)
class _Tables:
    content: Mapping[str, Any]

    def value(self, score: Score) -> float | None:
        return published(score.metric, score.model, score.dataset, self.content)

    def reasons(self, score: Score) -> tuple[str, ...]:
        return tuple(REASONS[name] for name in score.differences)

    def absent(self, scores: Sequence[Score]) -> tuple[str, ...]:
        return ()


def _check_tables(file: Path, content: Mapping[str, Any]) -> None:
    for task in TASKS.values():
        for model, row in _object(content.get(task, {}), f"{file}: {task}").items():
            for dataset, value in _object(row, f"{file}: {task}.{model}").items():
                if dataset != "paradigm" and not _is_number(value):
                    raise ContractError(f"{file}: {task}.{model}.{dataset}: {value!r} is no number")


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ContractError(f"{where}: not an object")
    return value


@dataclass(frozen=True)
class _Saved:
    entries: Mapping[tuple[str, ...], Sequence[Mapping[str, Any]]]
    """By identity: an entry for each recipe and setting."""

    def value(self, score: Score) -> float | None:
        entry = self._entry(score)
        if entry is None:
            return None
        return math.nan if entry["value"] is None else float(entry["value"])

    def reasons(self, score: Score) -> tuple[str, ...]:
        entry = self._entry(score)
        return () if entry is None else tuple(_reasons(score, entry))

    def _entry(self, score: Score) -> Mapping[str, Any] | None:
        """The one that may be compared, where there is one."""
        found = self.entries.get(score.identity, ())
        return min(found, key=lambda entry: len(list(_reasons(score, entry))), default=None)

    def absent(self, scores: Sequence[Score]) -> tuple[str, ...]:
        here = {score.identity for score in scores}
        theirs = [identity for identity, entries in self.entries.items() if entries[0]["control"] == "none"]
        return tuple(" ".join(filter(None, cell)) for cell in theirs if cell not in here)


def _reasons(score: Score, entry: Mapping[str, Any]) -> Iterator[str]:
    if tuple(entry["metadata"]) != score.metadata:
        yield OTHER_CSV
    for name, theirs in (("recipe", entry.get("recipe")), ("settings", entry.get("settings"))):
        changed = recipe_differences(getattr(score, name), theirs, "theirs")
        if changed:
            yield f"other {name}: {'; '.join(changed)}"


IDENTITY = ("protocol", "model", "variant", "dataset", "split", "metric", "probe", "control")
"""Fields of `Score.identity`, in its order."""


def _saved(file: Path, content: Sequence[Any]) -> _Saved:
    entries: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for nth, entry in enumerate(content):
        entries.setdefault(_identity_of(entry, f"{file}: entry {nth}"), []).append(entry)
    return _Saved(entries)


def _identity_of(entry: Any, where: str) -> tuple[str, ...]:
    found = _object(entry, where)
    missing = [name for name in (*IDENTITY, "value", "metadata") if name not in found]
    if missing:
        raise ContractError(
            f"{where}: no {', '.join(missing)}; save the file by `{commands.command('results', '--json')}`"
        )
    well = found["value"] is None or _is_number(found["value"])
    if not well or not isinstance(found["metadata"], list):
        raise ContractError(f"{where}: value is to be a number, and metadata a list of hashes")
    for name in ("recipe", "settings"):
        if found.get(name) is not None:
            _object(found[name], f"{where}: {name}")
    return tuple(str(found[name]) for name in IDENTITY)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- for people and programs ------------------------------------------------------------------


def comparison_table(made: Comparison) -> Table:
    """One line a compared cell, those outside first; below, what was not compared and why."""
    order = sorted(made.compared, key=lambda cell: (not cell.outside, -abs(cell.difference)))
    return Table(
        title=f"against {made.source}, tolerance {made.tolerance:g} (top-1 as a share, MSE)",
        columns=("cell", "ours", "theirs", "difference", ""),
        rows=[_line(cell) for cell in order],
        right=frozenset({1, 2, 3}),
        notes=(f"{len(made.outside)} of {len(made.compared)} cells are outside", *_apart_text(made).splitlines()),
    )


def _line(cell: Compared) -> tuple[str, ...]:
    ours, theirs, difference = (f"{x:.4f}" for x in (cell.score.value, cell.theirs, cell.difference))
    return (_named(cell.score), ours, theirs, difference, "OUTSIDE" if cell.outside else "within")


def _named(score: Score) -> str:
    return f"{score.named} {score.metric}, {score.protocol}"


def _apart_text(made: Comparison) -> str:
    lines = [f"not compared: {_named(score)}: {'; '.join(why)}" for score, why in made.apart]
    lines += [f"not here: {name}" for name in made.absent]
    more = [f"and {len(lines) - SHOWN_APART} more; --json lists them"] if len(lines) > SHOWN_APART else []
    return "\n".join(lines[:SHOWN_APART] + more)


def comparison_json(made: Comparison) -> dict[str, Any]:
    """The same; a value that is no finite number is null."""
    document = {
        "against": str(made.source),
        "tolerance": made.tolerance,
        "outside": len(made.outside),
        "compared": [
            _identity(c.score)
            | {"ours": c.score.value, "theirs": c.theirs, "difference": c.difference, "outside": c.outside}
            for c in made.compared
        ],
        "not_compared": [_identity(score) | {"reasons": list(why)} for score, why in made.apart],
        "not_here": list(made.absent),
    }
    found: dict[str, Any] = finite(document)
    return found


def _identity(score: Score) -> dict[str, Any]:
    more = {"settings": score.settings, "recipe_sha256": score.recipe_sha256}
    return dict(zip(IDENTITY, score.identity, strict=True)) | more
