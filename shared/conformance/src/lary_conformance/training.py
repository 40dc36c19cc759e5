"""`train`: a recipe from `describe --recipe` to a model that is read, a kill in the middle, refusals."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from lary_orch.weights.index import Trained, WeightSet
from lary_schema.base import ContractError, ExitCode
from lary_schema.events import Event, Finished, Measured, RowFailed, Saved, Started
from lary_schema.trained import CHECKPOINT
from lary_schema.training import TRAINING_FILE, Optimiser, Recipe, TrainJob, TrainResult

from lary_conformance.case import Case, Skipped, expect
from lary_conformance.extraction import check_extraction
from lary_conformance.fixture import BAD_ROW, ROWS
from lary_conformance.refusals import refused
from lary_conformance.subject import Feed, Ran, Subject
from lary_conformance.training_rows import files
from lary_conformance.trainings import Trial, check_whole, refuse_unserved, start_of

UNKNOWN = "conformance-knows-no-such-name"
TOO_FAST = 1e30
"""A learning rate that no network survives."""
LONGER = (1, 8, 64)
"""Times a recipe's steps until it can be killed before it has ended."""
TRAINER = "lary_trainer"


@dataclass
class Done:
    """A training that was done once, for all checks that need one."""

    trial: Trial
    start: "Done | None" = None
    """What it goes on from."""
    _made: list[tuple[TrainJob, WeightSet, Path, Ran]] = field(default_factory=list)

    def get(self) -> tuple[TrainJob, WeightSet, Path, Ran]:
        """Its job, weights, folder and how it went. Raises Skipped where weights are missing."""
        if not self._made:
            weights = self.weights()
            job = self.trial.job(weights)
            out = self.trial.folder(job)
            self._made.append((job, weights, out, self.trial.run(job, weights, out)))
        return self._made[0]

    def weights(self) -> WeightSet:
        """With the checkpoint that it goes on from. Raises Skipped where some are missing, or that went wrong."""
        if self.start is None:
            return self.trial.weights()
        return self.trial.weights(start_of(self.start.get()[2], self.start.result().fingerprint))

    def result(self) -> TrainResult:
        """Raises Skipped where it went wrong, which is another check's business."""
        job, _, out, ran = self.get()
        try:
            return check_whole(self.trial, job, out, ran)
        except ContractError:
            raise Skipped("needs a training that ends well") from None


def cases(subject: Subject) -> Iterator[Case]:
    if not subject.recipes and subject.prepared.source.card.module == TRAINER:
        yield Case("train", "", _no_recipe, "")
    done = trainings(subject)
    for one in done:
        yield from _of_a_recipe(one)
    if done:
        yield from _refusals(done)


def trainings(subject: Subject) -> list[Done]:
    """One for each recipe, not done yet or done; those that go on from another's checkpoint come after it."""
    made: dict[str, Done] = subject.trainings
    waiting = {recipe.key: recipe for recipe in subject.recipes if recipe.key not in made}
    while waiting:
        ready = [key for key in waiting if subject.starts.get(key) not in waiting]
        if not ready:
            raise ContractError(f"recipes go on from each other in a circle: {', '.join(waiting)}")
        for key in ready:
            made[key] = Done(Trial(subject, waiting.pop(key)), made.get(subject.starts.get(key, "")))
    return list(made.values())


def _no_recipe() -> str:
    raise Skipped("no recipe: --recipe names one, or put it into the folder recipes of the image")


def _of_a_recipe(done: Done) -> Iterator[Case]:
    made = [
        ("describe", _described, "look at the trainee's `card`, and at the families (pattern:) of image.yaml"),
        ("train", _whole, "compare what the trainee exports with its card; write into the job's folder alone"),
        ("train again", _again, "do nothing where the folder holds this very training"),
        ("train resume", _resumed, "let chance depend on seed, step and row, and keep what lasts in the network"),
        ("trained model", _read, "let `load` read what `export` wrote"),
    ]
    for check, run, remedy in made:
        yield Case(check, done.trial.recipe.key, partial(run, done), remedy)


def _refusals(done: list[Done]) -> Iterator[Case]:
    """Once for the image, by its first recipe; labels by the first that reads them."""
    remedy = "raise the errors of lary_schema.base: their exit codes are the contract's"
    first = done[0]
    made = [
        ("unknown config", _unknown_config),
        ("loss terms", _loss_terms),
        ("other code", _other_code),
        ("wrong start", _wrong_start),
        ("unreadable row", _unreadable_row),
        ("divergence", _divergence),
        ("train isolation", _isolated),
    ]
    for check, run in made:
        yield Case(check, first.trial.recipe.key, partial(run, first), remedy)
    yield Case("missing labels", "", partial(_missing_labels, done), remedy)


# --- what a training leaves ---------------------------------------------------------------------


