"""What is requested, and the plan that comes of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from lary_schema.base import ContractError, ExitCode
from lary_schema.cards import Head, ProtocolCard, Reads, Target
from lary_schema.jobs import IMPORTED, Tracker
from lary_schema.store_state import StoreState
from lary_schema.values import ExtractionSettings

from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.jobs import Job


@dataclass(frozen=True)
class Probing:
    """What a request says of its probes besides the protocol."""

    seeds: tuple[int, ...] = ()
    """Instead of the protocol's."""
    head: Head | None = None
    """Regression head instead of the protocol's."""
    target: Target | None = None
    """Regression target instead of the protocol's."""
    reads: tuple[Reads, ...] = ("actions",)
    """What is predicted, by a probe each: the card's task, its nuisance."""
    allow_unknown_robot: bool = False
    ram_bytes: int = 8 << 30
    """Latents above this are read by batch."""
    trackers: tuple[Tracker, ...] = ()
    processes: int = 1
    """Processes, and so slots, that share a probe."""


@dataclass(frozen=True)
class Request:
    """What one call of `run` or `plan` requests."""

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    protocol: ProtocolCard
    splits: tuple[str, ...] = ()
    """Evaluated splits; empty: all that the dataset's card names. The train split is always needed."""
    variants: tuple[str, ...] = ()
    """Empty: each model's default."""
    settings: ExtractionSettings = field(default_factory=ExtractionSettings)
    batch_size: int | None = None
    """None: the model card's."""
    workers: int = 2
    """Decode processes of one extraction."""
    row_timeout_s: float = 60
    stall_timeout_s: float = 600
    max_failed: float = 0.01
    retry_failed: bool | None = None
    """Whether shards with failed rows are written again; None: those whose cause was not the rows' own."""
    mixed: bool = False
    """Go on with stores that another image, other libraries or another device began."""
    device: Literal["cpu", "cuda"] = "cpu"
    slots: int = 1
    """How many jobs run at once: the partitions of one store."""
    threads: int | None = None
    control: bool = True
    """Probe each dataset once more with shuffled targets, on the first model; and models that are baselines."""
    probing: Probing = field(default_factory=Probing)
    shard_rows: int | None = None
    """Rows per shard of new stores; None: by size (see `lary_schema.store.layout`)."""

    @property
    def extracts(self) -> bool:
        """Whether a variant is requested that an image makes."""
        return not self.variants or any(variant != IMPORTED for variant in self.variants)

    def on(self, slots: Sequence[Slot]) -> Self:
        """The same request for these slots. Raises ContractError where a probe wants more of them."""
        if self.probing.processes > len(slots):
            raise ContractError(
                f"--probe-processes {self.probing.processes}: jobs have {len(slots)} slots here (GPUs, or --cpu-slots)"
            )
        return replace(
            self, device="cuda" if slots[0].device.kind == "cuda" else "cpu", slots=len(slots), threads=slots[0].cpus
        )


@dataclass(frozen=True)
class Problem:
    """A part of the request that cannot be planned. The run does the rest, then fails with this code."""

    what: str
    error: ContractError

    @property
    def code(self) -> ExitCode:
        return self.error.exit_code

    def __str__(self) -> str:
        return f"{self.what}: {self.error}"


def error_lines(problems: Iterable[Problem]) -> list[str]:
    """Each cause once, with all that it stops."""
    stopped: dict[str, list[str]] = {}
    for problem in problems:
        stopped.setdefault(str(problem.error), []).append(problem.what)
    return [f"error: {', '.join(dict.fromkeys(what))}: {cause}" for cause, what in stopped.items()]


@dataclass(frozen=True)
class Plan:
    """All that a run consists of, done or not."""

    run: str
    """Protocol key and the beginning of a hash over all stores and probes."""
    protocol: str
    """The protocol's key."""
    stores: tuple[StoreState, ...]
    trainings: tuple[Job, ...]
    """All of them, those that are done among them."""
    extracts: tuple[Job, ...]
    """Of the missing shards: a finished store has no job."""
    probes: tuple[Job, ...]
    problems: tuple[Problem, ...]

    @property
    def todo(self) -> tuple[Job, ...]:
        """The jobs to launch, in order."""
        return self._open(self.trainings) + self.extracts + self._open(self.probes)

    @staticmethod
    def _open(jobs: tuple[Job, ...]) -> tuple[Job, ...]:
        return tuple(job for job in jobs if job.result is None)

    @property
    def missing_bytes(self) -> int:
        """What the extractions will add to the latents volume, about."""
        return sum(store.missing_bytes for store in self.stores)

    @property
    def exit_code(self) -> int:
        """0, or the code of the first problem: what the run ends with when all its jobs succeed."""
        return int(self.problems[0].code) if self.problems else 0
