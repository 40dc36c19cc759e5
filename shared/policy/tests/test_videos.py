"""Videos of episodes that were run: whole or absent, of the very episode, and without a trace in its result."""

import errno
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lary_policy import Simulator, SimulatorError, Step, evaluate, videos
from lary_policy.evaluate import evaluate as run_job
from lary_policy.policy import Observation
from lary_policy.videos import SIDE, make_videos, sized
from lary_schema import atomic
from lary_schema.base import ContractError, ExitCode, TooManyFailedError
from lary_schema.cards import BenchmarkCard
from lary_schema.evaluation import EpisodeProtocol, EvaluateJob, EvaluateValues, EvaluationResult, VideoJob
from lary_schema.events import Finished, Progress, Started, Warned
from numpy.typing import NDArray

CARD = BenchmarkCard.model_validate(
    {
        "key": "lamp",
        "title": "A lamp that is brightened",
        "tasks": [{"key": "on", "instruction": "brighter", "states": 9}],
        "observations": {
            "at": {"shape": [1], "dtype": "float32"},
            "depth": {"shape": [8, 12, 1], "dtype": "uint8"},
            "image": {"shape": [8, 12, 3], "dtype": "uint8"},
        },
        "actions": ["x"],
        "idle": [0.0],
        "horizon": 12,
        "settle": 1,
        "fps": 5,
        "renderer": {"variable": "LAMP_GL", "gpu": "fast", "cpu": "slow"},
        "license": "MIT",
        "source": "this test",
    }
)
STATES = (0, 1, 2)


class Lamp(Simulator):
    """As bright as the sum of its actions; done at 100. What may go wrong is set on the class."""

    shown: tuple[str, ...] = ()
    fails: Callable[["Lamp"], None]
    wrong: Callable[["Lamp", NDArray[Any]], Any]
    drawn_by: str | None = "slow"
    closed = 0

    def show(self, names: tuple[str, ...]) -> None:
        self.shown = names

    def reset(self, state: int, seed: int) -> Observation:
        self.begun, self.at, self.time = state, 10.0 * state, 0
        return self._seen()

    def step(self, action: NDArray[np.float32]) -> Step:
        self.at += 10 * float(action[0])
        self.time += 1
        type(self).fails(self)
        return Step(self._seen(), self.at >= 100)

    def state(self) -> NDArray[Any]:
        return np.array([self.at])

    def renderer(self) -> str | None:
        return self.drawn_by

    def close(self) -> None:
        type(self).closed += 1

    def _seen(self) -> Observation:
        seen: dict[str, NDArray[Any]] = {"at": np.array([self.at], np.float32)}
        if "image" in self.shown:
            seen["image"] = type(self).wrong(self, np.full((8, 12, 3), min(255, int(2 * self.at)), np.uint8))
        return seen


