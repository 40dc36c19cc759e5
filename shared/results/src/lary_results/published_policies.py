"""Published success on LIBERO (`source`, `read` in published_policies.json), and whether it may stand with ours."""

import json
import string
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lary_results.evaluations import Board

FILE = Path(__file__).with_name("published_policies.json")
UNKNOWN = "its horizon, settle steps, use of chunks and number of episodes are not known here"
SIMILAR = "other networks and training data, pictures of another size, fixtures drawn anew for each episode"
"""What differs from any run here even where the protocol is the same."""


@cache
def papers() -> list[dict[str, Any]]:
    """Tables of papers; shares are percent, as printed."""
    found: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["papers"]
    return found


def figures(paper: Mapping[str, Any], benchmark: str) -> dict[str, float]:
    """Policy -> success in percent."""
    rows: Mapping[str, Mapping[str, float]] = paper["policies"]
    return {policy: row[benchmark] for policy, row in rows.items() if benchmark in row}


def reasons(paper: Mapping[str, Any], board: Board) -> tuple[str, ...]:
    """Why the paper's figures may not stand with this board; none where the protocol is the same."""
    return tuple(_reasons(paper["protocol"], board))


def _reasons(theirs: Mapping[str, Any] | None, board: Board) -> Iterator[str]:
    if theirs is None:
        yield UNKNOWN
        return
    ours = board.protocol
    pairs = {
        "horizon": (ours.horizon, theirs["horizon"][board.benchmark]),
        "number of settle steps": (ours.settle, theirs["settle"]),
        "first action of a chunk": (ours.first, theirs["first"]),
        "number of actions done of a chunk": ("all" if ours.use is None else ours.use, theirs["use"]),
    }
    yield from (f"another {name}: {here} here, {there} there" for name, (here, there) in pairs.items() if here != there)
    if not any(_complete(board, name, theirs) for name in board.standings):
        yield f"no policy here has {theirs['episodes']} episodes of each of {theirs['tasks']} tasks"


def _complete(board: Board, policy: str, theirs: Mapping[str, Any]) -> bool:
    """Whether one seed has evaluated as many episodes of as many tasks."""
    tasks = board.standings[policy].episodes
    done = [
        any(sum(one.evaluated for one in states.values()) >= theirs["episodes"] for states in seeds.values())
        for seeds in tasks.values()
    ]
    return bool(sum(done) >= theirs["tasks"])


def published(board: Board) -> list[tuple[Mapping[str, Any], dict[str, float], tuple[str, ...]]]:
    """Each paper with figures of this benchmark, these, and the reasons against showing them."""
    found = ((paper, figures(paper, board.benchmark)) for paper in papers())
    return [(paper, rows, reasons(paper, board)) for paper, rows in found if rows]


def shown(board: Board) -> dict[str, float]:
    """Policy -> success in percent, of the papers whose protocol is the board's."""
    return {policy: value for _, rows, against in published(board) if not against for policy, value in rows.items()}


def notes(board: Board) -> tuple[str, ...]:
    """Where figures are from, and by letters why others are not shown."""
    found = published(board)
    texts = dict.fromkeys(reason for *_, against in found for reason in against)
    letters = dict(zip(texts, string.ascii_lowercase, strict=False))
    sources = [f"published: {paper['source']}; {SIMILAR}." for paper, _, against in found if not against]
    apart = [
        f"{paper['title']} ({', '.join(map(letters.__getitem__, against))})" for paper, _, against in found if against
    ]
    if apart:
        sources.append(f"Letters say why published figures are not shown with ours: {'; '.join(apart)}.")
    return (*sources, *(f"  {letter}  {text}" for text, letter in letters.items()))


def as_json(board: Board) -> list[dict[str, Any]]:
    """All of them, with the reasons against a comparison; shares are 0 to 1."""
    return [
        {
            "paper": paper["title"],
            "source": paper["source"],
            "page": paper["page"],
            "success": {policy: round(value / 100, 4) for policy, value in rows.items()},
            "not_comparable": list(against),
        }
        for paper, rows, against in published(board)
    ]
