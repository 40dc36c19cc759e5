"""The image under examination, and how jobs are run on it."""

import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from lary_orch.catalog.source import ImageSource
from lary_orch.runtimes.base import LocalRuntime, Running
from lary_orch.runtimes.describe import describe, parse_card
from lary_orch.runtimes.devices import Device, Slot
from lary_orch.runtimes.jobs import JOB_FILE, Job, Output, Prepared
from lary_orch.weights.index import WeightSet, find_weights
from lary_schema.base import ContractError, Document, WeightsError
from lary_schema.cards import Actions, BenchmarkCard, ImageCard, Mode, ModelCard, PolicyCard
from lary_schema.events import Event, Failed, from_line
from lary_schema.jobs import ExtractJob
from lary_schema.linked import linked_folder
from lary_schema.mounts import Mounts
from lary_schema.presence import SplitSource
from lary_schema.trained import CHECKPOINT
from lary_schema.training import Recipe
from lary_schema.values import ExtractionSettings, make_values, new_layout

from lary_conformance.fixture import METADATA, SHARD_ROWS, make_rows
from lary_conformance.training_rows import actions_of, with_labels

RUN = "conformance"
NO_STORE = (Output("latents", "none.zarr", ""),)
"""What a job may write whose document names no store."""
LIMIT_S = 900.0
"""For one job: an image that hangs fails its check, and not the command."""

StopAt = Callable[[Event], bool]


@dataclass(frozen=True)
class Feed:
    """One way of feeding one model: what a store is made for."""

    key: str
    card: ModelCard
    mode: Mode
    variant: str

    def __str__(self) -> str:
        return f"{self.key} {self.mode} {self.variant}"

    @property
    def frames(self) -> int:
        """Frames of a row: those of a pair (which a model of actions does not see), or as many as the input has."""
        return 2 if self.mode != "video" else self.card.spec(self.mode, self.variant).input.shape[0]

    @property
    def actions(self) -> Actions | None:
        """The chunks that it is given; None: it is given frames."""
        return actions_of(*self.card.spec(self.mode, self.variant).input.shape) if self.mode == "actions" else None


@dataclass(frozen=True)
class Ran:
    """How a job went."""

    code: int
    events: tuple[Event, ...]
    strays: tuple[str, ...]
    """Lines on stdout that are no events."""
    log: Path

    @property
    def error(self) -> str:
        """The job's own `error` event, else the end of its stderr."""
        errors = [event.message for event in self.events if isinstance(event, Failed)]
        return errors[-1] if errors else self.log.read_text(encoding="utf-8", errors="replace").strip()[-500:]


STARTS = "starts.yaml"
"""Next to recipes: which of them go on from the checkpoint of another one."""


class Starts(Document):
    """Content of `STARTS`."""

    starts: dict[str, str]
    """Recipe -> the one whose checkpoint it goes on from."""


