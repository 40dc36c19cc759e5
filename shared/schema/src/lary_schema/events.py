"""Events: JSON lines on a worker's stdout. Everything else it has to say goes to stderr."""

import json
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from lary_schema.base import Document

Reason = Literal[
    "missing_file",
    "bad_row",
    "bad_path",
    "bad_indices",
    "decode_error",
    "preprocess_error",
    "timeout",
    "killed",
    "out_of_memory",
    "io_error",
    "crashed",
    "encode_error",
    "non_finite",
    "overflow",
    "no_latent",
]
"""Why a row failed. What each one means: `docs/media.md`."""
TRANSIENT: frozenset[Reason] = frozenset({"timeout", "killed", "out_of_memory", "io_error"})
"""Reasons that are not the row's own: the same row may have a latent at another time, so they are never final."""


class _Event(Document):
    job: str
    time: float = Field(default_factory=time.time)
    """Seconds since the epoch."""


class Started(_Event):
    event: Literal["started"] = "started"
    total: int
    """Rows (extract) or steps (probe) that this attempt will do."""
    skipped: int = 0
    """Rows that an earlier attempt had done."""
    unit: Literal["rows", "steps", "episodes"] = "rows"
    device: str
    pid: int


class Split(Document):
    """Seconds of an extraction, by what the main loop waited for or did."""

    decode: float = 0
    encode: float = 0
    write: float = 0


class Progress(_Event):
    event: Literal["progress"] = "progress"
    done: int
    total: int
    failed: int = 0
    per_second: float
    seconds: Split = Split()
    note: str = ""
    """Of a probe: the epoch and its scores."""


class RowFailed(_Event):
    event: Literal["row_failed"] = "row_failed"
    row: int
    reason: Reason
    detail: str


class ShardDone(_Event):
    event: Literal["shard_done"] = "shard_done"
    shard: int
    ok: int
    failed: int
    clamped: int = 0


class BatchHalved(_Event):
    event: Literal["batch_halved"] = "batch_halved"
    batch_size: int
    """The size from now on."""


class Measured(_Event):
    """Numbers of a training at one step."""

    event: Literal["measured"] = "measured"
    step: int
    split: str
    values: dict[str, float | None]


class Saved(_Event):
    """A state from which a killed training goes on."""

    event: Literal["saved"] = "saved"
    step: int
    path: str
    """Below the out mount."""
    seconds: float


class Alive(_Event):
    """There was no other event for a while, and the work goes on."""

    event: Literal["alive"] = "alive"
    doing: str
    seconds: float
    """Since that began."""


class Warned(_Event):
    event: Literal["warning"] = "warning"
    message: str


class Finished(_Event):
    event: Literal["finished"] = "finished"
    done: int
    failed: int = 0
    clamped: int = 0
    per_second: float
    seconds: Split = Split()
    batch_size: int | None = None
    """The smallest that was used."""
    peak_memory_bytes: int | None = None
    """Of the accelerator."""


class Idle(_Event):
    """The job is done, exit code 0, and the process waits for another one (`more_jobs`)."""

    event: Literal["idle"] = "idle"


class Failed(_Event):
    """The last line of a command that exits non-zero by its own decision."""

    event: Literal["error"] = "error"
    code: int
    message: str


Event = Annotated[
    Started
    | Progress
    | RowFailed
    | ShardDone
    | BatchHalved
    | Measured
    | Saved
    | Alive
    | Warned
    | Finished
    | Idle
    | Failed,
    Field(discriminator="event"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
Emit = Callable[[_Event], None]


def to_line(event: _Event) -> str:
    """One JSON line, newline included."""
    return json.dumps(event.model_dump(mode="json"), ensure_ascii=False) + "\n"


def from_line(line: str) -> Any | None:
    """The event of a stdout line, or None where the line is no event (a library's chatter)."""
    if not line.lstrip().startswith("{"):
        return None
    try:
        return EVENT.validate_json(line)
    except ValidationError:
        return None