class Brighter:
    """The policy: even states succeed."""

    def begin(self, episode: Any) -> None:
        self.step = 2.0 if episode.state % 2 == 0 else 0.5

    def act(self, observation: Observation) -> NDArray[Any]:
        assert set(observation) == {"at"}
        return np.full((3, 1), self.step, np.float32)

    def wants(self) -> tuple[str, ...]:
        return ("at",)

    def close(self) -> None:
        pass


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of an evaluation that is done, with its actions."""
    for name in ("data", "weights", "latents", "job", "out"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"LARY_MOUNT_{name.upper()}", str(tmp_path / name))
    monkeypatch.setattr(Lamp, "fails", lambda _: None, raising=False)
    monkeypatch.setattr(Lamp, "wrong", lambda _, picture: picture, raising=False)
    for module in (evaluate, videos):
        monkeypatch.setattr(module, "make_simulator", lambda key, task: Lamp(CARD, task))
    monkeypatch.setattr(evaluate, "Remote", lambda *_: Brighter())
    monkeypatch.setattr(evaluate, "libraries", dict)
    run_job(EvaluateJob(id="e", image="i", values=VALUES, record=True), lambda _: None)
    return tmp_path / "out"


VALUES = EvaluateValues(
    policy="theirs", policy_code_sha256="a", benchmark="lamp", benchmark_code_sha256="b", task="on", states=STATES,
    seed=0, protocol=EpisodeProtocol(horizon=12, settle=1), renderer="slow",
)  # fmt: skip


def result(out: Path) -> EvaluationResult:
    return EvaluationResult.read(out / "evaluation.json")


def job(out: Path, *states: int, values: EvaluateValues = VALUES) -> VideoJob:
    found = {one.state: one.trace_sha256 for one in result(out).episodes}
    return VideoJob(id="v", image="i", values=values, episodes={state: found[state] for state in states or STATES})


def made(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "videos").glob("*"))}


def everything_else(out: Path) -> dict[str, bytes]:
    files = (path for path in out.rglob("*") if path.is_file() and path.parent.name != "videos")
    return {str(path.relative_to(out)): path.read_bytes() for path in files if path.name != "begun"}


def names(out: Path, *states: int) -> list[str]:
    return [Path(one.video).name for one in result(out).episodes if one.state in states]


def pictures(content: bytes) -> tuple[list[NDArray[np.uint8]], float]:
    with av.open(BytesIO(content)) as container:
        (stream,) = container.streams.video
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate is not None
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], float(stream.average_rate)


def test_a_video_shows_what_the_policy_saw_and_leaves_no_trace_elsewhere(out: Path) -> None:
    before, events = everything_else(out), list[Any]()
    make_videos(job(out), events.append)
    assert list(made(out)) == names(out, *STATES)
    assert [type(event) for event in events] == [Started, *[Progress] * 3, Finished]
    assert (events[0].total, events[0].unit, events[-1].done) == (3, "episodes", 3)
    assert everything_else(out) == before
    for one in result(out).episodes:
        assert one.trace_sha256.startswith(Path(one.video).stem.partition("-")[2])
        seen, rate = pictures((out / one.video).read_bytes())
        # From what it saw first, after settling, to what its last action led to.
        gain = 20 if one.state % 2 == 0 else 5
        assert (len(seen), rate) == (one.steps + 1, 5)
        assert {frame.shape for frame in seen} == {(168, 252, 3)}
        levels = [min(255, 2 * (10 * one.state + gain * n)) for n in range(one.steps + 1)]
        np.testing.assert_allclose([frame.mean() for frame in seen], levels, atol=6)
    first = made(out)
    make_videos(job(out), events.append)
    assert (events[-2].total, events[-2].skipped) == (0, 3)
    (out / one.video).unlink()
    make_videos(job(out), events.append)
    assert made(out) == first, "the same bytes again"


def test_a_long_episode_is_thinned_and_takes_as_long(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for most in (5, 7, 13):
        monkeypatch.setattr(videos, "PICTURES", most)
        make_videos(job(out, 1), lambda _: None)
        (content,) = made(out).values()
        seen, rate = pictures(content)
        assert len(seen) <= most + 1
        assert abs(len(seen) / rate - 13 / 5) <= 1 / rate + 1 / 5
        # The last picture is never left out.
        np.testing.assert_allclose(seen[-1].mean(), 2 * (10 + 60), atol=6)
        (out / "videos" / names(out, 1)[0]).unlink()


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 700), width=st.integers(1, 700))
def test_pictures_of_any_size_become_even_ones_of_a_bounded_size(height: int, width: int) -> None:
    picture = np.arange(height * width * 3, dtype=np.uint32).astype(np.uint8).reshape(height, width, 3)
    done = sized(picture)
    assert done.shape[0] % 2 == done.shape[1] % 2 == 0
    assert SIDE / 2 < max(done.shape) <= SIDE
    np.testing.assert_array_equal(done[0, 0], picture[0, 0])


FAULTS = (errno.ENOSPC, errno.EROFS, errno.EIO)
WRITING: dict[str, tuple[Any, str, str]] = {
    "which video is under way": (evaluate, "publish_text", "begun"),
    "its bytes": (Path, "open", "mp4"),
    "a sync": (atomic, "sync_file", "mp4"),
    "its name": (Path, "replace", "mp4"),
    "its folder": (Path, "mkdir", "mp4"),
    "the lock": (evaluate, "exclusive", "lock"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: errno.errorcode[fault])
@pytest.mark.parametrize(("where", "name", "file"), WRITING.values(), ids=WRITING)
def test_where_the_disk_refuses_a_video_one_line_says_so(
    out: Path, monkeypatch: pytest.MonkeyPatch, fault: int, where: Any, name: str, file: str
) -> None:
    """Full, over a quota, read-only, another's, broken: at the second video. The first stays, and all results."""
    make_videos(job(out, 0), lambda _: None)
    before, whole = everything_else(out), made(out)
    original = getattr(where, name)

    def refuses(path: Any, *arguments: Any, **options: Any) -> Any:
        if file == "mp4" and "videos" not in str(path):
            return original(path, *arguments, **options)
        raise OSError(fault, "as the disk says")

    with monkeypatch.context() as patch:
        patch.setattr(where, name, refuses)
        with pytest.raises(ContractError, match=r"cannot be written: as the disk says; .* run the") as caught:
            make_videos(job(out), lambda _: None)
    assert str(caught.value).partition(":")[0].endswith(file)
    assert ("make room" in str(caught.value)) == (fault == errno.ENOSPC)
    assert caught.value.exit_code == ExitCode.BAD_JOB
    assert made(out) == whole
    assert everything_else(out) == before
    make_videos(job(out), lambda _: None)
    assert list(made(out)) == names(out, *STATES)


