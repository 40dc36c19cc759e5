"""The command `train`: steps from the last state on, measures, states, and the checkpoint at the end."""

import importlib.util
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from lary_schema.base import ContractError, DivergedError, TooManyFailedError
from lary_schema.events import (
    BatchHalved,
    Emit,
    Finished,
    Measured,
    Progress,
    RowFailed,
    Saved,
    Split,
    Started,
    Warned,
    _Event,
)
from lary_schema.jobs import minor_versions
from lary_schema.locks import FileLocks
from lary_schema.mounts import Mounts
from lary_schema.store.layout import Failure
from lary_schema.training import STATE_FOLDER, Measures, TrainedCard, TrainJob, TrainResult
from lary_schema.watchdog import Watchdog
from lary_worker import registry
from lary_worker.device import device_name, peak_memory, prepare_torch
from lary_worker.weights import verified_files

from lary_trainer.checkpoint import LOCK_FILE, is_finished, nothing_to_do, publish, remove_states
from lary_trainer.frames import Pairs
from lary_trainer.inputs import Inputs, SplitInput, open_inputs
from lary_trainer.means import Means, finite_or_none
from lary_trainer.registry import find_trainee, trained_card, training_sha256
from lary_trainer.schedule import make_optimiser
from lary_trainer.states import Remembered, StateRecord, newest_step, read_state, save_state, sweep
from lary_trainer.steps import Stepper, seed_torch
from lary_trainer.trainee import Batch
from lary_trainer.world import World, local_device, share_threads

_POLL_S = 0.5
_PROGRESS_S = 2.0
_UNWATCHED_S = 30 * 86400.0
"""Of the other processes: they wait for the first one, which has the watchdog."""


def train(job: TrainJob, emit: Emit) -> None:
    """Do the job. Raises ContractError, which is the exit code, where it cannot be done as given."""
    mounts = Mounts.from_env()
    first = int(os.environ.get("RANK", "0")) == 0
    say = emit if first else _silent
    with Watchdog(emit, job.id, job.stall_timeout_s if first else _UNWATCHED_S) as watchdog, ExitStack() as held:
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
        raise ContractError(f"{out}: cannot be written: {error.strerror or error}") from None
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


