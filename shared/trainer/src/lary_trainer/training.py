"""One training: steps from the last state on, measures, states, and the checkpoint at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from lary_schema.base import DivergedError
from lary_schema.events import Emit
from lary_schema.mounts import Mounts
from lary_schema.training import STATE_FOLDER, Measures, TrainedCard, TrainJob, TrainResult
from lary_schema.watchdog import Watchdog
from lary_worker import registry
from lary_worker.device import device_name
from lary_worker.weights import verified_files
from numpy.typing import NDArray

from lary_trainer.checkpoint import publish, remove_states, row_arrays
from lary_trainer.frames import Pairs
from lary_trainer.inputs import SplitInput, open_inputs
from lary_trainer.journal import Journal
from lary_trainer.means import finite_or_none
from lary_trainer.registry import find_trainee, trained_card
from lary_trainer.schedule import make_optimiser
from lary_trainer.states import Remembered, newest_step, read_state, save_state, sweep
from lary_trainer.steps import Stepper, seed_torch
from lary_trainer.trainee import Batch
from lary_trainer.world import World


class Training:
    """One training under way in this process."""

    def __init__(
        self, job: TrainJob, mounts: Mounts, world: World, device: torch.device, emit: Emit, watchdog: Watchdog
    ) -> None:
        """Read the inputs and build the network. Raises ContractError where that cannot be done as planned."""
        self.job, self._world, self._device, self._watchdog = job, world, device, watchdog
        self._out, self._states = mounts.out, mounts.out / STATE_FOLDER
        values = job.values
        self._recipe = values.recipe
        self._bf16 = values.precision == "bf16"
        watchdog.beat("reading the tables of rows")
        reading = partial(watchdog.beat, "reading rows", job.row_timeout_s)
        self._inputs = open_inputs(job, mounts, device, world, reading)
        self.journal = Journal(job, self._inputs, world, device, emit)
        init = verified_files(job.init, mounts.weights, watchdog.beat)
        watchdog.beat("building the network")
        self._trainee = find_trainee(self._recipe)(self._recipe, self._inputs.facts, values.seed)
        seed_torch(values.seed, "build", 0, 0)
        self._network = self._trainee.build(init, device).train()
        world.share([tensor for tensor in self._network.state_dict().values() if tensor.numel()])
        groups = self._trainee.parameter_groups(self._network)
        optimiser, rates = make_optimiser(self._recipe, groups, self._network)
        self._remembered = Remembered(self._network, optimiser)
        self._stepper = Stepper(
            self._trainee, self._network, optimiser, rates, world, device, self._bf16,
            job.micro_batch or self._recipe.batch_size, self.journal.halved, self._inputs.whole,
        )  # fmt: skip

    def run(self) -> None:
        """From the newest state to the checkpoint."""
        steps = self._recipe.steps
        done = self._resume()
        self.journal.started(done)
        self._warn_of_few_rows()
        if not steps:
            self._measure(0)
        for at, pairs in enumerate(self.train_pairs(done), 1):
            self.step(pairs)
            now, last = done + at, done + at == steps
            if now % self.job.evaluate_every == 0 or last:
                self._measure(now)
            if now % self.job.save_every == 0 and not last:
                self.save(now)
            self.journal.progress(at, steps - done)
        self._finish(steps - done)

    # --- a step -----------------------------------------------------------------------------------

    def train_pairs(self, done: int) -> Iterator[Pairs]:
        """This process's part of the batches that are left."""
        pairs = self._inputs.train.batches(done, self._recipe.steps, self._world.rank, self._world.size)
        while True:
            with self.journal.waiting():
                some = next(pairs, None)
            if some is None:
                return
            yield some

    def step(self, pairs: Pairs) -> None:
        """Train on this process's part of a batch; where a process has no row of it, nothing is done."""
        self._watchdog.beat(f"step {pairs.step}")
        batch = self._inputs.train_batch(pairs)
        counts = self._world.counts(len(batch.rows))
        if sum(counts) < self._inputs.train.batch_size:
            self.journal.unreadable(self._inputs.train, together=True)
        if not all(counts):
            return
        stepped = self._stepper.step(batch, counts)
        rates = {f"rate.{name}": rate for name, rate in self._stepper.rates.at(pairs.step).items()}
        self.journal.means.add({**stepped.figures, **rates})
        if not self.journal.moved:
            self.journal.moved = _moves(stepped.batch)

    def _warn_of_few_rows(self) -> None:
        rows = len(self._inputs.train.rows)
        if rows < self._recipe.batch_size:
            self.journal.warn(
                f"a batch has {rows} rows and not {self._recipe.batch_size}: there are no more to train on"
            )

    # --- measures ---------------------------------------------------------------------------------

    def _measure(self, step: int) -> None:
        """Means of training since the last time, and the held-out measures, by the first process alone."""
        if self.journal.means.count:
            self.journal.add(Measures(step=step, split="train", values=self.journal.means.take()))
        if step and not self.journal.moved:
            self.journal.warn(
                "the two frames of every pair seen so far are the same: copying the first frame is perfect, and "
                "nothing can be learnt"
            )
        held_out = self._inputs.held_out
        if held_out is None or self._world.rank:
            return
        values = self._evaluate(step, held_out)
        self.journal.add(Measures(step=step, split=held_out.name, values=finite_or_none(values)))
        # Nothing is wrong with a network that is not to be trained.
        problems = [f"step {step}: {text}" for text in self._trainee.health(values)] if step else []
        for problem in problems:
            self.journal.warn(problem)
        if problems and self.job.strict_health:
            raise DivergedError(f"{'; '.join(problems)} (strict_health)")

    def _evaluate(self, step: int, held_out: SplitInput) -> dict[str, float]:
        def batches() -> Iterator[Batch]:
            yield from self._held_out(step)
            # Here, before the trainee divides by the number of rows.
            self.journal.unreadable(held_out, together=False)

        with self._evaluating(step):
            return self._trainee.evaluate(self._network, batches)

    def _held_out(self, step: int) -> Iterator[Batch]:
        for batch in self._inputs.held_out_batches(step):
            self._watchdog.beat("evaluating")
            yield batch

    @contextmanager
    def _evaluating(self, step: int) -> Iterator[None]:
        self._network.eval()
        self._watchdog.beat("evaluating")
        seed_torch(self.job.values.seed, "evaluate", step, 0)
        with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            yield
        self._network.train()

    def _by_row(self) -> dict[str, NDArray[Any]]:
        """What is measured of single held-out rows, as arrays of `ROWS_FILE`; empty where nothing is."""
        held_out = self._inputs.held_out
        rows: list[NDArray[np.int64]] = []
        if held_out is None:
            return {}

        def batches() -> Iterator[Batch]:
            rows.clear()
            for batch in self._held_out(self._recipe.steps):
                rows.append(batch.rows)
                yield batch

        with self._evaluating(self._recipe.steps):
            found = self._trainee.by_row(self._network, batches)
        return row_arrays(np.concatenate(rows), held_out.groups(), found) if found else {}

    def _picture(self) -> NDArray[np.uint8] | None:
        if self._inputs.held_out is None:
            return None
        try:
            with self._evaluating(self._recipe.steps):
                return self._trainee.picture(self._network, lambda: self._held_out(self._recipe.steps))
        except Exception as error:  # noqa: BLE001 - a trainee's code may raise anything, and the weights are done
            self.journal.warn(f"the picture could not be drawn ({type(error).__name__}: {error}); nothing else is lost")
            return None

    # --- states -----------------------------------------------------------------------------------

    def _resume(self) -> int:
        """Take the newest whole state; the number of steps that are done."""
        first = self._world.rank == 0
        if first:
            sweep(self._out)
            sweep(self._states)
        step = self._world.agree(
            newest_step(self._states, self.job.fingerprint, self.journal.warn) if first else 0
        )  # fmt: skip
        if step:
            record, tensors = read_state(self._states, step)
            self._remembered.restore(tensors)
            self.journal.restore(record)
            self._stepper.micro_batch = min(self._stepper.micro_batch, record.micro_batch)
        return step

    def save(self, step: int) -> None:
        """Publish a state, by the first process."""
        if self._world.rank:
            return
        self._watchdog.beat("saving a state")
        began = time.monotonic()
        record = self.journal.record(step, self._stepper.micro_batch)
        path = save_state(self._states, record, self._remembered.tensors(), self.job.keep)
        self.journal.saved(step, path.relative_to(self._out).as_posix(), time.monotonic() - began)

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
            publish(self._out, tensors, config, card, self._result, self._picture(), self._by_row())
            if not self.job.keep_states:
                remove_states(self._out)
        self.journal.finished(done, self._stepper.micro_batch)

    def _result(self, files: dict[str, str]) -> TrainResult:
        labels = self._inputs.labels
        return TrainResult(
            key=self.job.values.key,
            fingerprint=self.job.fingerprint,
            values=self.job.values,
            files=files,
            supervision=self._trainee.supervision(self._recipe),
            rows=len(self._inputs.train.rows),
            failed=self.journal.failed,
            labelled_rows=labels.rows,
            labelled_groups=labels.groups,
            labelled_sha256=labels.sha256,
            measured=tuple(self.journal.measured),
            warnings=tuple(self.journal.warnings),
            image=self.job.image,
            image_digest=self.job.image_digest,
            code_revision=self.job.code_revision,
            libraries=registry.libraries(),
            device=device_name(self._device),
            threads=torch.get_num_threads(),
            processes=self._world.size,
            micro_batch=self._stepper.micro_batch,
            seconds=round(self.journal.seconds, 3),
            attempts=self.journal.attempts,
        )


def _moves(batch: Batch) -> bool:
    """Whether any pair's frames differ; without frames there is nothing to warn of."""
    return not batch.frames.numel() or not torch.equal(batch.frames[:, 0], batch.frames[:, 1])
