"""Jobs: the one document a container gets. Paths are relative to the job's mounts (see `mounts`)."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from lary_schema.base import CONTRACT_VERSION, ContractError, Document, fingerprint
from lary_schema.cards import (
    Actions,
    Key,
    Labels,
    Mode,
    ModeSpec,
    PairColumns,
    ProtocolCard,
    Reads,
    VideoColumns,
    check_target,
)
from lary_schema.groups import Grouping
from lary_schema.locks import LockKind
from lary_schema.mounts import MountPath

StoreDtype = Literal["float16", "float32"]
Precision = Literal["fp32", "bf16"]
Decoder = Literal["pyav", "decord"]

IMPORTED = "imported"
"""Variant of latents that were not extracted here but brought by `lary-orch latents import`."""


class MetadataFile(Document):
    """A metadata CSV as it was planned: a changed one is refused."""

    path: MountPath
    """Below the job mount: the planner puts a copy there, so that nobody edits it under a run."""
    sha256: str
    rows: int = Field(ge=1)


class Source(Document):
    """Where the rows of a split come from."""

    metadata: MetadataFile
    columns: VideoColumns | PairColumns = Field(discriminator="input")
    media: MountPath
    """Media root below the data mount."""
    host_data: str | None = None
    """The data mount's name on the host: absolute CSV paths below it are re-rooted."""
    frames: int = Field(ge=1)


class ActionRows(Document):
    """Where the actions of a split's rows lie: one .npy of (stride, dim) numbers for each."""

    column: str
    folder: MountPath
    """Below the data mount; the column's cells are relative to it."""
    implied_folder: Key | None = None
    """See `lary_schema.mounts.resolve_media`."""
    stride: int = Field(ge=1)
    dim: int = Field(ge=1)

    @classmethod
    def of(cls, actions: Actions, split: str) -> Self:
        """What a dataset card says of them."""
        folder, implied = actions.folder_of(split), actions.implied_folder
        return cls(column=actions.column, folder=folder, implied_folder=implied, stride=actions.stride, dim=actions.dim)


class StoreLocation(Document):
    """One latent store on the shared volume."""

    path: MountPath
    """Below the latents mount."""
    fingerprint: str
    rows: int = Field(ge=1)


class ArrayLayout(StoreLocation):
    """A store, and all that fixes its arrays and shards."""

    shard_rows: int = Field(ge=1)
    dtype: StoreDtype
    tokens: tuple[int, int, int]
    indices: tuple[int, int] | None = None

    @property
    def shards(self) -> int:
        return -(-self.rows // self.shard_rows)

    def shard_range(self, shard: int) -> range:
        """The rows of a shard; the last one may be short. Raises IndexError beyond it."""
        if not 0 <= shard < self.shards:
            raise IndexError(f"shard {shard} of a store with {self.shards}")
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.rows))


class WeightFile(Document):
    """A checkpoint as it was planned; the worker refuses other bytes."""

    name: Key
    path: MountPath
    """Below the weights mount."""
    sha256: str
    """Of the file; of a folder, the fingerprint of its files' names and hashes; of a checkpoint that another job
    trains, the training's fingerprint, known before it exists."""
    trained: bool = False
    """A checkpoint's folder: its `training.json` has to have this fingerprint, its files the hashes written there."""


DECIDING = ("av", "opencv", "torch")
"""Libraries whose minor version is part of fingerprints: they make pixels and sums."""


def minor_versions(libraries: Mapping[str, str]) -> dict[str, str]:
    """Of the libraries that decide values, major and minor version: 2.13.0+cpu -> 2.13."""
    return {name: ".".join(libraries[name].split(".")[:2]) for name in DECIDING if name in libraries}


