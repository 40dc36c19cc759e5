"""Trainings of one recipe: their jobs, how they are run, and what each has to leave."""

import tempfile
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from lary_orch.runtimes.base import LocalRuntime
from lary_orch.runtimes.describe import describe_recipe
from lary_orch.runtimes.devices import Slot
from lary_orch.runtimes.jobs import Job, Output
from lary_orch.weights.index import Trained, WeightSet, find_weights
from lary_schema.base import ContractError, ExitCode, WeightsError
from lary_schema.cards import Mode, ModelCard
from lary_schema.mounts import Mounts
from lary_schema.presence import SplitSource
from lary_schema.trained import START, Checkpoint
from lary_schema.training import (
    CARD_FILE,
    CONFIG_FILE,
    KEY_DIGITS,
    MODEL_FILE,
    PICTURE_FILE,
    ROWS_FILE,
    TRAINING_FILE,
    Labelled,
    Recipe,
    TrainJob,
    TrainResult,
    TrainValues,
)

from lary_conformance.case import Skipped, expect
from lary_conformance.fixture import make_rows
from lary_conformance.subject import RUN, Ran, StopAt, Subject, follow
from lary_conformance.training_rows import HELD_OUT, TRAIN, files, train_data, with_labels

SEED = 1
CHECKPOINT_FILES = {MODEL_FILE, CONFIG_FILE, CARD_FILE, TRAINING_FILE}
CLIP_BEYOND = 3
"""Frames of a clip beyond those that a pair needs."""


@dataclass(frozen=True)
class Facts:
    """What `describe --recipe` says."""

    card: ModelCard
    code_sha256: str
    libraries: dict[str, str] | None


