"""What `results` prints, for people or as JSON for programs: the tables, `--paired`, `--against` and `--diff`."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from lary_schema import commands
from lary_schema.base import ContractError
from lary_schema.printable import json_text, printable_lines
from lary_terminal.tables import Table, show

from lary_results import export, leaderboard
from lary_results.against import compare, comparison_json, comparison_table
from lary_results.board import Titles, boards
from lary_results.diff import difference, difference_json, difference_table
from lary_results.evaluations import read_evaluations
from lary_results.files import nothing_found, read_results
from lary_results.paired import paired_json, paired_table, pairs
from lary_results.scores import Score, collect


def read_scores(results: Path, run: str, protocol: str | None) -> tuple[list[Score], bool]:
    """Those of one run and one protocol, or of all; False: some file is no result, which is said on stderr.

    Raises ContractError where a run or a protocol that is asked for has none.
    """
    broken: list[str] = []
    found = [score for score in collect(read_results(results, run, broken)) if protocol in (None, score.protocol)]
    for message in broken:
        sys.stderr.write(printable_lines(f"error: {message}") + "\n")
    if not found and (run != "*" or protocol is not None):
        raise ContractError(nothing_found(results, run, protocol))
    return found, not broken


def nothing_yet(results: Path) -> str:
    """Where there are no scores of probes: what makes some, or what there is in their place."""
    if next(read_evaluations(results, []), None) is not None:
        return f"no results of probes in {results}; `{commands.command('evaluate', '--results')}` shows its evaluations"
    return nothing_found(results, "*", None)


def print_scores(
    scores: Sequence[Score], titles: Titles, max_failed: float, out: TextIO, *, as_json: bool, as_csv: bool
) -> None:
    """A table for each protocol, JSON or CSV."""
    if as_json:
        out.write(json_text(export.as_json(scores, max_failed), indent=2) + "\n")
    elif as_csv:
        out.write(export.as_csv(scores, max_failed))
    else:
        leaderboard.show_all(scores, out, titles, max_failed)


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
