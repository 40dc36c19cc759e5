"""Episodes and their journal: what is kept, what is tried again, and that a kill at any moment changes no byte."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lary_policy import EpisodeStart, Simulator, SimulatorError, Step, episodes, evaluate
from lary_policy.episodes import BEGUN_FILE, Journal, run_episode
from lary_policy.evaluate import evaluate as run_job
from lary_policy.policy import Observation
from lary_policy.talk import RefusedError
from lary_policy.wire import BadMessageError, SilentError
from lary_schema.base import ContractError, ExitCode, PeerLostError, TooManyFailedError
from lary_schema.cards import BenchmarkCard
from lary_schema.evaluation import BLIND, Episode, EpisodeProtocol, EvaluateJob, EvaluateValues, EvaluationResult
from lary_schema.events import Finished, Progress, Started, Warned
from numpy.typing import NDArray

CARD = BenchmarkCard.model_validate(
    {
        "key": "line",
        "title": "A point on a line",
        "tasks": [{"key": "right", "instruction": "go right", "states": 9}],
        "observations": {"at": {"shape": [1], "dtype": "float32"}},
        "actions": ["x"],
        "idle": [0.25],
        "horizon": 12,
        "license": "MIT",
        "source": "this test",
    }
)


class Line(Simulator):
    """Done at 4 and beyond; a point that goes below -3 breaks it."""

    made = 0

    def __init__(self, card: BenchmarkCard, task: str) -> None:
        super().__init__(card, task)
        type(self).made += 1

    def reset(self, state: int, seed: int) -> Observation:
        self.at = state / 8
        return {"at": np.array([self.at], np.float32)}

    def step(self, action: NDArray[np.float32]) -> Step:
        self.at += float(action[0])
        if self.at < -3:
            raise SimulatorError("it fell off")
        return Step({"at": np.array([self.at], np.float32)}, self.at >= 4)

    def state(self) -> NDArray[Any]:
        return np.array([self.at])


class Walker:
    """Goes by chunks; `act` may be replaced."""

    def __init__(self, *chunk: float) -> None:
        self.chunk = np.array(chunk, np.float32)[:, None]
        self.seen: list[float] = []

    def begin(self, episode: EpisodeStart) -> None:
        self.started = episode

    def act(self, observation: Observation) -> NDArray[Any]:
        self.seen.append(float(observation["at"][0]))
        return self.chunk


class Acts(Walker):
    """Goes by its chunk once, then `then` says."""

    def __init__(self, then: Callable[[Observation], Any], *chunk: float) -> None:
        super().__init__(*chunk)
        self.then = then

    def act(self, observation: Observation) -> NDArray[Any]:
        return self.then(observation) if self.seen else super().act(observation)


def episode(actor: Any, state: int = 0, **protocol: Any) -> Episode:
    start = EpisodeStart("go right", 1, "right", state)
    settings = EpisodeProtocol.model_validate({"horizon": 12, "settle": 0} | protocol)
    return run_episode(Line(CARD, "right"), actor, start, settings, lambda _: None)[0]


def test_success_ends_an_episode_in_the_middle_of_a_chunk() -> None:
    walker = Walker(1, 1, 1)
    done = episode(walker)
    assert (done.success, done.steps, done.held, done.fault) == (True, 4, None, None)
    assert walker.seen == [0, 3]


def test_the_horizon_counts_actions_and_not_settling() -> None:
    walker = Walker(0.25, 0.25, 0.25, 0.25, 0.25)
    done = episode(walker, settle=2)
    assert (done.success, done.steps) == (False, 12)
    assert walker.seen == [0.5, 1.75, 3.0]
    assert episode(walker, settle=4).success


def test_chunk_use_and_action_index() -> None:
    walker = Walker(-9, 1, 0.5, -9)
    done = episode(walker, first=1, use=2)
    assert (done.success, done.steps) == (True, 5)
    assert walker.seen == [0, 1.5, 3.0]


def test_what_is_held() -> None:
    steady, hasty = Walker(1), Walker(1, 1, 1, 1, -1)
    assert episode(steady, hold=3).held is True
    assert episode(hasty, hold=1).held is False
    assert episode(hasty, hold=1).success
    assert episode(hasty, hold=1).steps == 4
    assert episode(Walker(0.1), hold=3).held is None


FAULTS: dict[str, tuple[Callable[[Observation], Any], str]] = {
    "NaN": (lambda _: np.full((1, 1), np.nan, np.float32), "bad_actions"),
    "shape": (lambda _: np.zeros((1, 2), np.float32), "bad_actions"),
    "float64": (lambda _: np.zeros((1, 1)), "bad_actions"),
    "none": (lambda _: np.zeros((0, 1), np.float32), "bad_actions"),
    "long": (lambda _: np.zeros((2000, 1), np.float32), "bad_actions"),
    "broken off": (lambda _: raising(BadMessageError("too much")), "bad_actions"),
    "refused": (lambda _: raising(RefusedError("no")), "refused"),
    "silent": (lambda _: raising(SilentError("sent nothing")), "policy_timeout"),
    "simulator": (lambda _: np.full((9, 1), -1, np.float32), "simulator_error"),
}


def raising(error: Exception) -> Any:
    raise error


@pytest.mark.parametrize(("act", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_fault_ends_its_episode_and_says_why(act: Callable[[Observation], Any], fault: str) -> None:
    done = episode(Acts(act, 1, 1))
    assert (done.success, done.fault) == (False, fault)
    assert done.detail
    assert done.evaluated == (fault in ("bad_actions", "refused"))
    assert done.steps == (2 if fault != "simulator_error" else 7)


def test_a_fault_after_success_is_no_success() -> None:
    walker = Walker(4, np.nan)
    assert episode(walker, use=1, hold=2).success
    done = episode(Acts(lambda _: np.zeros((1, 3)), 4), hold=2)
    assert (done.success, done.fault) == (False, "bad_actions")


def test_one_that_has_gone_ends_the_attempt_and_no_episode() -> None:
    with pytest.raises(PeerLostError):
        episode(Acts(lambda _: raising(PeerLostError("the policy has gone")), 1))


def test_a_trace_is_of_every_action_and_state() -> None:
    same = [episode(Walker(0.5)).trace_sha256, episode(Walker(0.5, 0.5)).trace_sha256]
    others = [episode(Walker(0.5, 0.25)).trace_sha256, episode(Walker(0.5), state=1).trace_sha256]
    assert len({*same, *others}) == 3


# --- the journal ------------------------------------------------------------------------------


def line(state: int, **more: Any) -> Episode:
    return Episode.model_validate({"state": state, "success": True, "steps": 3, "trace_sha256": "ab" * 32} | more)


def test_a_journal_cut_anywhere_keeps_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    journal = Journal(path, "f1", lambda _: True)
    # Some of these end a line for `str.splitlines`.
    detail = "é \u2028 \x85 \r \x1c \x0b"
    for state in (4, 0, 2):
        journal.append(line(state, detail=detail))
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == 10]
    cuts = {*range(0, len(whole), 41), *(end + by for end in ends for by in (-1, 0, 1))}
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        again = Journal(path, "f1", lambda _: True)
        assert list(again.done) == [4, 0, 2][: max(0, sum(end <= cut for end in ends) - 1)]
        for state in (4, 0, 2):
            if state not in again.done:
                again.append(line(state, detail=detail))
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "text", ["", "no head\n", '{"fingerprint": "other"}\n{"state": 1}\n', '{"fingerprint": "f1"}\n[]\n{}\n']
)
def test_a_journal_of_something_else_is_begun_anew(tmp_path: Path, text: str) -> None:
    path = tmp_path / "episodes.jsonl"
    path.write_text(text, encoding="utf-8")
    assert Journal(path, "f1", lambda _: True).done == {}
    assert path.read_text(encoding="utf-8") == '{"fingerprint": "f1"}\n'


# --- jobs -------------------------------------------------------------------------------------


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("data", "weights", "latents", "job", "out"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"LARY_MOUNT_{name.upper()}", str(tmp_path / name))
    monkeypatch.setattr(evaluate, "make_simulator", lambda key, task: Line(CARD, task))
    monkeypatch.setattr(evaluate, "Remote", lambda *_: Here.actor)
    monkeypatch.setattr(evaluate, "libraries", dict)
    Here.actor = Here()
    return tmp_path / "out"


class Here(Walker):
    """In place of a remote policy."""

    actor: "Here"

    def __init__(self) -> None:
        super().__init__(0.5)
        self.ran: list[int] = []
        self.dies_at: dict[int, list[Exception]] = {}

    def begin(self, episode: EpisodeStart) -> None:
        self.ran.append(episode.state)
        self.state = episode.state

    def act(self, observation: Observation) -> NDArray[Any]:
        if left := self.dies_at.get(self.state):
            raise left.pop()
        return self.chunk

    def wants(self) -> tuple[str, ...]:
        return ("at",)

    def close(self) -> None:
        pass


def job(states: tuple[int, ...] = (0, 1, 2, 3), **more: Any) -> EvaluateJob:
    values = EvaluateValues(
        policy="theirs", policy_code_sha256="a", benchmark="line", benchmark_code_sha256="b", task="right",
        states=states, seed=0, protocol=EpisodeProtocol(horizon=12, settle=0),
    )  # fmt: skip
    return EvaluateJob.model_validate({"id": "e", "image": "i", "values": values} | more)


def result(out: Path) -> bytes:
    return (out / "evaluation.json").read_bytes()


def test_a_job_from_start_to_end(out: Path) -> None:
    events: list[Any] = []
    run_job(job(record=True), events.append)
    found = EvaluationResult.read(out / "evaluation.json")
    assert [one.success for one in found.episodes] == [True] * 4
    assert [one.steps for one in found.episodes] == [8, 8, 8, 8]
    assert [type(event) for event in events] == [Started, *[Progress] * 4, Finished]
    assert events[0].unit == "episodes"
    np.testing.assert_array_equal(np.load(out / "recorded/right/2.npy"), np.full((8, 1), 0.5, np.float32))
    assert not (out / BEGUN_FILE).exists()
    before = result(out)
    run_job(job(record=True), events.append)
    assert (events[-2].total, events[-2].skipped) == (0, 4)
    assert Here.actor.ran == [0, 1, 2, 3]
    assert result(out) == before


@pytest.mark.parametrize(
    ("protocol", "part"),
    [
        ({"first": 1}, [0.5, 1]),
        ({"use": 1}, [0.25]),
        ({"first": 2, "use": 1}, [1]),
        ({"first": 3}, None),
        ({"use": 5}, None),
    ],
)
@pytest.mark.parametrize("policy", [*BLIND, "theirs"])
def test_what_a_baseline_sends_is_done_whole_and_of_a_prediction_a_part(
    out: Path, monkeypatch: pytest.MonkeyPatch, policy: str, protocol: dict[str, int], part: list[float] | None
) -> None:
    """Else a table that is to be compared with a paper's would have a baseline that never succeeds."""
    actor = Here()
    actor.chunk = np.array([[0.25], [0.5], [1]], np.float32)
    Here.actor = actor
    monkeypatch.setattr(Line, "scripted", lambda _: actor)
    planned = job((0,), record=True)
    settings = planned.values.protocol.model_copy(update=protocol)
    values = planned.values.model_copy(update={"policy": policy, "protocol": settings})
    run_job(planned.model_copy(update={"values": values}), lambda _: None)
    (done,) = EvaluationResult.read(out / "evaluation.json").episodes
    if policy == "theirs" and part is None:
        assert done.fault == "bad_actions"
        return
    actions = np.load(out / "recorded/right/0.npy").ravel().tolist()
    if policy == "theirs":
        assert part is not None
        assert actions[: len(part)] == part
    else:
        assert actions == [0.25, 0.5, 1] * 2 + [0.25, 0.5]
        assert (done.success, done.fault) == (True, None)


