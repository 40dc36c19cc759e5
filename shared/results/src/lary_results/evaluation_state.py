"""How far the evaluations of a run are, from their results and from the journals of those that are under way."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lary_schema.base import ContractError
from lary_schema.evaluation import EPISODES_FILE, Episode, EvaluationResult, journal_episodes
from lary_schema.runs import PlanFile, RunEvaluation
from lary_terminal.tables import Table

_NAMES = ("benchmark", "policy", "task", "seed")


def evaluation_state(entry: RunEvaluation) -> dict[str, Any]:
    """As JSON values. `done`: its result has every planned episode, and each of them was evaluated."""
    published, episodes = _episodes(entry)
    evaluated = [episode for episode in episodes if episode.evaluated]
    return {
        **entry.model_dump(include={"id", *_NAMES}),
        "episodes": len(entry.states),
        "episodes_done": len(evaluated),
        "succeeded": sum(episode.success for episode in evaluated),
        "faults": sum(episode.fault is not None for episode in evaluated),
        "not_evaluated": len(episodes) - len(evaluated),
        "done": published and len(evaluated) == len(entry.states),
    }


def _episodes(entry: RunEvaluation) -> tuple[bool, list[Episode]]:
    """Whether they are published as a result, and those of the planned episodes that have ended."""
    file, wanted = Path(entry.result), set(entry.states)
    try:
        result = EvaluationResult.read(file)
        found = [episode for episode in result.episodes if episode.state in wanted]
        if result.fingerprint == entry.fingerprint and len(found) == len(wanted):
            return True, found
    except ContractError:  # there is none yet, or an older version's
        pass
    journal = journal_episodes(file.with_name(EPISODES_FILE), entry.fingerprint)
    return False, [episode for episode in journal if episode.state in wanted]


def failed_episodes(plan: PlanFile) -> Iterator[dict[str, Any]]:
    """Every episode that ended by a fault, the policy's or another one."""
    for entry in plan.evaluations:
        for episode in _episodes(entry)[1]:
            if episode.fault is not None:
                named = entry.model_dump(include=set(_NAMES))
                yield {**named, **episode.model_dump(include={"state", "fault", "detail"})}


# --- for people -------------------------------------------------------------------------------


def evaluation_table(states: Sequence[dict[str, Any]], run: str) -> Table:
    """`evaluation_state` of each, a line each."""
    columns = (*_NAMES, "state", "episodes", "succeeded", "faults", "not evaluated")
    return Table(
        f"run {run}: evaluations",
        columns,
        [_cells(state) for state in states],
        right=frozenset(range(5, len(columns))),
        keys=frozenset(range(len(_NAMES))),
    )


def _cells(state: dict[str, Any]) -> tuple[str, ...]:
    named = tuple(str(state[name]) for name in _NAMES)
    counts = tuple(str(state[name]) for name in ("succeeded", "faults", "not_evaluated"))
    return (*named, "done" if state["done"] else "to do", f"{state['episodes_done']}/{state['episodes']}", *counts)


def episode_table(rows: Sequence[dict[str, Any]]) -> Table:
    """`failed_episodes`, a line each."""
    columns = (*_NAMES, "state", "fault", "detail")
    cells = [tuple(str(row[column]) for column in columns) for row in rows]
    return Table(f"{len(rows)} episodes with a fault", columns, cells, right=frozenset({4}), keys=frozenset(range(5)))