@dataclass
class Subject:
    """An image that ran `describe`, and a scratch folder."""

    runtime: LocalRuntime
    prepared: Prepared
    card: ImageCard
    """As the image gives it."""
    folder: Path
    weights: Path
    unknown_user: LocalRuntime | None = None
    """The same runtime under another user; None where the runtime cannot."""
    chosen: tuple[str, ...] = ()
    """Keys of models and policies; empty: all of the image."""
    benchmarks: tuple[BenchmarkCard, ...] = ()
    """What a policy may be tried on: a simulator of one is pretended."""
    recipes: tuple[Recipe, ...] = ()
    """What it is to train."""
    starts: dict[str, str] = field(default_factory=dict)
    """Recipe -> the one whose checkpoint it goes on from."""
    device: Device = field(default_factory=Device)
    python: Path = Path(sys.executable)
    """Draws the rows (see `fixture.make_rows`)."""
    _rows: dict[str, SplitSource] = field(default_factory=dict)
    training_rows: dict[tuple[Mode, int, bool], tuple[SplitSource, SplitSource]] = field(default_factory=dict)
    """With labels, as `trainings.Trial` makes them."""
    trainings: dict[str, Any] = field(default_factory=dict)
    """By recipe, each done once for all checks that need what it leaves (`training.Done`)."""

    @cached_property
    def models(self) -> dict[str, ModelCard]:
        """Resolved cards by key; a family stands for its example."""
        acting = {card.key for card in self.card.policies if card.pattern is None}
        keys = [key for key in self.chosen if key not in acting]
        if not self.chosen:
            keys = [card.example or card.key for card in self.card.models]
        return {key: describe(self.runtime, self.prepared, key, self.folder / "cache") for key in keys}

    @property
    def policies(self) -> list[PolicyCard]:
        """Those that are chosen; a family where none of its keys has to be."""
        return [one for one in self.card.policies if not self.chosen or any(map(one.serves, self.chosen))]

    @cached_property
    def breach_in_isolation(self) -> ContractError | None:
        """What `selftest` fails with under another user, whom no image knows; None where it does not.

        Run once for all checks, since it builds every model. What passes there passes anywhere.
        """
        assert self.unknown_user is not None
        try:
            self.unknown_user.query(self.prepared, "selftest")
        except ContractError as breach:
            return breach
        return None

    def feeds(self) -> Iterator[Feed]:
        """Every model in every mode and variant."""
        for key, card in self.models.items():
            for variant in card.variants:
                for mode in dict.fromkeys([*card.modes, *card.variant_modes.get(variant, {})]):
                    yield Feed(key, card, mode, variant)

    def rows(self, feed: Feed, *, corrupt: bool = False) -> SplitSource:
        size = feed.frames if feed.actions is None else f"{feed.actions.stride}x{feed.actions.dim}"
        name = f"data-{feed.mode}-{size}{'-corrupt' * corrupt}"
        if name not in self._rows:
            self._rows[name] = self._made(feed, self.folder / name, corrupt)
        return self._rows[name]

    def _made(self, feed: Feed, folder: Path, corrupt: bool) -> SplitSource:
        if feed.actions is not None:
            made = make_rows(folder, "image", feed.frames, python=self.python)
            return with_labels(made, "corrupt" if corrupt else "whole", feed.actions, corrupt=corrupt)
        return make_rows(folder, feed.mode, feed.frames, corrupt=corrupt, python=self.python)

    def weights_of(self, feed: Feed) -> WeightSet:
        """Raises WeightsError where they are not on this disk."""
        if any(spec.name == CHECKPOINT for spec in feed.card.weights):
            raise WeightsError(f"{feed.key} is read from what a training leaves: see `trained model`")
        return find_weights(feed.card, self.weights, self.folder / "cache")

    def volume(self) -> Path:
        """An empty latents volume."""
        return Path(tempfile.mkdtemp(prefix="latents-", dir=self.folder))

    def job(self, feed: Feed, weights: WeightSet, *, corrupt: bool = False, max_failed: float = 0) -> ExtractJob:
        """All shards of a new store."""
        rows = self.rows(feed, corrupt=corrupt)
        settings = ExtractionSettings()
        hashes = weights.hashes
        values = make_values(
            feed.card, feed.key, feed.variant, RUN, rows.split, rows.source, hashes, settings, feed.actions
        )
        layout = new_layout(values, rows.rows, SHARD_ROWS)
        return ExtractJob(
            id=f"{RUN}.{feed.key}.{feed.mode}.{feed.variant}",
            image=self.prepared.ref,
            image_digest=self.prepared.digest,
            device="cuda" if self.device.kind == "cuda" else "cpu",
            threads=1,
            values=values,
            source=rows.source,
            store=layout,
            shards=tuple(range(layout.shards)),
            weights=weights.files,
            batch_size=2,
            workers=1,
            max_failed=max_failed,
        )

    def launch(self, verb: str, text: str, volume: Path) -> Ran:
        """Run a command with this text as its job file, whatever the text is."""
        return follow(*self._start(verb, text, volume))

    def extract(
        self, feed: Feed, job: ExtractJob, volume: Path, stop_at: StopAt | None = None, weights: Path | None = None
    ) -> Ran:
        """Run an extraction; SIGKILL it at the first event that `stop_at` picks. `weights`: other than the feed's."""
        rows = self.rows(feed, corrupt=job.values.split == self.rows(feed, corrupt=True).split)
        folder = self.weights_of(feed).root if weights is None else weights
        store = (Output("latents", job.store.path, job.store.fingerprint, job.shards),)
        started = self._start("extract", job.to_json(), volume, rows, folder, store)
        return follow(*started, stop_at)

    def job_folder(self, text: str, *splits: SplitSource) -> Path:
        """A job mount with this text as its document, and the CSVs of what it reads. Any user may read it."""
        folder = Path(tempfile.mkdtemp(prefix="job-", dir=self.folder))
        folder.chmod(0o755)
        (folder / METADATA).parent.mkdir()
        (folder / JOB_FILE).write_text(text, encoding="utf-8")
        for split in splits:
            shutil.copy(split.csv, folder / split.source.metadata.path)
        return folder

    def _start(
        self, verb: str, text: str, volume: Path, rows: SplitSource | None = None, weights: Path | None = None,
        outputs: tuple[Output, ...] = NO_STORE,
    ) -> tuple[Callable[[], Running], Path]:  # fmt: skip
        folder = self.job_folder(text, *([] if rows is None else [rows]))
        (folder / "out").mkdir()
        data = rows.data if rows is not None else folder
        seen = weights or linked_folder({}, self.folder / "cache")
        mounts = Mounts(data=data, weights=seen, latents=volume, job=folder, out=folder / "out")
        job = Job(
            id=f"{RUN}.{folder.name}",
            verb=verb,
            title=verb,
            mounts=mounts,
            image=self.prepared,
            run=RUN,
            reads=("data", "latents") if verb == "classify" else ("data", "weights"),
            writes="latents" if verb == "extract" else "out",
            outputs=outputs if verb == "extract" else (),
        )
        return partial(self.runtime.start, job, Slot(self.device, 1), folder / "stderr.log"), folder / "stderr.log"