class Training:
    """One training under way in this process."""

    def __init__(
        self, job: TrainJob, mounts: Mounts, world: World, device: torch.device, emit: Emit, watchdog: Watchdog
    ) -> None:
        """Read the inputs and build the network. Raises ContractError where that cannot be done as planned."""
        self.job, self._world, self._device, self._emit, self._watchdog = job, world, device, emit, watchdog
        self._out, self._states = mounts.out, mounts.out / STATE_FOLDER
        values = job.values
        self._recipe = values.recipe
        self._inputs = open_inputs(job, mounts, device, world, lambda: watchdog.beat("reading rows"))
        self._known: dict[str, set[int]] = {split.name: set() for split in self._inputs.splits}
        init = verified_files(job.init, mounts.weights, watchdog.beat)
        watchdog.beat("building the network")
        self._trainee = find_trainee(self._recipe)(self._recipe, self._inputs.facts, values.seed)
        seed_torch(values.seed, "build", 0, 0)
        self._network = self._trainee.build(init, device).train()
        world.share([tensor for tensor in self._network.state_dict().values() if tensor.numel()])
        groups = self._trainee.parameter_groups(self._network)
        optimiser, rates = make_optimiser(self._recipe, groups, self._network)
        self._remembered = Remembered(self._network, optimiser)
        micro_batch = job.micro_batch or self._recipe.batch_size
        self._stepper = Stepper(
            self._trainee, self._network, optimiser, rates, world, device, values.precision == "bf16", micro_batch,
            self._halved, self._inputs.whole,
        )  # fmt: skip
        self._means = Means()
        self._measured: list[Measures] = []
        self._warnings: list[str] = []
        self._moved = False
        self._before, self._attempts = 0.0, 1
        self._waited = 0.0
        self._began = self._said = time.monotonic()

    def run(self) -> None:
        """From the newest state to the checkpoint."""
        steps = self._recipe.steps
        done = self._resume()
        name = device_name(self._device)
        self._emit(
            Started(job=self.job.id, total=steps - done, skipped=done, unit="steps", device=name, pid=os.getpid())
        )
        self._warn_of_few_rows()
        self._began = time.monotonic()
        for at, pairs in enumerate(self._train_pairs(done), 1):
            self._step(pairs)
            now = done + at
            last = now == steps
            if now % self.job.evaluate_every == 0 or last:
                self._measure(now)
            if now % self.job.save_every == 0 and not last:
                self._save(now)
            self._progress(at, steps - done)
        self._finish(steps - done)

    # --- a step -----------------------------------------------------------------------------------

    def _train_pairs(self, done: int) -> Iterator[Pairs]:
        """This process's part of the batches that are left, booking the time that they are waited for."""
        train = self._inputs.train
        pairs = train.batches(done, self._recipe.steps, self._world.rank, self._world.size)
        while True:
            began = time.monotonic()
            some = next(pairs, None)
            self._waited += time.monotonic() - began
            if some is None:
                return
            yield some

    def _step(self, pairs: Pairs) -> None:
        self._watchdog.beat(f"step {pairs.step}")
        batch = self._inputs.train_batch(pairs)
        counts = self._world.counts(len(batch.rows))
        if sum(counts) < self._inputs.train.order().size:
            self._note_failures(self._inputs.train, together=True)
        if not all(counts):
            return
        stepped = self._stepper.step(batch, counts)
        self._means.add({**stepped.figures, **self._rates(pairs.step)})
        if not self._moved:
            self._moved = _moves(stepped.batch)

    def _rates(self, step: int) -> dict[str, float]:
        return {f"rate.{name}": rate for name, rate in self._stepper.rates.at(step).items()}

    def _note_failures(self, split: SplitInput, *, together: bool) -> None:
        """Say which rows were found unreadable. Raises TooManyFailedError."""
        known = self._known[split.name]
        fresh = [failure for row, failure in split.reader.failed.items() if row not in known]
        for failure in self._world.failures(fresh) if together else fresh:
            if failure.row not in known:
                known.add(failure.row)
                split.reader.failed[failure.row] = failure
                self._emit(
                    RowFailed(job=self.job.id, row=failure.row, reason=failure.reason, detail=failure.detail)
                )  # fmt: skip
        if len(known) > self.job.max_failed * len(split.rows):
            first = split.reader.failed[min(known)]
            raise TooManyFailedError(
                f"split {split.name}: {len(known)} of {len(split.rows)} rows cannot be read, more than max_failed "
                f"{self.job.max_failed:g} allows; the first is row {first.row} ({first.reason}: {first.detail}). Fix "
                "the data, or raise max_failed"
            )

    # --- what is said -----------------------------------------------------------------------------

    def _halved(self, size: int) -> None:
        self._emit(BatchHalved(job=self.job.id, batch_size=size))

    def _warn(self, message: str) -> None:
        if message not in self._warnings:
            self._warnings.append(message)
            self._emit(Warned(job=self.job.id, message=message))

    def _warn_of_few_rows(self) -> None:
        rows = len(self._inputs.train.rows)
        if rows < self._recipe.batch_size:
            self._warn(f"a batch has {rows} rows and not {self._recipe.batch_size}: there are no more to train on")

    def _progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said < _PROGRESS_S:
            return
        self._said = now
        self._emit(
            Progress(
                job=self.job.id, done=done, total=total, failed=self._failed, per_second=self._rate(done),
                seconds=self._seconds, note=self._note(),
            )
        )  # fmt: skip

    @property
    def _failed(self) -> int:
        return sum(map(len, self._known.values()))

    def _rate(self, done: int) -> float:
        return round(done / max(time.monotonic() - self._began, 1e-9), 3)

    @property
    def _seconds(self) -> Split:
        """`decode`: waited for rows; `encode`: all else."""
        total = time.monotonic() - self._began
        return Split(decode=round(self._waited, 3), encode=round(total - self._waited, 3))

    def _note(self) -> str:
        if not self._measured:
            return ""
        last = self._measured[-1]
        shown = list(last.values.items())[:4]
        return f"step {last.step}, {last.split}: " + ", ".join(f"{k} {v:.4g}" for k, v in shown if v is not None)

    # --- measures ---------------------------------------------------------------------------------

    def _measure(self, step: int) -> None:
        """Means of training since the last time, and the held-out measures, by the first process alone."""
        if self._means.count:
            self._add_measures(Measures(step=step, split="train", values=self._means.take()))
        if not self._moved:
            self._warn(
                "the two frames of every pair seen so far are the same: copying the first frame is perfect, and "
                "nothing can be learnt"
            )
        if self._inputs.held_out is None or self._world.rank:
            return
        values = self._evaluate(step)
        self._note_failures(self._inputs.held_out, together=False)
        self._add_measures(Measures(step=step, split=self._inputs.held_out.name, values=finite_or_none(values)))
        problems = [f"step {step}: {text}" for text in self._trainee.health(values)]
        for problem in problems:
            self._warn(problem)
        if problems and self.job.strict_health:
            raise DivergedError(f"{'; '.join(problems)} (strict_health)")

    def _evaluate(self, step: int) -> dict[str, float]:
        def batches() -> Iterator[Batch]:
            for batch in self._inputs.held_out_batches(step):
                self._watchdog.beat("evaluating")
                yield batch

        self._network.eval()
        seed_torch(self.job.values.seed, "evaluate", step, 0)
        bf16 = self.job.values.precision == "bf16"
        with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16, enabled=bf16):
            values = self._trainee.evaluate(self._network, batches)
        self._network.train()
        return values

    def _add_measures(self, measures: Measures) -> None:
        self._measured.append(measures)
        self._emit(Measured(job=self.job.id, **measures.model_dump()))

    # --- states -----------------------------------------------------------------------------------

    def _resume(self) -> int:
        """Take the newest whole state; the number of steps that are done."""
        first = self._world.rank == 0
        if first:
            sweep(self._out)
            sweep(self._states)
        step = self._world.agree(newest_step(self._states, self.job.fingerprint, self._warn) if first else 0)
        if not step:
            return 0
        record, tensors = read_state(self._states, step)
        self._remembered.restore(tensors)
        self._means = Means(dict(record.sums), record.count)
        self._measured = list(record.measured)
        self._warnings = [*record.warnings, *(w for w in self._warnings if w not in record.warnings)]
        self._moved = record.moved
        self._before, self._attempts = record.seconds, record.attempts + 1
        self._stepper.micro_batch = min(self._stepper.micro_batch, record.micro_batch)
        for split in self._inputs.splits:
            failures = {failure.row: failure for failure in record.failed.get(split.name, ())}
            split.reader.failed.update(failures)
            self._known[split.name].update(failures)
        self._warn_of_another_machine(record)
        return step

    def _warn_of_another_machine(self, record: StateRecord) -> None:
        then = {"device": record.device, "threads": record.threads, "processes": record.processes}
        now = {
            "device": device_name(self._device), "threads": torch.get_num_threads(), "processes": self._world.size,
        }  # fmt: skip
        if differing := [f"{name} {then[name]}, now {now[name]}" for name in then if then[name] != now[name]]:
            self._warn(f"goes on from a state of {'; '.join(differing)}: the last bits may differ from one run's")

    def _save(self, step: int) -> None:
        if self._world.rank:
            return
        self._watchdog.beat("saving a state")
        began = time.monotonic()
        record = StateRecord(
            fingerprint=self.job.fingerprint,
            step=step,
            device=device_name(self._device),
            threads=torch.get_num_threads(),
            processes=self._world.size,
            micro_batch=self._stepper.micro_batch,
            attempts=self._attempts,
            seconds=self._before + time.monotonic() - self._began,
            measured=tuple(self._measured),
            warnings=tuple(self._warnings),
            failed={split.name: tuple(self._failures(split)) for split in self._inputs.splits},
            sums=self._means.sums,
            count=self._means.count,
            moved=self._moved,
        )
        path = save_state(self._states, record, self._remembered.tensors(), self.job.keep)
        seconds = round(time.monotonic() - began, 3)
        self._emit(Saved(job=self.job.id, step=step, path=path.relative_to(self._out).as_posix(), seconds=seconds))

    def _failures(self, split: SplitInput) -> Iterator[Failure]:
        return (split.reader.failed[row] for row in sorted(self._known[split.name]))

    # --- the end ----------------------------------------------------------------------------------

    def _finish(self, done: int) -> None:
        if self._world.rank == 0:
            self._watchdog.beat("writing the checkpoint")
            tensors, config = self._trainee.export(self._network)
            card = TrainedCard(
                image=registry.find_image().card.name,
                card=trained_card(self.job.values),
                supervision=self._trainee.supervision(self._recipe),
            )
            publish(self._out, tensors, config, card, self._result)
            if not self.job.keep_states:
                remove_states(self._out)
        self._emit(
            Finished(
                job=self.job.id, done=done, failed=self._failed, per_second=self._rate(done), seconds=self._seconds,
                batch_size=self._stepper.micro_batch, peak_memory_bytes=peak_memory(self._device),
            )
        )  # fmt: skip

    def _result(self, files: dict[str, str]) -> TrainResult:
        inputs: Inputs = self._inputs
        return TrainResult(
            key=self.job.values.key,
            fingerprint=self.job.fingerprint,
            values=self.job.values,
            files=files,
            supervision=self._trainee.supervision(self._recipe),
            rows=len(inputs.train.rows),
            failed={name: len(rows) for name, rows in self._known.items() if rows},
            labelled_rows=inputs.labels.rows,
            labelled_groups=inputs.labels.groups,
            labelled_sha256=inputs.labels.sha256,
            measured=tuple(self._measured),
            warnings=tuple(self._warnings),
            image=self.job.image,
            image_digest=self.job.image_digest,
            code_revision=self.job.code_revision,
            libraries=registry.libraries(),
            device=device_name(self._device),
            threads=torch.get_num_threads(),
            processes=self._world.size,
            micro_batch=self._stepper.micro_batch,
            seconds=round(self._before + time.monotonic() - self._began, 3),
            attempts=self._attempts,
        )


def _moves(batch: Batch) -> bool:
    return not torch.equal(batch.frames[:, 0], batch.frames[:, 1])


def _silent(event: _Event) -> None:
    """Drops the other processes' events. An error that ends one of them is reported all the same."""