class Values(Document):
    """What determines the latents of a split. Its hash is the store's fingerprint."""

    model: Key
    variant: Key
    mode: Mode
    spec: ModeSpec
    preprocessing: Key
    revision: int
    code_sha256: str
    weights: dict[str, str]
    """sha256 by name."""
    dataset: Key
    split: Key
    metadata_sha256: str
    columns: VideoColumns | PairColumns = Field(discriminator="input")
    media: MountPath
    frames: int
    decoder: Decoder
    precision: Precision
    dtype: StoreDtype
    seed: int
    libraries: dict[str, str] | None = None
    """`minor_versions` of the image; None in stores of earlier versions, and of latents that were imported."""
    actions: ActionRows | None = None
    """What a model of mode `actions` is given; of others None."""

    @model_validator(mode="after")
    def _actions_are_read_in_their_mode(self) -> Self:
        if (self.mode == "actions") != (self.actions is not None):
            raise ValueError(f"mode {self.mode} and actions: they go together")
        return self

    @model_serializer(mode="wrap")
    def _as_before_actions(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Of frames: the document, and so the fingerprint, of the time before anything else was read."""
        document: dict[str, Any] = handler(self)
        if self.actions is None:
            document.pop("actions", None)
        return document

    @property
    def fingerprint(self) -> str:
        # Without libraries the hash is that of earlier versions, so that their stores are read as they are.
        absent = {"libraries"} if self.libraries is None else set()
        return fingerprint(self.model_dump(mode="json", exclude=absent))


class _Job(Document):
    version: Literal[1] = 1
    id: Key
    image: str
    """Reference of the image that was planned (name:tag, or the process environment's name)."""
    image_digest: str | None = None
    """Content address of the image; None outside containers."""
    code_revision: str | None = None
    """git revision of the bench, `-dirty` appended where files differ."""
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int | None = Field(default=None, ge=1)
    """CPU threads for torch; None: torch's own choice."""
    stall_timeout_s: float = Field(default=600, gt=0)


class ExtractJob(_Job):
    """Fill some shards of one store."""

    kind: Literal["extract"] = "extract"
    values: Values
    source: Source
    store: ArrayLayout
    shards: tuple[int, ...]
    """This partition. Batches never cross a shard, so bytes do not depend on the partition."""
    weights: tuple[WeightFile, ...] = ()
    batch_size: int = Field(default=32, ge=1)
    workers: int = Field(default=2, ge=1)
    """Decode processes."""
    row_timeout_s: float = Field(default=60, gt=0)
    max_failed: float = Field(default=0.01, ge=0, le=1)
    """Tolerated share of failed rows of the whole store."""
    mixed: bool = False
    """Go on with a store of which another image, other libraries or another device wrote shards."""
    locks: LockKind = "kernel"
    """How writers of one store keep apart (`lary_schema.locks`)."""

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.store.fingerprint != self.values.fingerprint:
            raise ValueError("store.fingerprint is not the fingerprint of values")
        if self.store.rows != self.source.metadata.rows:
            raise ValueError(f"store has {self.store.rows} rows, the CSV {self.source.metadata.rows}")
        outside = [s for s in self.shards if not 0 <= s < self.store.shards]
        if outside or len(set(self.shards)) != len(self.shards):
            raise ValueError(f"shards must be distinct and below {self.store.shards}, not {self.shards}")
        return self


class ProbeSplit(Document):
    """One split as a probe reads it: latents, and the CSV that holds the targets."""

    name: Key
    store: StoreLocation
    source: Source


Tracker = Literal["tensorboard", "wandb"]

_NO_PLACE: Any = {"source": {"host_data": True}}
_NOT_VALUES: Any = {
    **dict.fromkeys(("id", "run", "image", "image_digest", "code_revision", "threads", "stall_timeout_s"), True),
    **dict.fromkeys(("ram_bytes", "processes", "trackers"), True),
    "train": _NO_PLACE,
    "evaluate": {"__all__": _NO_PLACE},
}
"""Fields of a probe job that determine no score."""


class ProbeJob(_Job):
    """Train probes on one split's latents and score them on others."""

    kind: Literal["classify", "regress"]
    run: Key
    code_sha256: str
    """Of the probe image's sources."""
    model: Key
    variant: Key
    dataset: Key
    time_axis: bool
    train: ProbeSplit
    evaluate: tuple[ProbeSplit, ...]
    labels: Labels | None = None
    actions: Actions | None = None
    """What a regression predicts: the dataset card's block of that name, or what `reads` says."""
    reads: Reads = "actions"
    """Which block of the dataset card `actions` is. `nuisance`: what a latent had better not show."""
    group: Grouping | None = None
    """The dataset's groups: intervals draw them and a hold-out takes whole ones. None: rows are independent."""
    stats_sha256: str | None = None
    """Of the robots' statistics file that the actions' normalisation names; other bytes are refused."""
    allow_unknown_robot: bool = False
    """Take mean 0 and std 1 for a robot type without statistics, as LARYBench does; such rows are counted."""
    protocol: ProtocolCard
    control: Literal["none", "shuffled"] = "none"
    """`shuffled`: train targets are permuted, so nothing can be learnt: the chance level of the method."""
    ram_bytes: int = Field(default=8 << 30, ge=1)
    """Latents above this stay on disk and are read by batch."""
    processes: int = Field(default=1, ge=1)
    """How many processes share each batch (one per GPU)."""
    trackers: tuple[Tracker, ...] = ()
    """Where scores are logged besides the job's own files; they write below the out mount."""

    @property
    def fingerprint(self) -> str:
        """Hash of what determines the scores: equal jobs need not run twice."""
        # A set without groups keeps the fingerprint of the time before there were any.
        absent = {"group": True} if self.group is None else {}
        # As do jobs of the time before anything but actions was read.
        absent |= {"reads": True} if self.reads == "actions" else {}
        return fingerprint(self.model_dump(mode="json", exclude=_NOT_VALUES | absent))

    @model_validator(mode="after")
    def _has_its_target(self) -> Self:
        if (self.kind == "classify") != (self.labels is not None) or (self.kind == "regress") != (
            self.actions is not None
        ):
            raise ValueError("classify needs labels alone, regress actions alone")
        if self.kind == "classify" and self.reads != "actions":
            raise ValueError(f"classify reads labels, not {self.reads}")
        return self

    @model_validator(mode="after")
    def _target_is_no_input(self) -> Self:
        for split in (self.train, *self.evaluate):
            check_target(split.source.columns, self.labels or self.actions)
        return self


def check_version(data: Any, where: str) -> None:
    """Refuse a job of another contract version before its fields are looked at."""
    found = data.get("version") if isinstance(data, dict) else None
    if found != CONTRACT_VERSION:
        raise ContractError(
            f"{where}: job version {found!r}, this image has version {CONTRACT_VERSION}; "
            "rebuild the image or use the orchestrator of its release"
        )
