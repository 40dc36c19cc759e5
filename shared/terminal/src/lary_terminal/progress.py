"""What is seen of a running plan: live bars on a terminal, plain lines elsewhere, JSON lines on request."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from lary_schema.events import Alive, BatchHalved, Event, Failed, Finished, Progress, Split, Started, Warned
from lary_schema.printable import json_text, printable, printable_lines
from lary_schema.terminal import terminal_of
from rich.console import Console, RenderableType
from rich.progress import BarColumn, ProgressColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

PLAIN_EVERY_S = 10.0
"""At most one line per job in this time where no terminal shows bars."""
WIDE, BAR, NARROW_BAR = 120, 20, 6
"""Columns: below the first, bars give way to the text next to them."""
MARKS = {"done": ("done", "green"), "failed": ("FAILED", "red"), "skipped": ("skipped", "yellow")}
STOPPED = ("stopped", "yellow")


class Task(Protocol):
    """A job, as far as it is shown."""

    @property
    def id(self) -> str: ...

    @property
    def verb(self) -> str: ...

    @property
    def title(self) -> str:
        """What is done to what."""


class Device(Protocol):
    """What a job computes on."""

    @property
    def name(self) -> str: ...


class Slot(Protocol):
    """Where a job runs."""

    @property
    def device(self) -> Device: ...


class Outcome(Protocol):
    """How a job ended."""

    @property
    def task(self) -> Task: ...

    @property
    def state(self) -> str: ...

    @property
    def code(self) -> int: ...

    @property
    def message(self) -> str: ...

    @property
    def attempts(self) -> int: ...


@contextmanager
def watching(jobs: int, out: TextIO, *, as_json: bool) -> Iterator["JsonLines | LiveBars | PlainLines"]:
    """The watch that fits `out`; it is closed at the end, and then the terminal is as before."""
    console = Console(file=terminal_of(out), highlight=False)
    if as_json:
        yield JsonLines(out)
    elif console.is_terminal and not console.is_dumb_terminal:
        with LiveBars(console, jobs) as watch:
            yield watch
    else:
        yield PlainLines(out)


def amounts(event: Progress | Finished, unit: str) -> str:
    """Rate, failures and where the time went: `213 rows/s, 2 failed (decode 71 %, encode 20 %, write 9 %)`."""
    failed = f", {event.failed} failed" if event.failed else ""
    rate = f"{event.per_second:,.0f}" if event.per_second >= 100 else f"{event.per_second:.3g}"
    return f"{rate} {unit}/s{failed}{split(event.seconds)}"


def split(seconds: Split) -> str:
    """Shares of the main loop's time; empty where nothing is known (probes)."""
    parts = seconds.model_dump()
    total = sum(parts.values())
    if total <= 0:
        return ""
    return " (" + ", ".join(f"{name} {100 * value / total:.0f} %" for name, value in parts.items()) + ")"


def notice(event: Event) -> str | None:
    """The sentence of an event that people should see at once, or None."""
    if isinstance(event, Warned):
        return event.message
    if isinstance(event, BatchHalved):
        return f"out of memory; going on with batches of {event.batch_size}"
    return None


def going_on(event: Alive) -> str:
    """What a job does that has no other event for a while: `training, step 1 of 100, for 90 s so far`."""
    return event.doing + (f", for {event.seconds:,.0f} s so far" if event.seconds >= PLAIN_EVERY_S else "")


def closing(outcome: Outcome, finished: Finished | None, unit: str) -> str:
    """How a job ended, in one line."""
    if outcome.state != "done":
        again = f" after {outcome.attempts} attempts" if outcome.attempts > 1 else ""
        return f"{outcome.message.splitlines()[0] if outcome.message else ''}{again}"
    return f"{finished.done:,} {unit}, {amounts(finished, unit)}" if finished else ""


class _Memory:
    """What the last events of each job said."""

    def __init__(self) -> None:
        self.unit: dict[str, str] = {}
        self.finished: dict[str, Finished] = {}

    def keep(self, event: Event) -> None:
        if isinstance(event, Started):
            self.unit[event.job] = event.unit
        elif isinstance(event, Finished):
            self.finished[event.job] = event

    def closing(self, outcome: Outcome) -> str:
        job = outcome.task.id
        return closing(outcome, self.finished.get(job), self.unit.get(job, "rows"))


class JsonLines:
    """The jobs' events as they are, and `warning` and `error` events for what the scheduler itself saw."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def launched(self, job: Task, slot: Slot, attempt: int) -> None:
        """The job's own `started` event says it."""

    def event(self, job: Task, event: Event) -> None:
        # A job's last word is repeated by `ended`, with the code that the scheduler decides by.
        if not isinstance(event, Failed):
            self._write(event)

    def relaunch(self, job: Task, code: int, message: str) -> None:
        self._write(Warned(job=job.id, message=f"{message}; relaunched"))

    def ended(self, outcome: Outcome) -> None:
        if outcome.state != "done":
            message = f"{outcome.state}: {outcome.message}"
            self._write(Failed(job=outcome.task.id, code=outcome.code, message=message))

    def note(self, text: str) -> None:
        self._line({"event": "note", "time": time.time(), "message": text})

    def _write(self, event: Event) -> None:
        self._line(event.model_dump(mode="json"))

    def _line(self, content: dict[str, Any]) -> None:
        self._out.write(json_text(content) + "\n")
        self._out.flush()


