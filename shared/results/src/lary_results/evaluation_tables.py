"""Boards of policies for people and programs."""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from lary_schema.base import ContractError, unknown_key
from lary_schema.evaluation import BLIND, SCRIPTED
from lary_schema.printable import finite, json_text
from lary_terminal.tables import Table, show

from lary_results import published_policies
from lary_results.evaluations import Board, Difference, Rate, Standing
from lary_results.notes import IMPORTED

NOTHING = "-"
NO_INTERVAL = "no interval"
ONE_SEED = (
    "[ , ] is the 95 % interval: with one seed Wilson's, with several initial states drawn and seeds nested in them."
)
FAULTY = "faults: the policy's, counted as failures. not evaluated: in no share; the same command tries them again."

PART = "x of y episodes: with several seeds, success is of the initial states alone that every seed has evaluated."


def protocol_text(board: Board) -> str:
    """Everything in which published evaluations differ."""
    protocol = board.protocol
    used = "all of a chunk" if protocol.use is None else f"{protocol.use} of a chunk"
    held = f", held for {protocol.hold}" if protocol.hold else ""
    # What is measured in another simulator stands in a table of its own, which has to look like one.
    steps = f"horizon {protocol.horizon}, settle {protocol.settle}"
    libraries = "".join(f", {name} {version}" for name, version in sorted(board.libraries.items()))
    drawn = f", drawn by {board.renderer}" if board.renderer else ""
    return f"simulator {board.simulator[:8]}{libraries}{drawn}, {steps}, {used} from index {protocol.first}{held}"


def tables(board: Board) -> list[Table]:
    """Policies over the whole benchmark, then by task."""
    ordered = sorted(board.standings.values(), key=lambda one: (-_value(one.rate(board.tasks)), one.policy))
    whole = Table(
        title=f"{board.benchmark}: success ({protocol_text(board)})",
        columns=("policy", "success", "held", "episodes", "tasks", "seeds", "steps", "faults", "not evaluated"),
        rows=[
            *(_row(board, standing) for standing in ordered),
            *((name, *[NOTHING] * 8) for name in _absent(board)),
            *map(_published, published_policies.shown(board).items()),
        ],
        right=frozenset(range(3, 9)),
        notes=(
            *(ONE_SEED, "steps: median of those to success.", FAULTY),
            *_wanted(board),
            *_whole(board),
            *_parts(board),
            *_imported(board),
            *published_policies.notes(board),
        ),
    )
    names = [one.policy for one in ordered]
    rows = [(task, *(_rate_text(one.rate([task])) + _mark(one, task) for one in ordered)) for task in board.tasks]
    return [whole, Table(f"{board.benchmark}: success by task", ("task", *names), rows)]


def _mark(standing: Standing, task: str | None = None) -> str:
    """Whether some of its episodes were made elsewhere, on a task or on any."""
    return IMPORTED if any(task in (None, one) for one, _ in standing.imported) else ""


def _imported(board: Board) -> Iterator[str]:
    """Whose episodes are not of this machine."""
    for file in sorted({file for one in board.standings.values() for file in one.imported.values()}):
        names = [name for name, one in sorted(board.standings.items()) if file in one.imported.values()]
        yield f"{IMPORTED} imported from {file}, made elsewhere: {', '.join(names)}"


def _absent(board: Board) -> list[str]:
    """Baselines that nobody has evaluated: a success without them says little, so their rows are there."""
    return [name for name in BLIND if name not in board.standings]


def _wanted(board: Board) -> Iterator[str]:
    if names := _absent(board):
        has = " (where the benchmark has one)" if SCRIPTED in names else ""
        yield (
            f"Baselines that are not evaluated here: {', '.join(names)}{has}. The same command with "
            f"-m {','.join(names)} adds them."
        )


def _whole(board: Board) -> list[str]:
    baselines = [name for name in BLIND if name in board.standings]
    parts = board.protocol.first or board.protocol.use is not None
    return [f"{', '.join(baselines)}: what a baseline sends is done whole."] if baselines and parts else []


def _parts(board: Board) -> list[str]:
    return [PART] if any(_is_part(one, one.rate(board.tasks)) for one in board.standings.values()) else []


def _value(rate: Rate | None) -> float:
    return -1.0 if rate is None else rate.value


def _row(board: Board, standing: Standing) -> tuple[str, ...]:
    rate = standing.rate(board.tasks)
    held = standing.rate(board.tasks, held=True) if board.protocol.hold else None
    return (
        standing.policy,
        _rate_text(rate) + _mark(standing),
        _rate_text(held),
        _episodes(standing, rate),
        str(len(standing.episodes)),
        str(len(standing.seeds)),
        NOTHING if standing.steps is None else f"{standing.steps:g}",
        str(standing.faults),
        str(standing.not_evaluated),
    )


def _is_part(standing: Standing, rate: Rate | None) -> bool:
    """Whether episodes that were evaluated are not in the share."""
    return rate is not None and rate.episodes + standing.not_evaluated < len(standing.all())


def _episodes(standing: Standing, rate: Rate | None) -> str:
    there = len(standing.all())
    return f"{rate.episodes} of {there}" if rate is not None and _is_part(standing, rate) else str(there)


