"""`video --job FILE`: recorded episodes done once more, action by action, with a camera on.

So an evaluation draws no picture that its policy does not look at, its result does not depend on videos, and a video
is of its very episode: every action and state is compared with what was evaluated before the file gets its name.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from lary_schema.atomic import publish_bytes, publish_text
from lary_schema.base import ContractError, TooManyFailedError
from lary_schema.evaluation import EVALUATION_FILE, Episode, EvaluateValues, EvaluationResult, VideoJob
from lary_schema.events import Emit, Finished, Progress, Started
from lary_schema.mounts import Mounts
from lary_schema.watchdog import Watchdog
from numpy.typing import NDArray

from lary_policy.episodes import Trace, recording, written
from lary_policy.evaluate import alone, begun_before, check_surroundings, sweep, under_way, warn_of_begun
from lary_policy.policy import Observation
from lary_policy.registry import make_simulator
from lary_policy.simulator import Simulator, SimulatorError

SIDE = 256
"""Most pixels of a picture's side. Smaller pictures are enlarged, since the codec halves the resolution of colours."""
PICTURES = 600
"""Most pictures of a video. A longer episode is shown by every second one, or every third."""
_X264 = {"preset": "veryfast", "crf": "26", "maxrate": "400k", "bufsize": "800k", "threads": "1"}
"""Played by every browser; the same pictures give the same bytes; a video of ten seconds has 500 kB at most."""

Picture = NDArray[np.uint8]
"""(H, W, 3) RGB."""
Beat = Callable[[str], None]


class OtherEpisodeError(ContractError):
    """The same actions led elsewhere than when the episode was evaluated."""


def make_videos(job: VideoJob, emit: Emit) -> None:
    """Make those that are missing.

    Raises TooManyFailedError where an episode cannot be done once more; the others' videos are there. The reason is
    kept as `Episode.video_fault`, so that whoever plans the next job can leave it out.
    """
    mounts, failed = Mounts.from_env(), []
    watching = Watchdog(emit, job.id, job.stall_timeout_s, computes=job.device == "cpu")
    emit = watching.emit
    with alone(mounts.out), watching as watchdog:
        sweep(mounts.out)
        episodes = _episodes(job, mounts.out)
        missing = [one for one in episodes if not (mounts.out / one.video).exists()]
        total, skipped = len(missing), len(episodes) - len(missing)
        emit(Started(job=job.id, total=total, skipped=skipped, unit="episodes", device=job.device, pid=os.getpid()))
        warn_of_begun(emit, job.id, mounts.out, [one.state for one in missing])
        began = time.monotonic()
        for done, episode in enumerate(missing, 1):
            try:
                _one(job.values, episode, mounts.out, watchdog.beat)
            except (SimulatorError, OtherEpisodeError) as error:
                failed.append(f"state {episode.state}: {error}")
                with written(note := mounts.out / episode.video_fault):
                    publish_text(note, f"{error}\n")
            rate = round(done / max(time.monotonic() - began, 1e-9), 4)
            emit(Progress(job=job.id, done=done, total=total, failed=len(failed), per_second=rate))
        emit(Finished(job=job.id, done=total, failed=len(failed), per_second=rate if missing else 0))
    if failed:
        raise TooManyFailedError(
            f"{len(failed)} of {len(episodes)} videos of task {job.values.task} were not made, the first "
            f"({failed[0]}); its result stays as it is; the same command tries them again only with --again"
        )


def _episodes(job: VideoJob, out: Path) -> list[Episode]:
    """Those of the job, as they were evaluated; what was under way when its process died comes last."""
    result = EvaluationResult.read(out / EVALUATION_FILE)
    found = {episode.state: episode for episode in result.episodes}
    planned = {state: found[state].trace_sha256 for state in job.episodes if state in found}
    if result.fingerprint != job.values.fingerprint or planned != job.episodes:
        raise ContractError(f"{out / EVALUATION_FILE}: other episodes than planned; run the same command again")
    begun = begun_before(out)
    return [found[state] for state in sorted(job.episodes, key=lambda state: state == begun)]