class PlainLines:
    """Few lines: start, every ten seconds, and end of each job."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._begin = time.monotonic()
        self._memory = _Memory()
        self._last: dict[str, float] = {}

    def launched(self, job: Task, slot: Slot, attempt: int) -> None:
        self._last[job.id] = time.monotonic()
        self._notify(job, f"started on {slot.device.name}" + (f", attempt {attempt}" if attempt > 1 else ""))

    def event(self, job: Task, event: Event) -> None:
        self._memory.keep(event)
        if text := notice(event):
            self._notify(job, text)
        if isinstance(event, Alive | Progress) and time.monotonic() - self._last.get(job.id, 0) >= PLAIN_EVERY_S:
            self._last[job.id] = time.monotonic()
            self._notify(job, going_on(event) if isinstance(event, Alive) else self._counted(event))

    def _counted(self, event: Progress) -> str:
        unit = self._memory.unit.get(event.job, "rows")
        return f"{event.done:,}/{event.total:,} {unit}, {amounts(event, unit)} {event.note}".rstrip()

    def relaunch(self, job: Task, code: int, message: str) -> None:
        self._notify(job, f"{message}; starting it again")

    def ended(self, outcome: Outcome) -> None:
        mark, _ = MARKS.get(outcome.state, STOPPED)
        text = self._memory.closing(outcome)
        self._notify(outcome.task, f"{mark}: {text}" if text else mark)

    def note(self, text: str) -> None:
        self._out.write(printable_lines(text) + "\n")
        self._out.flush()

    def _notify(self, job: Task, text: str) -> None:
        self.note(f"[{time.monotonic() - self._begin:5.0f}s] {job.verb:8} {job.title}: {text}")


class _Rate(ProgressColumn):
    """Done of total, rate, and the split of time, as far as the job has said."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))

    def render(self, task: object) -> Text:
        return Text(printable(str(getattr(task, "fields", {}).get("said", ""))), style="dim")


class _Bars(Bars):
    """The first task, the sum, stands below the others."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table([*self.tasks[1:], *self.tasks[:1]])


class LiveBars:
    """A bar per running job and one for all; a line stays for every job that ended."""

    def __init__(self, console: Console, jobs: int) -> None:
        self._console = console
        self._memory = _Memory()
        self._bars = _Bars(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", min_width=24)),
            BarColumn(bar_width=BAR if console.width >= WIDE else NARROW_BAR),
            TextColumn("{task.fields[count]}", justify="right", table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            _Rate(),
            console=console,
            transient=True,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._all = self._bars.add_task("[bold]all jobs", total=jobs, count=f"0/{jobs}", said="")
        self._states: list[str] = []

    def __enter__(self) -> "LiveBars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def launched(self, job: Task, slot: Slot, attempt: int) -> None:
        said = f"starting on {slot.device.name}" + (f", attempt {attempt}" if attempt > 1 else "")
        self._tasks[job.id] = self._bars.add_task(_name(job), total=None, count="", said=said)

    def event(self, job: Task, event: Event) -> None:
        self._memory.keep(event)
        task, unit = self._tasks[job.id], self._memory.unit.get(job.id, "rows")
        if text := notice(event):
            self._line(job, "warning", "yellow", text)
        if isinstance(event, Started):
            skipped = f"{event.skipped:,} done before" if event.skipped else ""
            self._bars.update(task, total=event.total, count=f"0/{event.total:,}", said=skipped)
        elif isinstance(event, Progress):
            said = f"{amounts(event, unit)} {event.note}"
            count = f"{event.done:,}/{event.total:,}"
            self._bars.update(task, completed=event.done, total=event.total, count=count, said=said)
        elif isinstance(event, Alive):
            self._bars.update(task, said=going_on(event))

    def relaunch(self, job: Task, code: int, message: str) -> None:
        self._bars.remove_task(self._tasks.pop(job.id))
        self._line(job, "again", "yellow", message)

    def ended(self, outcome: Outcome) -> None:
        if outcome.task.id in self._tasks:
            self._bars.remove_task(self._tasks.pop(outcome.task.id))
        mark, colour = MARKS.get(outcome.state, STOPPED)
        self._line(outcome.task, mark, colour, self._memory.closing(outcome))
        self._states.append(outcome.state)
        self._show_sum()

    def note(self, text: str) -> None:
        self._console.print(Text(printable_lines(text), style="bold"))

    def _show_sum(self) -> None:
        ended, total = len(self._states), int(self._bars.tasks[0].total or 0)
        bad = ended - self._states.count("done")
        said = f"{bad} not done" if bad else ""
        self._bars.update(self._all, completed=ended, count=f"{ended}/{total}", said=said)

    def _line(self, job: Task, mark: str, colour: str, text: str) -> None:
        prefix = Text(f"{mark:8}", style=colour)
        self._console.print(prefix + Text(f"{job.verb:8} {job.title}  ") + Text(printable_lines(text), style="dim"))


def _name(job: Task) -> str:
    return f"{job.verb:8} {job.title}"