def follow(start: Callable[[], Running], log: Path, stop_at: StopAt | None = None) -> Ran:
    """Run a job to its end, or to SIGKILL at the first event that `stop_at` picks."""
    running = start()
    limit = threading.Timer(LIMIT_S, running.stop)
    limit.start()
    events: list[Event] = []
    strays = []
    try:
        for line in running.lines():
            event = from_line(line)
            if event is None:
                strays.append(line.rstrip())
                continue
            events.append(event)
            if stop_at is not None and stop_at(event):
                stop_at = None
                running.stop(grace_s=0)
        code = running.wait()
    finally:
        limit.cancel()
        running.stop(grace_s=0)
    return Ran(code, tuple(events), tuple(strays), log)


def open_subject(
    runtime: LocalRuntime, image: ImageSource | str, folder: Path, weights: Path, **options: Any
) -> Subject:
    """Make an image (a reference, where the catalog does not know it) ready and get its card by `describe`.

    `options` are further fields of `Subject`. Raises ContractError where it does not reply as it must.
    """
    prepared = runtime.adopt(image) if isinstance(image, str) else runtime.prepare(image, _say_nothing)
    where = f"describe of {prepared.ref}"
    card = parse_card(runtime.query(prepared, "describe"), where)
    if card.kind in ("tools", "simulator"):
        raise ContractError(f"{where}: an image of kind {card.kind}; it takes no jobs, so there is no contract to keep")
    return Subject(runtime, prepared, card, folder, weights, **options)


def _say_nothing(line: str) -> None:
    """What is slow about making an image ready is no part of the verdict."""
