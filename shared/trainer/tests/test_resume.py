"""Killed at any moment, the same command ends in the same bytes."""

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

STEPS = 60


@pytest.fixture
def slow(bench: Any) -> Any:
    """A training that lasts long enough to be killed, with noise, dropout, a running mean and restarts."""
    chosen = bench.recipe(config={"dropout": True, "pause": 0.01}, steps=STEPS)
    return bench.job(held=True, values={"recipe": chosen}, save_every=7, evaluate_every=9)


MARKS = ("saved", "measured", "started", "saved", "")


def test_killed_at_random_moments(bench: Any, slow: Any) -> None:
    """Wherever it was: at the start, in a step, in a state, in the checkpoint."""
    assert bench.train(slow, out="whole").code == 0
    rng = random.Random(0)
    kills = 0
    while kills < 10:
        process = bench.start(slow)
        mark = MARKS[kills % len(MARKS)]
        if not mark or any(f'"event": "{mark}"' in line for line in process.stdout):
            time.sleep(rng.random() * 0.1)
            process.kill()
        # Until the pipe ends, and with it all that was started.
        process.communicate(timeout=240)
        if process.returncode == -signal.SIGKILL:
            kills += 1
        else:
            # It was through: once more from the beginning.
            assert process.returncode == 0
            shutil.rmtree(bench.out)
    assert bench.run(slow).code == 0
    assert bench.model() == bench.model("whole")
    assert bench.result().measured == bench.result("whole").measured
    assert list(bench.out.rglob("*.partial")) == []


