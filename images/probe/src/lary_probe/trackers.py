"""Scores as they come, for TensorBoard and Weights & Biases: on request, below the out mount, without a network."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from lary_schema.base import ContractError
from lary_schema.jobs import ProbeJob, Tracker

from lary_probe.selection import Track
from lary_probe.session import Session
from lary_probe.training import Head


class Log(Protocol):
    """Takes the scalars of one epoch, counted from 1."""

    def __call__(self, epoch: int, scalars: Mapping[str, float]) -> None: ...


def prepare_trackers(session: Session) -> None:
    """Remove what an earlier attempt logged. Raises ContractError where a tracker's package is missing."""
    for name in session.job.trackers:
        if find_spec(name) is None:
            raise ContractError(
                f"tracker {name} needs the package {name}, which is not installed here: uv pip install --python "
                f"{sys.executable} {name} (an image is built with EXTRAS={name}), or leave the tracker out"
            )
        if session.accelerator.is_main_process:
            shutil.rmtree(_folder(session, name), ignore_errors=True)


@contextmanager
def open_log(session: Session, seed: int) -> Iterator[Log]:
    """The log of one seed's training by all trackers of the job; only the main process writes."""
    with ExitStack() as stack:
        names = session.job.trackers if session.accelerator.is_main_process else ()
        logs = [stack.enter_context(_OPEN[name](session.job, _folder(session, name), seed)) for name in names]

        def log(epoch: int, scalars: Mapping[str, float]) -> None:
            for each in logs:
                each(epoch, scalars)

        yield log


def epoch_scalars(job: ProbeJob, tracks: Mapping[str, Track], heads: Sequence[Head]) -> dict[str, float]:
    """What an epoch gave, by name. `train` and `holdout` are of the head that the first split takes."""
    metric = "top1" if job.kind == "classify" else "mse"
    first = next(iter(tracks.values()))
    scalars = {f"train/{metric}": first.train[-1]}
    if job.protocol.holds_out(job.kind):
        scalars[f"holdout/{metric}"] = first.scores[-1].selection
    for name, track in tracks.items():
        score = track.scores[-1]
        found = {metric: score.value, "macro": score.macro, "r2": score.r2, "head": score.optimiser}
        scalars |= {f"{name}/{key}": float(value) for key, value in found.items() if value is not None}
    rates = [head.optimiser.lr for head in heads]
    if len(rates) == 1:
        return scalars | {"lr": rates[0]}
    return scalars | {f"lr/head_{i}": rate for i, rate in enumerate(rates)}


def _folder(session: Session, name: Tracker) -> Path:
    return session.mounts.out / name


@contextmanager
def _tensorboard(_job: ProbeJob, folder: Path, seed: int) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    def log(epoch: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            writer.add_scalar(name, value, epoch)

    with SummaryWriter(str(folder / f"seed_{seed}")) as writer:
        yield log


@contextmanager
def _wandb(job: ProbeJob, folder: Path, seed: int) -> Iterator[Log]:
    import wandb

    facts = {"model", "variant", "dataset", "control", "protocol", "run"}
    with wandb.init(
        mode="offline",  # A container has no network; `wandb sync` sends the run from outside.
        dir=str(folder.parent),  # wandb makes the folder `wandb` itself.
        project="lary",
        group=job.id,
        name=f"{job.model}-{job.dataset}-seed-{seed}",
        config=job.model_dump(mode="json", include=facts) | {"seed": seed, "fingerprint": job.fingerprint},
        settings={"console": "off"},
    ) as run:
        yield lambda epoch, scalars: run.log(dict(scalars), step=epoch)


_OPEN: dict[Tracker, Callable[[ProbeJob, Path, int], AbstractContextManager[Log]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