def _described(done: Done) -> str:
    trial = done.trial
    key = refuse_unserved(trial)
    card = trial.facts.card
    expect(card.key == trial.recipe.key, f"the card has key {card.key}, the recipe {trial.recipe.key}")
    expect(trial.mode in card.modes, f"the card has no mode {trial.mode}, which the recipe trains on")
    expect(bool(trial.facts.libraries), "no versions of libraries, which can move a value")
    return f"{key}, {', '.join(card.modes)}"


def _whole(done: Done) -> str:
    job, _, out, ran = done.get()
    result = check_whole(done.trial, job, out, ran)
    kinds = [type(event) for event in ran.events]
    expect(kinds.count(Started) == 1, f"{kinds.count(Started)} `started` events, one expected")
    started = next(event for event in ran.events if isinstance(event, Started))
    expect(started.unit == "steps", f"`started` counts {started.unit}, steps expected")
    expect(kinds[-1] is Finished, "the last event is not `finished`")
    expect(Measured in kinds, "nothing was measured")
    expect(result.rows == ROWS, f"trained on {result.rows} rows of {ROWS}")
    return f"{job.values.recipe.steps} steps, labels: {result.supervision}"


def _again(done: Done) -> str:
    """The same job on its own result."""
    done.result()
    job, weights, out, _ = done.get()
    before = _times(out)
    ran = done.trial.run(job, weights, out)
    check_whole(done.trial, job, out, ran)
    started = [event for event in ran.events if isinstance(event, Started)]
    steps = job.values.recipe.steps
    expect([event.skipped for event in started] == [steps], f"a done training skips {steps} steps, and says so")
    expect(_times(out) == before, "files of a finished checkpoint were written anew")
    return "nothing to do"


def _times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in files(folder)}


def _resumed(done: Done) -> str:
    """SIGKILL after the first state, the same job again, against a training that nobody disturbed."""
    trial, job, weights, out = _killed(done)
    ran = trial.run(job, weights, out)
    check_whole(trial, job, out, ran)
    skipped = next((event.skipped for event in ran.events if isinstance(event, Started)), 0)
    expect(skipped > 0, "a state was saved, and the second attempt began with step 0")
    undisturbed = trial.folder(job)
    check_whole(trial, job, undisturbed, trial.run(job, weights, undisturbed))
    ours, theirs = files(out), files(undisturbed)
    differing = sorted(name for name in ours if name != TRAINING_FILE and ours[name] != theirs[name])
    expect(not differing, f"after a kill the checkpoint differs from an undisturbed one in {', '.join(differing)}")
    one, other = (TrainResult.read(folder / TRAINING_FILE) for folder in (out, undisturbed))
    expect(one.measured == other.measured, "after a kill other numbers were measured than without")
    return f"killed after step {skipped} of {job.values.recipe.steps}; all bytes equal"


def _killed(done: Done) -> tuple[Trial, TrainJob, WeightSet, Path]:
    """A training that was killed before its end, with as many steps as that takes. Raises Skipped where it cannot."""
    weights = done.weights()
    for times in LONGER:
        trial = done.trial.with_steps(done.trial.recipe.steps * times)
        try:
            job = trial.job(weights)
        except ContractError as error:
            raise Skipped(f"its steps are fixed: {error}") from None
        out = trial.folder(job)
        ran = trial.run(job, weights, out, stop_at=_is_saved)
        saved = any(map(_is_saved, ran.events))
        if saved and not (out / TRAINING_FILE).exists():
            return trial, job, weights, out
        expect(saved or ran.code == ExitCode.DONE, f"exit {ran.code}: {ran.error}")
        expect(saved or trial.recipe.steps <= job.save_every, f"{trial.recipe.steps} steps, and no `saved` event")
    raise Skipped(f"{trial.recipe.steps} steps end before they can be killed; give the recipe more steps")


def _is_saved(event: Event) -> bool:
    return isinstance(event, Saved)


def _read(done: Done) -> str:
    """An extraction from the checkpoint, in the mode that was trained."""
    result = done.result()
    job, weights, out, _ = done.get()
    trial, subject = done.trial, done.trial.subject
    weights = trial.weights(Trained(CHECKPOINT, out, result.fingerprint))
    card = trial.facts.card.of_chunks(job.values.data.actions).model_copy(update={"key": job.values.key})
    feed = Feed(job.values.key, card, trial.mode, card.variants[0])
    return check_extraction(subject, feed, subject.job(feed, weights), weights.root)


# --- refusals -----------------------------------------------------------------------------------


def _other(done: Done, **changes: object) -> tuple[Trial, TrainJob, WeightSet]:
    """The job of a changed recipe, which `describe` need not take."""
    weights = done.trial.weights()
    trial = replace(done.trial, recipe=Recipe.model_validate(done.trial.recipe.model_dump() | changes))
    job = done.trial.job(weights)
    return trial, job.model_copy(update={"values": job.values.model_copy(update={"recipe": trial.recipe})}), weights


