"""What one call of `lary-orch evaluate` requests."""

from dataclasses import dataclass, field
from typing import Literal

from lary_schema.base import ContractError
from lary_schema.cards import BenchmarkCard, TaskCard
from lary_schema.evaluation import LONGEST_CHUNK, EpisodeProtocol


@dataclass(frozen=True)
class Wishes:
    """What of the protocol is wanted otherwise than the benchmark says; None: as it says."""

    horizon: int | None = None
    settle: int | None = None
    first: int = 0
    use: int | None = None
    hold: int = 0

    def protocol(self, card: BenchmarkCard) -> EpisodeProtocol:
        """What the episodes of a benchmark go by. Raises ContractError where no chunk is long enough for it."""
        if (last := self.first + (self.use or 1)) > LONGEST_CHUNK:
            raise ContractError(
                f"--first {self.first} --use {self.use or 1} needs chunks of {last} actions; they have {LONGEST_CHUNK} "
                "at most"
            )
        return EpisodeProtocol(
            horizon=card.horizon if self.horizon is None else self.horizon,
            settle=card.settle if self.settle is None else self.settle,
            first=self.first,
            use=self.use,
            hold=self.hold,
        )


@dataclass(frozen=True)
class Request:
    """Policies x tasks x seeds; every evaluation begins at the same initial states."""

    policies: tuple[str, ...]
    benchmark: str
    tasks: tuple[str, ...] = ()
    """Empty: all of the benchmark's."""
    episodes: int | None = None
    """Of each task and seed: the first so many initial states; None: all that the task has."""
    seeds: tuple[int, ...] = (0,)
    wishes: Wishes = field(default_factory=Wishes)
    recording: str | None = None
    """Policy whose recorded actions `replay` sends."""
    record: bool = True
    """Keep every episode's actions."""
    videos: int = 0
    """Of each policy, at most so many successes and as many failures; they need `record`."""
    again: bool = False
    """Try once more what failed by the policy's fault."""
    act_timeout_s: float = 60
    connect_timeout_s: float = 600
    stall_timeout_s: float = 600
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int | None = None

    def chosen(self, card: BenchmarkCard) -> list[TaskCard]:
        """Raises ContractError for a task that the benchmark does not have."""
        return [card.task(key) for key in self.tasks] if self.tasks else list(card.tasks)

    def states(self, task: TaskCard) -> tuple[int, ...]:
        """Raises ContractError where the task has fewer."""
        wanted = task.states if self.episodes is None else self.episodes
        if wanted > task.states:
            raise ContractError(f"--episodes {wanted}: task {task.key} has {task.states} initial states")
        return tuple(range(wanted))