def test_decode_processes_are_killed(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of some rows kills the process that reads it, once."""
    (tmp_path / "marks").mkdir()
    monkeypatch.setenv("LARY_TEST_MARKS", str(tmp_path / "marks"))
    assert bench.train(bench.job(values={"recipe": bench.recipe(config={"kill": True})})).code == 0
    killed = len(list((tmp_path / "marks").iterdir()))
    again = bench.train(bench.job(values={"recipe": bench.recipe(config={"kill": True})}), out="quiet")
    assert (again.code, again.of("row_failed")) == (0, [])
    assert killed >= 2
    assert bench.model() == bench.model("quiet")


def stopped(bench: Any, job: Any, step: int) -> None:
    """A training that ended at a step, with its states."""
    bad = {**job.values.recipe.config, "nan_at": step}
    chosen = job.values.recipe.model_copy(update={"config": bad})
    done = bench.train(bench.job(values={"recipe": chosen}, save_every=5, keep=3))
    assert done.code == 7, done.events[-1]
    # The states are those of the training without the fault: their steps were the same.
    for state in (bench.out / "state").iterdir():
        _relabel(state, job)


def _relabel(state: Path, job: Any) -> None:
    from lary_trainer.states import StateRecord

    record = StateRecord.read(state / "state.json").model_copy(update={"fingerprint": job.fingerprint})
    (state / "state.json").write_text(record.checked().to_json())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.fixture
def states(bench: Any) -> Any:
    """A training that stopped at step 17, and an undisturbed one."""
    job = bench.job(keep=3)
    stopped(bench, job, 17)
    assert bench.states() == ["000005", "000010", "000015"]
    assert bench.train(job, out="whole").code == 0
    return job


def test_damaged_states_are_passed_over(bench: Any, states: Any) -> None:
    """Every file of a state, damaged in every way: the one before is taken, and that is said."""
    shutil.copytree(bench.out, bench.root / "as-stopped")
    for name in ("state.safetensors", "state.json"):
        for damage in (cut, flip, empty, Path.unlink):
            shutil.rmtree(bench.out)
            shutil.copytree(bench.root / "as-stopped", bench.out)
            damage(bench.out / "state/000015" / name)
            done = bench.train(states)
            assert done.code == 0, done.events[-1]
            (warning,) = [e.message for e in done.of("warning") if "000015" in e.message]
            assert "goes on from the state before it" in warning
            assert done.of("started")[0].skipped == 10
            assert bench.model() == bench.model("whole")


def test_all_states_damaged(bench: Any, states: Any) -> None:
    for state in (bench.out / "state").iterdir():
        flip(state / "state.safetensors")
    done = bench.train(states)
    assert (done.code, done.of("started")[0].skipped, len(done.of("warning"))) == (0, 0, 3)
    assert bench.model() == bench.model("whole")


def test_a_state_of_another_training_is_refused(bench: Any, states: Any) -> None:
    before = {p: p.read_bytes() for p in bench.out.rglob("*") if p.is_file() and p.name != ".lock"}
    done = bench.train(bench.job(values={"seed": 9}))
    assert done.code == 2
    assert "holds states of training" in done.message
    assert {p: p.read_bytes() for p in before} == before


def test_a_checkpoint_of_another_training_is_refused(bench: Any) -> None:
    assert bench.train(bench.job()).code == 0
    before = bench.model()
    done = bench.train(bench.job(values={"recipe": bench.recipe(batch_size=5)}))
    assert (done.code, bench.model()) == (2, before)
    assert "holds training" in done.message


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "card.json", "training.json"])
def test_a_damaged_checkpoint_is_made_again(bench: Any, name: str) -> None:
    job = bench.job()
    assert bench.train(job).code == 0
    before = bench.model()
    cut(bench.out / name)
    done = bench.train(job)
    assert done.code == 0
    assert "done again" in done.of("warning")[0].message
    assert bench.model() == before


def test_states_stay_where_asked(bench: Any) -> None:
    assert bench.train(bench.job(keep_states=True, keep=2)).code == 0
    assert bench.states() == ["000010", "000015"]


def test_two_at_once(bench: Any, slow: Any) -> None:
    """The second waits, then finds the first one's checkpoint."""
    first, second = bench.start(slow), bench.start(slow)
    ends = [bench.finish(first), bench.finish(second)]
    assert [end.code for end in ends] == [0, 0]
    waited = [end for end in ends if end.of("finished")[0].done == 0]
    trained = [end for end in ends if end.of("finished")[0].done == STEPS]
    assert (len(waited), len(trained)) == (1, 1)
    assert bench.result().attempts == 1


def test_a_full_disk_in_the_middle_of_a_state(bench: Any, states: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the file is written; the states before stay, and what was written is removed."""
    from lary_trainer import states as module

    real = Path.write_bytes

    def full(path: Path, data: Any) -> int:
        if path.name == "state.safetensors" and "000015" in path.parent.name:
            real(path, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return real(path, data)

    shutil.rmtree(bench.out / "state/000015")
    with monkeypatch.context() as patch:
        patch.setattr(module.Path, "write_bytes", full)
        done = bench.train(states)
    assert done.code == 2
    assert "No space left on device; free space" in done.message
    assert "earlier states are kept" in done.message
    assert bench.states() == ["000005", "000010"]
    done = bench.train(states)
    assert (done.code, done.of("started")[0].skipped) == (0, 10)
    assert bench.model() == bench.model("whole")


@pytest.fixture
def short(bench: Any) -> Any:
    """A training with a state after each step."""
    return bench.job(values={"recipe": bench.recipe(steps=3)}, save_every=1)


def write(path: Path, content: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def link_to_itself(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to(path.name)


RUBBISH: dict[str, Any] = {
    "state/000002": write,
    "state/000002/state.json": lambda path: write(path, b"\xff\x00"),
    "state/000001/state.json": lambda path: write(path, b"[" * 100_000),
    "state/000001": link_to_itself,
    f"state/{'9' * 200}": lambda path: path.mkdir(parents=True),
    "state/000002.ab.partial": write,
    "training.json": lambda path: write(path, b"[" * 100_000),
}


def test_rubbish_in_the_folder_is_passed_over(bench: Any, short: Any) -> None:
    """It is no state and no checkpoint, which is said where it could be taken for one."""
    assert bench.train(short, out="whole").code == 0
    for name, make in RUBBISH.items():
        shutil.rmtree(bench.out, ignore_errors=True)
        make(bench.out / name)
        done = bench.train(short)
        assert done.code == 0, (name, done.events[-1])
        named = [e for e in done.of("warning") if str(bench.out / name.removesuffix("/state.json")) in e.message]
        assert bool(named) == (not name.endswith(".partial")), name
        assert bench.model() == bench.model("whole"), name
        assert not (bench.out / "state").exists()


@pytest.mark.parametrize("name", ["state", ".lock/x", "model.safetensors/x", "card.json/x", "training.json/x", ""])
def test_what_stands_where_a_file_belongs_is_named(bench: Any, short: Any, name: str) -> None:
    """A file for a folder, a folder for a file: refused, by its name, and left alone."""
    if not name:
        bench.out.rmdir()
    path = bench.out / name
    write(path)
    done = bench.train(short)
    assert done.code == 2
    assert f"{bench.out / name.removesuffix('/x')}: cannot be written: " in done.message
    assert "; remove " in done.message
    assert path.read_bytes() == b"x"
