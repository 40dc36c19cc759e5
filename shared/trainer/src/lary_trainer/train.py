"""The command `train`: one process at a time holds the folder, and does what is left to do."""

import importlib.util
import os
import time
from contextlib import ExitStack
from pathlib import Path

from lary_schema.base import ContractError
from lary_schema.events import Emit, Warned, _Event
from lary_schema.jobs import minor_versions
from lary_schema.locks import FileLocks
from lary_schema.mounts import Mounts
from lary_schema.training import TrainJob
from lary_schema.watchdog import Watchdog
from lary_worker import registry
from lary_worker.device import prepare_torch

from lary_trainer.checkpoint import LOCK_FILE, cannot_write, is_finished, nothing_to_do
from lary_trainer.registry import trained_card, training_sha256
from lary_trainer.training import Training
from lary_trainer.world import World, local_device, share_threads

_POLL_S = 0.5
_UNWATCHED_S = 30 * 86400.0
"""Of the other processes: they wait for the first one, which has the watchdog."""


def train(job: TrainJob, emit: Emit) -> None:
    """Do the job. Raises ContractError, which is the exit code, where it cannot be done as given."""
    mounts = Mounts.from_env()
    first = int(os.environ.get("RANK", "0")) == 0
    limit_s = job.stall_timeout_s if first else _UNWATCHED_S
    watching = Watchdog(emit if first else _silent, job.id, limit_s, computes=job.device == "cpu")
    say = watching.emit
    with watching as watchdog, ExitStack() as held:
        watchdog.beat("checking the job")
        check_agreement(job)
        if first:
            _lock(job, mounts.out, held, say, watchdog)
        device = local_device(prepare_torch(job))
        share_threads(job.threads)
        watchdog.beat("waiting for all processes")
        world = World(device)
        done = first and is_finished(job, mounts.out, lambda text: say(Warned(job=job.id, message=text)))
        if world.agree(int(done)):
            nothing_to_do(job, say)
        else:
            _require_rows_for_all(job, world)
            Training(job, mounts, world, device, say, watchdog).run()
        world.close()


def check_agreement(job: TrainJob) -> None:
    """Does this image train what the job was planned for? Raises ContractError naming all that differs."""
    values, here = job.values, minor_versions(registry.libraries())
    if values.decoder == "decord" and importlib.util.find_spec("decord") is None:
        raise ContractError(f"job {job.id} wants decord, which this image does not have; install it, or use pyav")
    code = training_sha256(values.recipe)
    trained_card(values)
    differences = {
        "code_sha256": (values.code_sha256, code),
        "libraries": (values.libraries or here, here),
    }
    wrong = [f"  {name}: planned {a}, here {b}" for name, (a, b) in differences.items() if a != b]
    if wrong:
        raise ContractError(f"job {job.id} does not fit, plan it again:\n" + "\n".join(wrong))


def _lock(job: TrainJob, out: Path, held: ExitStack, emit: Emit, watchdog: Watchdog) -> None:
    """Hold the folder; of two trainings of one key the second waits, and then finds the first one's checkpoint."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        locks = held.enter_context(FileLocks(out / LOCK_FILE, job.locks))
    except OSError as error:
        raise cannot_write(out, error, "nothing was begun") from None
    doing = f"waiting for another process that trains {job.values.key}"
    waiting = False
    while not locks.take():
        if not waiting:
            emit(Warned(job=job.id, message=doing))
        waiting = True
        watchdog.beat(doing)
        time.sleep(_POLL_S)


def _require_rows_for_all(job: TrainJob, world: World) -> None:
    if job.values.recipe.batch_size < world.size:
        raise ContractError(
            f"a batch of {job.values.recipe.batch_size} rows cannot be shared by {world.size} processes"
        )


def _silent(event: _Event) -> None:
    """Drops the other processes' events. An error that ends one of them is reported all the same."""