def _published(row: tuple[str, float]) -> tuple[str, ...]:
    """A paper's figure, with the digits that it prints."""
    policy, value = row
    return (f"{policy} (published)", f"{value:.1f}", *[NOTHING] * 7)


def _rate_text(rate: Rate | None) -> str:
    if rate is None:
        return NOTHING
    return f"{100 * rate.value:.1f} {_interval_text(rate.low, rate.high)}"


def _interval_text(low: float, high: float, sign: str = "") -> str:
    """In percent. Of a single initial state with several seeds there is none."""
    return NO_INTERVAL if math.isnan(low) else f"[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def paired_table(found: Sequence[tuple[Board, Difference]], a: str, b: str) -> Table:
    """Differences in percentage points. Where a benchmark has several tables, a number says of which each row is."""
    names = _told_apart([board for board, _ in found])
    rows = [
        (
            names[id(board)],
            made.task or "all tasks",
            f"{100 * made.value:+.1f}",
            _interval_text(made.low, made.high, "+"),
            made.verdict,
            str(made.states),
            f"{made.better}, {made.worse}",
        )
        for board, made in found
    ]
    return Table(
        title=f"a: {a}, b: {b}",
        columns=("benchmark", "task", "a - b", "95 % interval", "", "states", "a, b better on"),
        rows=rows,
        right=frozenset({2, 5}),
        keys=frozenset({0, 1}),
        notes=(
            "Success in percentage points, paired by initial state; with several seeds, their spread is in it.",
            *(f"{names[id(board)]}: {protocol_text(board)}." for board, made in found if made.task is None),
            *dict.fromkeys(note for board, _ in found for note in _imported(board)),
        ),
    )


def _told_apart(found: Sequence[Board]) -> dict[int, str]:
    """id -> the benchmark's key, with a number where there are several boards of it."""
    own: dict[str, list[int]] = {}
    for board in {id(board): board for board in found}.values():
        own.setdefault(board.benchmark, []).append(id(board))
    return {
        one: benchmark if len(ids) == 1 else f"{benchmark} {number}"
        for benchmark, ids in own.items()
        for number, one in enumerate(ids, 1)
    }


def pairs(found: Sequence[Board], a: str, b: str) -> list[tuple[Board, Difference]]:
    """Over all tasks, then by task. Raises ContractError where no board has both."""
    made = [(board, one) for board in found if {a, b} <= board.standings.keys() for one in _differences(board, a, b)]
    if not made:
        names = sorted({name for board in found for name in board.standings})
        for name in (a, b):
            if name not in names:
                raise unknown_key("evaluated policy", name, names or ("none",))
        raise ContractError(f"{a} and {b} have no initial state of one benchmark, simulator and protocol in common")
    return made


def _differences(board: Board, a: str, b: str) -> Iterator[Difference]:
    for task in (None, *board.tasks):
        if (made := board.difference(a, b, task)) is not None:
            yield made


# --- for programs -----------------------------------------------------------------------------


def as_json(found: Sequence[Board]) -> list[dict[str, Any]]:
    """Shares are 0 to 1; null where nothing is evaluated."""
    return [
        {
            **_board_json(board),
            "policies": [_entry(board, one) for one in sorted(board.standings.values(), key=lambda one: one.policy)],
            "baselines_missing": _absent(board),
            "published": published_policies.as_json(board),
        }
        for board in found
    ]


def _board_json(board: Board) -> dict[str, Any]:
    """What distinguishes it from others."""
    return {
        "benchmark": board.benchmark,
        "protocol": board.protocol.model_dump(mode="json"),
        "simulator_code_sha256": board.simulator,
        "libraries": board.libraries,
        "renderer": board.renderer,
    }


def _entry(board: Board, standing: Standing) -> dict[str, Any]:
    tasks = {task: _rate_json(standing.rate([task])) for task in sorted(standing.episodes)}
    return {
        "policy": standing.policy,
        "seeds": standing.seeds,
        "success": _rate_json(standing.rate(board.tasks)),
        "held": _rate_json(standing.rate(board.tasks, held=True)) if board.protocol.hold else None,
        "steps": standing.steps,
        "faults": standing.faults,
        "not_evaluated": standing.not_evaluated,
        "tasks": tasks,
        "imported": sorted(set(standing.imported.values())),
    }


def _rate_json(rate: Rate | None) -> dict[str, Any] | None:
    return None if rate is None else finite(rate._asdict())


def paired_json(found: Sequence[tuple[Board, Difference]]) -> list[dict[str, Any]]:
    """Differences as shares."""
    fields = ("a", "b", "task", "value", "low", "high", "states", "better", "worse", "verdict")
    return [finite(_board_json(board) | {name: getattr(made, name) for name in fields}) for board, made in found]


def print_evaluations(
    found: Sequence[Board], pair: tuple[str, str] | None = None, out: TextIO | None = None, *, json: bool = False
) -> None:
    """Tables, or one JSON document."""
    stream = sys.stdout if out is None else out
    made = None if pair is None else pairs(found, *pair)
    if json:
        stream.write(json_text(as_json(found) if made is None else paired_json(made), indent=2) + "\n")
        return
    shown = (
        [table for board in found for table in tables(board)]
        if made is None or pair is None
        else [paired_table(made, *pair)]
    )
    for table in shown:
        show(table, stream)
        stream.write("\n")
