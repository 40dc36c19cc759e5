"""What a run leaves on disk: its folders, and `plan.json`, which says what it consists of."""

from dataclasses import dataclass
from pathlib import Path

from lary_schema.base import Document
from lary_schema.cards import Key
from lary_schema.mounts import MountPath


class RunStore(Document):
    """One store of a run, as `status` needs it."""

    model: Key
    variant: Key
    dataset: Key
    split: Key
    path: MountPath
    rows: int
    shards: int
    csv: str
    """Snapshot of the metadata CSV on the host."""
    columns: tuple[str, ...]
    """Its columns that name files."""


class RunProbe(Document):
    """One probe of a run, as `status` needs it."""

    id: Key
    model: Key
    variant: Key
    dataset: Key
    control: str
    fingerprint: str
    result: str
    """Where its `result.json` is, or will be, on the host."""


class RunTraining(Document):
    """One training of a run, as `status` needs it."""

    id: Key
    key: Key
    """Of the model that it makes."""
    result: str
    """Where its `training.json` is, or will be, on the host."""


class RunEvaluation(Document):
    """One policy on one task with one seed, as `status` needs it."""

    id: Key
    policy: Key
    benchmark: Key
    task: Key
    seed: int
    fingerprint: str
    states: tuple[int, ...]
    """Numbers of the initial states, an episode each."""
    result: str
    """Where its `evaluation.json` is, or will be, on the host; its finished episodes are next to it."""


class PlanFile(Document):
    """`plan.json`: what a run consists of."""

    run: Key
    protocol: Key
    latents: str
    trainings: tuple[RunTraining, ...] = ()
    stores: tuple[RunStore, ...]
    probes: tuple[RunProbe, ...]
    evaluations: tuple[RunEvaluation, ...] = ()
    problems: tuple[str, ...]


@dataclass(frozen=True)
class RunPaths:
    """The folders of one run."""

    root: Path
    results: Path

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def lock(self) -> Path:
        """Held by the `lary-orch run` that works on it."""
        return self.root / "lock"

    def job(self, job_id: str) -> Path:
        """What the job mount holds: job.json and the metadata CSVs it names."""
        return self.root / "jobs" / job_id

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def events(self, job_id: str, attempt: int) -> Path:
        return self.logs / f"{job_id}.{attempt}.events.jsonl"

    def stderr(self, job_id: str, attempt: int) -> Path:
        return self.logs / f"{job_id}.{attempt}.stderr.log"

    def out(self, model: str, dataset: str, probe: str) -> Path:
        """What a probe's out mount is; `result.json` appears in it."""
        return self.results / model / dataset / probe