def _one(values: EvaluateValues, episode: Episode, out: Path, beat: Beat) -> None:
    actions = _recorded(recording(out, values.task, episode.state))
    path = out / episode.video
    with under_way(out, episode.state), closing(make_simulator(values.benchmark, values.task)) as simulator:
        check_surroundings(values, simulator)
        content = _video(simulator, values, episode, actions, beat)
        with written(path):
            publish_bytes(path, content)
            for other in path.parent.glob(f"{episode.state}-*"):
                # Of an episode that was run again and went otherwise; and why there was none.
                if other != path:
                    other.unlink(missing_ok=True)


def _recorded(path: Path) -> NDArray[np.float32]:
    try:
        actions: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ContractError(
            f"{path}: no recorded actions: {error}; remove the file, and run the same command again"
        ) from None
    return actions.astype(np.float32, copy=False)


def _video(
    simulator: Simulator, values: EvaluateValues, episode: Episode, actions: NDArray[np.float32], beat: Beat
) -> bytes:
    """Raises OtherEpisodeError and SimulatorError."""
    camera = simulator.card.camera
    if camera is None:
        raise ContractError(f"benchmark {values.benchmark} has no pictures")
    trace = Trace()
    every = -(-(len(actions) + 1) // PICTURES)
    seen = _again(simulator, values, episode.state, actions, trace, beat)
    shown = (_picture(one, camera) for number, one in enumerate(seen) if number % every == 0 or number == len(actions))
    content = encoded(shown, Fraction(simulator.card.fps, every))
    if trace.sha256 != episode.trace_sha256:
        raise OtherEpisodeError(
            "the same actions lead elsewhere than when it was evaluated: another kind of machine, or other libraries"
        )
    return content


def _again(
    simulator: Simulator, values: EvaluateValues, state: int, actions: NDArray[np.float32], trace: Trace, beat: Beat
) -> Iterator[Observation]:
    """What the policy saw, from its first observation on, and what its last action led to."""
    assert simulator.card.camera is not None
    simulator.show((simulator.card.camera,))
    beat(f"making task {values.task}")
    observation = simulator.reset(state, values.episode_seed(state))
    idle = np.array(simulator.card.idle, np.float32)
    for _ in range(values.protocol.settle):
        beat(f"settling state {state} for a video")
        observation = simulator.step(idle).observation
    yield observation
    for number, action in enumerate(actions):
        beat(f"step {number} of state {state} for a video")
        observation = simulator.step(action).observation
        trace.add(action, simulator.state())
        yield observation


def _picture(observation: Observation, camera: str) -> Picture:
    """Raises SimulatorError for what is no picture."""
    found = observation.get(camera)
    if found is None or found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3 or not found.size:
        what = "missing" if found is None else f"{found.dtype} {found.shape}"
        raise SimulatorError(f"picture {camera} is {what}; uint8 (H, W, 3) is expected")
    return found


def sized(picture: Picture) -> Picture:
    """By a whole factor, to sides of at most `SIDE` pixels, and of an even number of them, which the codec wants."""
    longest = max(picture.shape[:2])
    if longest > SIDE:
        step = -(-longest // SIDE)
        picture = picture[::step, ::step]
    else:
        picture = picture.repeat(SIDE // longest, axis=0).repeat(SIDE // longest, axis=1)
    odd = [(0, size % 2) for size in picture.shape[:2]]
    return np.pad(picture, (*odd, (0, 0)), mode="edge")


def encoded(pictures: Iterable[Picture], rate: Fraction) -> bytes:
    """An mp4 with H.264, `rate` pictures a second. Raises SimulatorError where pictures are not of one size."""
    import av

    file, following = BytesIO(), iter(pictures)
    first = next(following)
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        try:
            stream = container.add_stream("libx264", rate=rate, options=_X264)
        except ValueError as error:
            raise ContractError(f"PyAV writes no H.264 here ({error}); install PyPI's av, or give --videos 0") from None
        stream.height, stream.width, stream.pix_fmt = *sized(first).shape[:2], "yuv420p"
        for picture in chain([first], following):
            if picture.shape != first.shape:
                raise SimulatorError(f"a picture of {picture.shape} after one of {first.shape}")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(sized(picture)), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()