def _refuses(trial: Trial, job: TrainJob, weights: WeightSet, code: ExitCode) -> str:
    out = trial.folder(job)
    said = refused(trial.run(job, weights, out), code)
    expect(not (out / TRAINING_FILE).exists(), f"exit {int(code)}, and a checkpoint all the same")
    return said


def _unknown_config(done: Done) -> str:
    """`describe` and `train` refuse it and name it."""
    trial, job, weights = _other(done, config={**done.trial.recipe.config, UNKNOWN: 1})
    try:
        facts = Trial(trial.subject, trial.recipe).facts
    except ContractError as error:
        expect(UNKNOWN in str(error), f"`describe --recipe` refuses an unknown key without its name: {error}")
    else:
        raise ContractError(f"`describe --recipe` takes config key {UNKNOWN!r} and gives the card of {facts.card.key}")
    said = _refuses(trial, job, weights, ExitCode.BAD_JOB)
    expect(UNKNOWN in said, f"`train` refuses an unknown key without its name: {said}")
    return said


def _loss_terms(done: Done) -> str:
    """A term without weight, and a weight without term."""
    losses = done.trial.recipe.losses
    left_out = dict(list(losses.items())[:-1])
    for changed in (left_out, {**losses, UNKNOWN: 1.0}):
        said = _refuses(*_other(done, losses=changed), ExitCode.BAD_JOB)
    return said


def _other_code(done: Done) -> str:
    """A job that was planned for another state of the image's code."""
    weights = done.trial.weights()
    return _refuses(done.trial, done.trial.job(weights, code_sha256="0" * 64), weights, ExitCode.BAD_JOB)


def _wrong_start(done: Done) -> str:
    """The checkpoint of another training than planned."""
    done.result()
    weights = done.trial.weights(start_of(done.get()[2], "0" * 64))
    return _refuses(done.trial, done.trial.job(weights), weights, ExitCode.WEIGHTS)


def _unreadable_row(done: Done) -> str:
    """A file that is no picture: too many failed, or, where it is tolerated, a row that is said and left out.

    Of actions no row is left out: one that cannot be read ends the job.
    """
    trial = replace(done.trial, corrupt=True)
    weights = trial.weights()
    job = trial.job(weights)
    if trial.mode == "actions":
        return _refuses(trial, job, weights, ExitCode.BAD_JOB)
    _refuses(trial, job, weights, ExitCode.TOO_MANY_FAILED)
    tolerant = trial.job(weights, max_failed=1)
    out = trial.folder(tolerant)
    ran = trial.run(tolerant, weights, out)
    result = check_whole(trial, tolerant, out, ran)
    rows = {event.row for event in ran.events if isinstance(event, RowFailed)}
    expect(rows == {BAD_ROW}, f"row {BAD_ROW} is no picture; failed rows: {sorted(rows)}")
    expect(set(result.failed.values()) == {1}, f"one row of each split is no picture; counted were {result.failed}")
    return f"exit {int(ExitCode.TOO_MANY_FAILED)}, or row {BAD_ROW} left out"


def _divergence(done: Done) -> str:
    """A rate that no network survives: exit code 7, or numbers that are finite all the same."""
    optimiser = Optimiser(lr=TOO_FAST, schedule="constant")
    trial, job, weights = _other(done, optimiser=optimiser.model_dump())
    out = trial.folder(job)
    ran = trial.run(job, weights, out)
    if ran.code == ExitCode.DIVERGED:
        expect(not (out / TRAINING_FILE).exists(), "exit 7, and a checkpoint all the same")
        return refused(ran, ExitCode.DIVERGED)
    result = check_whole(trial, job, out, ran)
    terms = [name for name, weight in trial.recipe.losses.items() if weight]
    lost = [(m.step, t) for m in result.measured if m.split == "train" for t in terms if m.values.get(t) is None]
    expect(not lost, f"exit 0, and at a rate of {TOO_FAST:g} loss terms are not finite: {lost[:3]}")
    return f"finite at a rate of {TOO_FAST:g}"


def _isolated(done: Done) -> str:
    runtime = done.trial.subject.unknown_user
    if runtime is None:
        raise Skipped(f"the {done.trial.subject.runtime.name} runtime does not isolate")
    weights = done.trial.weights()
    job = done.trial.job(weights)
    out = done.trial.folder(job)
    check_whole(done.trial, job, out, done.trial.run(job, weights, out, runtime=runtime))
    return "as an unknown user, without network, on a read-only root, its own folder alone writable"


def _missing_labels(done: list[Done]) -> str:
    """A recipe that reads labels, on a set that has none."""
    one = next((one for one in done if one.result().supervision != "none"), None)
    if one is None:
        raise Skipped("no recipe reads labels")
    trial = replace(one.trial, labels=False)
    weights = trial.weights()
    return _refuses(trial, trial.job(weights), weights, ExitCode.BAD_JOB)