@dataclass(frozen=True)
class Trial:
    """One recipe on the tiny rows, by one image."""

    subject: Subject
    recipe: Recipe
    labels: bool = True
    """Whether labels may be seen."""
    corrupt: bool = False
    """Whether one row's file is no picture, or, of a model that reads actions, no array."""

    @property
    def mode(self) -> Mode:
        """In which its model is fed; by the image's card, since `describe --recipe` may refuse the recipe."""
        family = self.subject.card.card(f"{self.recipe.key}-{'0' * KEY_DIGITS}")
        if family is not None and family.reads_actions:
            return "actions"
        return "image" if self.recipe.dt is None else "video"

    @cached_property
    def facts(self) -> Facts:
        """Raises ContractError where the image refuses the recipe, or says what breaks the contract."""
        subject = self.subject
        return Facts(*describe_recipe(subject.runtime, subject.prepared, self.recipe, subject.folder / "cache"))

    def weights(self, start: Trained | None = None) -> WeightSet:
        """Raises Skipped where they are not on this disk."""
        try:
            return find_weights(self.facts.card, self.subject.weights, self.subject.folder / "cache", trained=start)
        except WeightsError as error:
            raise Skipped(f"needs weights: {error}") from None

    @cached_property
    def splits(self) -> tuple[SplitSource, SplitSource]:
        """The split that is trained on, and the held-out one: the same rows."""
        frames = 2 if self.recipe.dt is None else self.recipe.dt + CLIP_BEYOND
        folder = self.subject.folder / f"train-{self.mode}-{frames}{'-corrupt' * self.corrupt}"
        key = (self.mode, frames, self.corrupt)
        if key not in self.subject.training_rows:
            spoiled = self.corrupt and self.mode == "actions"
            shown = "image" if self.mode == "actions" else self.mode
            made = make_rows(folder, shown, frames, corrupt=self.corrupt and not spoiled, python=self.subject.python)
            train, held_out = (with_labels(made, split, corrupt=spoiled) for split in (TRAIN, HELD_OUT))
            self.subject.training_rows[key] = train, held_out
        return self.subject.training_rows[key]

    def job(self, weights: WeightSet, code_sha256: str = "", **changes: object) -> TrainJob:
        """A whole training; `changes` are fields of the job, `code_sha256` another than the image's own."""
        train, held_out = self.splits
        values = TrainValues(
            recipe=self.recipe,
            data=train_data(train, labels=self.labels),
            held_out=train_data(held_out, labels=self.labels),
            labelled=Labelled(share=1) if self.labels else None,
            init=weights.hashes,
            seed=SEED,
            code_sha256=code_sha256 or self.facts.code_sha256,
            libraries=self.facts.libraries or {},
        )
        often = max(1, self.recipe.steps // 10)
        fields = {
            "id": f"{RUN}.train.{values.key}",
            "image": self.subject.prepared.ref,
            "image_digest": self.subject.prepared.digest,
            "device": "cuda" if self.subject.device.kind == "cuda" else "cpu",
            "threads": 1,
            "values": values,
            "source": train.source,
            "held_out": held_out.source,
            "init": weights.files,
            "save_every": often,
            "evaluate_every": max(1, self.recipe.steps // 2),
            "workers": 1,
            "max_failed": 0,
        }
        return TrainJob.model_validate(fields | changes)

    def with_steps(self, steps: int) -> "Trial":
        return replace(self, recipe=self.recipe.model_copy(update={"steps": steps}))

    def folder(self, job: TrainJob) -> Path:
        """An empty folder for a checkpoint, any user's to write."""
        root = Path(tempfile.mkdtemp(prefix="trained-", dir=self.subject.folder))
        root.chmod(0o755)
        out = Checkpoint.of(root, job.values.key).folder
        out.mkdir(parents=True)
        out.chmod(0o777)
        return out

    def run(
        self, job: TrainJob, weights: WeightSet, out: Path, *, stop_at: StopAt | None = None,
        runtime: LocalRuntime | None = None,
    ) -> Ran:  # fmt: skip
        """Run `train`; SIGKILL it at the first event that `stop_at` picks. Raises ContractError where anything but
        `out` is not as it was before."""
        subject, folder = self.subject, self.subject.job_folder(job.to_json(), *self.splits)
        latents = subject.volume()
        mounts = Mounts(data=self.splits[0].data, weights=weights.root, latents=latents, job=folder, out=out)
        task = Job(
            id=f"{RUN}.{folder.name}",
            verb="train",
            title="train",
            mounts=mounts,
            image=subject.prepared,
            run=RUN,
            reads=("data", "weights"),
            writes="out",
            outputs=(Output("out", TRAINING_FILE, job.fingerprint),),
        )
        log = Path(tempfile.mkdtemp(prefix="log-", dir=subject.folder)) / "stderr.log"
        watched = (mounts.data, mounts.weights, mounts.latents, mounts.job)
        before = [files(one) for one in watched]
        ran = follow(partial((runtime or subject.runtime).start, task, Slot(subject.device, 1), log), log, stop_at)
        for one, old in zip(watched, before, strict=True):
            now = files(one)
            touched = sorted(name for name in now | old if now.get(name) != old.get(name))
            expect(not touched, f"a training wrote outside of its folder: {', '.join(touched[:3])} in {one.name}")
        return ran


def check_whole(trial: Trial, job: TrainJob, out: Path, ran: Ran) -> TrainResult:
    """What a finished training leaves. Raises ContractError for a breach."""
    expect(ran.code == ExitCode.DONE, f"exit {ran.code}: {ran.error}")
    expect(not ran.strays, f"stdout holds lines that are no events: {ran.strays[:3]}")
    found = files(out)
    expect(TRAINING_FILE in found, f"exit 0, and no {TRAINING_FILE}")
    result = TrainResult.read(out / TRAINING_FILE)
    expect(
        (result.key, result.fingerprint, result.values) == (job.values.key, job.fingerprint, job.values),
        f"{TRAINING_FILE} is of {result.key}, the job is {job.values.key}",
    )
    # A picture for people and measures of rows may be there; `training.json` does not name them.
    names = set(found) - {PICTURE_FILE, ROWS_FILE}
    expect(names == CHECKPOINT_FILES, f"the folder holds {sorted(names)}, {sorted(CHECKPOINT_FILES)} expected")
    named = {name: found[name] for name in names - {TRAINING_FILE}}
    expect(result.files == named, f"{TRAINING_FILE} names other files than there are")
    _check_card(trial, job, out, result)
    return result


def _check_card(trial: Trial, job: TrainJob, out: Path, result: TrainResult) -> None:
    trained = Checkpoint(out).card
    planned, name = trial.facts.card.of_chunks(job.values.data.actions), trial.subject.card.name
    expect(trained.image == name, f"{CARD_FILE} names image {trained.image}, this is {name}")
    expect(trained.card.key == job.values.key, f"{CARD_FILE} is of {trained.card.key}, trained was {job.values.key}")
    own = {"key", "weights", "code_sha256"}
    expect(
        trained.card.model_dump(exclude=own) == planned.model_dump(exclude=own),
        f"{CARD_FILE} says other facts than `describe --recipe`",
    )
    expect(trained.supervision == result.supervision, f"{CARD_FILE} and {TRAINING_FILE} differ in supervision")


def start_of(out: Path, fingerprint: str) -> Trained:
    """A finished training's folder as the weight that another goes on from."""
    return Trained(START, out, fingerprint)


def refuse_unserved(trial: Trial) -> str:
    """Raises ContractError where no family of the image serves the key that a recipe's checkpoint gets."""
    key = f"{trial.recipe.key}-{'0' * 12}"
    card = trial.subject.card.card(key)
    if card is None or card.pattern is None:
        raise ContractError(f"no family (pattern:) of the image serves {key}, so nothing could read what is trained")
    return key