def _breaks(lamp: Lamp) -> None:
    if lamp.begun == 1 and lamp.time == 4:
        raise SimulatorError("the bulb is gone")


def _drifts(lamp: Lamp) -> None:
    lamp.at += 1e-9 * (lamp.begun == 1 and lamp.time == 4)


def _from_step(number: int, change: Callable[[NDArray[Any]], Any]) -> Callable[[Lamp, NDArray[Any]], Any]:
    return lambda lamp, picture: change(picture) if lamp.begun == 1 and lamp.time == number else picture


WRONG: dict[str, tuple[str, Any, str]] = {
    "a simulator that breaks": ("fails", _breaks, "the bulb is gone"),
    "another episode": ("fails", _drifts, "the same actions lead elsewhere"),
    "NaN": ("wrong", _from_step(4, lambda p: np.full(p.shape, np.nan)), r"float64 \(8, 12, 3\); uint8"),
    "NaN at first": ("wrong", _from_step(1, lambda p: np.full(p.shape, np.nan, np.float32)), "float32"),
    "shares": ("wrong", _from_step(4, lambda p: p / 255), "float64"),
    "grey": ("wrong", _from_step(4, lambda p: p[..., 0]), r"uint8 \(8, 12\)"),
    "channels first": ("wrong", _from_step(4, lambda p: p.transpose(2, 0, 1)), r"\(3, 8, 12\)"),
    "nothing": ("wrong", _from_step(4, lambda p: p[:0]), r"\(0, 12, 3\)"),
    "another size": ("wrong", _from_step(4, lambda p: p[:4]), r"\(4, 12, 3\) after one of \(8, 12, 3\)"),
}


@pytest.mark.parametrize(("what", "change", "text"), WRONG.values(), ids=WRONG)
def test_what_goes_wrong_in_one_episode_leaves_the_others(
    out: Path, monkeypatch: pytest.MonkeyPatch, what: str, change: Any, text: str
) -> None:
    before, closed = everything_else(out), Lamp.closed
    with monkeypatch.context() as patch:
        patch.setattr(Lamp, what, change)
        with pytest.raises(TooManyFailedError, match=rf"1 of 3 videos of task on .* \(state 1: .*{text}") as caught:
            make_videos(job(out), lambda _: None)
    assert caught.value.exit_code == ExitCode.TOO_MANY_FAILED
    (note,) = set(made(out)) - {*names(out, 0, 2)}
    assert note == Path(result(out).episodes[1].video_fault).name
    assert made(out)[note].decode().strip() in str(caught.value)
    assert everything_else(out) == before
    assert Lamp.closed - closed == 3
    make_videos(job(out), lambda _: None)
    assert list(made(out)) == names(out, *STATES)


class KilledError(BaseException):
    """In place of the end of the process."""