def test_drafts_of_a_killed_attempt_are_swept_and_nothing_else(out: Path) -> None:
    run_job(job((0, 1), record=True), lambda _: None)
    kept = sorted(path for path in out.rglob("*") if path.is_file())
    for path in kept:
        path.with_name(f"{path.name}.0123456789abcdef.partial").write_bytes(b"half")
    run_job(job((0, 1), record=True), lambda _: None)
    assert sorted(path for path in out.rglob("*") if path.is_file()) == kept


def test_more_states_are_added(out: Path) -> None:
    run_job(job((0, 1)), lambda _: None)
    run_job(job((0, 1, 2, 5)), lambda _: None)
    assert Here.actor.ran == [0, 1, 2, 5]
    assert [one.state for one in EvaluationResult.read(out / "evaluation.json").episodes] == [0, 1, 2, 5]


def test_an_attempt_that_dies_goes_on_and_what_killed_it_comes_last(out: Path) -> None:
    run_job(job(), lambda _: None)
    undisturbed = result(out)
    (out / "evaluation.json").unlink()
    (out / "episodes.jsonl").unlink()
    Here.actor.ran.clear()
    Here.actor.dies_at[1] = [PeerLostError("gone"), PeerLostError("gone")]
    events: list[Any] = []
    for _ in range(2):
        with pytest.raises(PeerLostError):
            run_job(job(), events.append)
    run_job(job(), events.append)
    said = [one.message for one in events if isinstance(one, Warned)]
    assert said == ["an earlier process ended in initial state 1, which is tried last"] * 2
    assert Here.actor.ran == [0, 1, 2, 3, 1, 1]
    assert result(out) == undisturbed


