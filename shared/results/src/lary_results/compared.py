"""Comparisons printed for people or as JSON for programs: `results --paired`, `--against` and `--diff`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from lary_schema.printable import json_text
from lary_terminal.tables import Table, show

from lary_results.against import compare, comparison_json, comparison_table
from lary_results.board import boards
from lary_results.diff import difference, difference_json, difference_table
from lary_results.paired import paired_json, paired_table, pairs
from lary_results.scores import Score


def print_paired(
    scores: Sequence[Score], models: tuple[str, str], max_failed: float, out: TextIO, *, as_json: bool
) -> None:
    """Is the first model better than the second? Raises ContractError where they have nothing in common."""
    made = pairs(boards(scores, max_failed=max_failed), *models)
    _print(lambda: paired_table(made, *models), lambda: paired_json(made), out, as_json=as_json)


def print_comparison(scores: Sequence[Score], against: Path, tolerance: float, out: TextIO, *, as_json: bool) -> bool:
    """With an earlier `--json` or published tables; whether every score is within the tolerance.

    Raises ContractError for a file that is neither.
    """
    made = compare(scores, against, tolerance)
    _print(lambda: comparison_table(made), lambda: comparison_json(made), out, as_json=as_json)
    return not made.outside


def print_difference(results: Path, runs: tuple[str, str], out: TextIO, *, as_json: bool) -> None:
    """Of two runs, the second minus the first. Raises ContractError for a run without results."""
    made = difference(results, *runs)
    _print(lambda: difference_table(made), lambda: difference_json(made), out, as_json=as_json)


def _print(table: Callable[[], Table], document: Callable[[], Any], out: TextIO, *, as_json: bool) -> None:
    if as_json:
        out.write(json_text(document(), indent=2) + "\n")
    else:
        show(table(), out)