@pytest.mark.parametrize("when", range(2, 14, 3))
def test_what_kills_its_process_is_tried_last_and_no_byte_differs(
    out: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    make_videos(job(out), lambda _: None)
    undisturbed = made(out)
    for path in (out / "videos").iterdir():
        path.unlink()
    begun: list[int] = []
    events: list[Any] = []

    def dies(lamp: Lamp) -> None:
        begun.append(lamp.begun)
        if lamp.begun == 1 and lamp.time == when:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Lamp, "fails", dies)
        for _ in range(2):
            (out / "videos").mkdir(exist_ok=True)
            (out / "videos/0-00.mp4.0123456789abcdef.partial").write_bytes(b"half")
            with pytest.raises(KilledError):
                make_videos(job(out), events.append)
    # Said once: the first time nobody knew.
    assert [one.message for one in events if isinstance(one, Warned)] == [
        "an earlier process ended in initial state 1, which is tried last"
    ]
    assert list(dict.fromkeys(begun)) == [0, 1, 2]
    assert [name for name in made(out) if not name.endswith("partial")] == names(out, 0, 2)
    make_videos(job(out), lambda _: None)
    assert made(out) == undisturbed


@pytest.mark.parametrize("content", [b"", b"not an array", None])
def test_actions_that_cannot_be_read_are_named(out: Path, content: bytes | None) -> None:
    path = out / "recorded/on/1.npy"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(
        ContractError, match=r"1\.npy: no recorded actions: .*remove the file, and run the same"
    ) as caught:
        make_videos(job(out), lambda _: None)
    assert caught.value.exit_code == ExitCode.BAD_JOB
    path.unlink(missing_ok=True)
    # The same command: the episode is run once more, for its actions, and is the same.
    before = (out / "evaluation.json").read_bytes()
    run_job(EvaluateJob(id="e", image="i", values=VALUES, record=True), lambda _: None)
    assert (out / "evaluation.json").read_bytes() == before
    make_videos(job(out), lambda _: None)
    assert list(made(out)) == names(out, *STATES)


def test_a_video_of_an_episode_that_went_otherwise_goes(out: Path) -> None:
    make_videos(job(out), lambda _: None)
    (old,) = names(out, 1)
    content = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    stale = job(out)
    np.save(out / "recorded/on/1.npy", np.ones((1, 1), np.float32))
    again = videos.Trace()
    again.add(np.ones(1, np.float32), np.array([20.0]))
    content["episodes"][1] |= {"trace_sha256": again.sha256, "steps": 1}
    (out / "evaluation.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ContractError, match="other episodes than planned; run the same command again"):
        make_videos(stale, lambda _: None)
    make_videos(job(out), lambda _: None)
    assert old not in made(out)
    assert list(made(out)) == names(out, *STATES)


def test_another_renderer_or_library_than_planned_is_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for changed, text in (
        ({"renderer": "fast"}, "drawn by slow here, the job was planned for fast"),
        ({"libraries": {"numpy": "0.1"}}, f"numpy {np.__version__} here, the job was planned with 0.1"),
        ({"libraries": {"no-such": "1"}}, "no-such is missing here"),
    ):
        values = VALUES.model_copy(update=changed)
        with pytest.raises(ContractError, match=text):
            run_job(EvaluateJob(id="e", image="i", values=values), lambda _: None)
    # Nothing that was seen depends on what draws: any renderer does.
    blind = VALUES.model_copy(update={"renderer": None})
    monkeypatch.setattr(Lamp, "drawn_by", "fast")
    run_job(EvaluateJob(id="e", image="i", values=blind, record=True), lambda _: None)
    make_videos(job(out, values=blind), lambda _: None)
    assert len(made(out)) == 3


def test_a_codec_that_is_missing_is_named(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise av.codec.codec.UnknownCodecError("libx264")

    monkeypatch.setattr(av.container.OutputContainer, "add_stream", missing, raising=False)
    monkeypatch.setattr(av, "open", lambda *_, **__: Container(missing))
    with pytest.raises(ContractError, match=r"no H.264 here \(libx264\); install PyPI's av, or give --videos 0"):
        make_videos(job(out), lambda _: None)
    assert made(out) == {}


class Container:
    def __init__(self, add_stream: Any) -> None:
        self.add_stream = add_stream

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *_: object) -> None:
        pass