@pytest.mark.parametrize("fault", ["bad_actions", "policy_timeout", "simulator_error"])
def test_a_fault_leaves_the_other_episodes(out: Path, fault: str) -> None:
    run_job(job(), lambda _: None)
    undisturbed = result(out)
    for name in ("evaluation.json", "episodes.jsonl"):
        (out / name).unlink()
    error = {
        "bad_actions": BadMessageError("x"),
        "policy_timeout": SilentError("x"),
        "simulator_error": SimulatorError("x"),
    }
    Here.actor.dies_at[2] = [error[fault]]
    made = Line.made
    if fault == "bad_actions":
        run_job(job(), lambda _: None)
    else:
        with pytest.raises(
            TooManyFailedError, match=rf"1 of 4 episodes of task right .* \(state 2\): {fault}: x"
        ) as caught:
            run_job(job(), lambda _: None)
        assert caught.value.exit_code == ExitCode.TOO_MANY_FAILED
    assert Line.made - made == (2 if fault == "simulator_error" else 1)
    found = EvaluationResult.read(out / "evaluation.json").episodes
    assert [one.fault for one in found] == [None, None, fault, None]
    Here.actor.ran.clear()
    # The policy's own fault is final, unless it is to be tried again; the others are not.
    run_job(job(), lambda _: None)
    assert Here.actor.ran == ([] if fault == "bad_actions" else [2])
    run_job(job(again=True), lambda _: None)
    assert Here.actor.ran == [2]
    assert json.loads(result(out)) == json.loads(undisturbed)


def _full(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


FULL = {
    "journal": (episodes, "publish_text", "episodes.jsonl"),
    "which episode is under way": (evaluate, "publish_text", BEGUN_FILE),
    "recorded actions": (episodes.Trace, "write", "recorded/right/0.npy"),
    "a line": (episodes.os, "write", "episodes.jsonl"),
    "half a line": (episodes.os, "write", "episodes.jsonl"),
    "a synced line": (episodes.os, "fsync", "episodes.jsonl"),
}


@pytest.mark.parametrize(("where", "name", "file"), FULL.values(), ids=FULL)
def test_a_full_disk_ends_with_a_message_and_the_same_job_goes_on(
    out: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, where: Any, name: str, file: str,
) -> None:  # fmt: skip
    half = "half" in request.node.name
    with monkeypatch.context() as patch:
        patch.setattr(where, name, (lambda descriptor, data: len(data) // 2) if half else _full)
        with pytest.raises(ContractError, match=r"cannot be written: .*make room, and run the same") as caught:
            run_job(job(record=True), lambda _: None)
    assert str(caught.value).startswith(f"{out / file}: ")
    assert caught.value.exit_code == ExitCode.BAD_JOB
    assert not (out / "evaluation.json").exists()
    run_job(job(record=True), lambda _: None)
    assert [one.success for one in EvaluationResult.read(out / "evaluation.json").episodes] == [True] * 4
    assert len(list((out / "recorded/right").glob("*.npy"))) == 4


OTHERWISE = {
    "the lock": (evaluate, "exclusive", "lock"),
    "an episode that has ended": (Path, "unlink", BEGUN_FILE),
    "drafts of before": (Path, "unlink", "1.npy.0123456789abcdef.partial"),
}


@pytest.mark.parametrize("fault", [errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize(("where", "name", "file"), [*FULL.values(), *OTHERWISE.values()], ids=[*FULL, *OTHERWISE])
def test_whatever_the_disk_refuses_is_said_in_one_line(
    out: Path, monkeypatch: pytest.MonkeyPatch, fault: int, where: Any, name: str, file: str
) -> None:
    """Full, over a quota, read-only, another's, broken: a message with the file, exit code 2, and nothing is lost."""
    draft = out / "recorded/right/1.npy.0123456789abcdef.partial"
    draft.parent.mkdir(parents=True)
    original = getattr(where, name)

    def refuses(path: Any, *arguments: Any, **options: Any) -> Any:
        if where is Path and Path(path).name != Path(file).name:
            return original(path, *arguments, **options)
        raise OSError(fault, "as the disk says")

    draft.touch()
    with monkeypatch.context() as patch:
        patch.setattr(where, name, refuses)
        with pytest.raises(ContractError, match=r": cannot be written: as the disk says; finished ep") as caught:
            run_job(job(record=True), lambda _: None)
    assert str(caught.value).partition(":")[0].endswith(file)
    advice = "make room" if fault == errno.EDQUOT else "make its folder writable"
    assert f"{advice}, and run the same command again" in str(caught.value)
    assert caught.value.exit_code == ExitCode.BAD_JOB
    run_job(job(record=True), lambda _: None)
    assert [one.success for one in EvaluationResult.read(out / "evaluation.json").episodes] == [True] * 4
    assert not draft.exists()
    assert not (out / BEGUN_FILE).exists()


def test_actions_that_are_missing_are_recorded_by_running_their_episode_again(out: Path) -> None:
    run_job(job(), lambda _: None)
    before = result(out)
    for lost in ({0, 1, 2, 3}, {2}, set()):
        for state in lost:
            (out / f"recorded/right/{state}.npy").unlink(missing_ok=True)
        Here.actor.ran.clear()
        run_job(job(record=True), lambda _: None)
        assert set(Here.actor.ran) == lost
        assert result(out) == before
        assert len(list((out / "recorded/right").glob("*.npy"))) == 4


def test_an_episode_without_an_action_has_none_to_record(out: Path) -> None:
    Here.actor.dies_at[1] = [BadMessageError("x")]
    run_job(job(record=True), lambda _: None)
    Here.actor.ran.clear()
    run_job(job(record=True), lambda _: None)
    assert Here.actor.ran == []
    assert sorted(path.stem for path in out.rglob("*.npy")) == ["0", "2", "3"]


def test_a_disk_that_is_full_at_the_result_keeps_every_episode(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = evaluate.publish_text

    def full(path: Path, text: str) -> None:
        _full() if path.name == "evaluation.json" else original(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "publish_text", full)
        with pytest.raises(ContractError, match=r"evaluation\.json: cannot be written: No space left on device"):
            run_job(job(), lambda _: None)
    run_job(job(), lambda _: None)
    assert Here.actor.ran == [0, 1, 2, 3]
    assert result(out)


def test_an_unknown_task_or_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    from lary_policy.registry import find_image, make_policy, make_simulator

    monkeypatch.setenv("LARY_IMAGE", "arm")
    find_image.cache_clear()
    with pytest.raises(ContractError, match=r"no benchmark of image arm 'demo_trun' .did you mean demo_turn"):
        make_simulator("demo_trun", "x")
    with pytest.raises(ContractError, match="no task of demo_turn 'x'"):
        make_simulator("demo_turn", "x")
    with pytest.raises(ContractError, match=r"no policy of image arm 'zer' .did you mean zero"):
        make_policy("zer")
    monkeypatch.setenv("LARY_IMAGE", "none")
    find_image.cache_clear()
    with pytest.raises(ContractError, match="image 'none' is not installed here"):
        make_simulator("demo_turn", "x")
    find_image.cache_clear()
