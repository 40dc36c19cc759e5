"""The demo sets as folders of files, in LARYBench's layout."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from lary_demo import arm, motion
from lary_demo.files import write_clip, write_image, write_plain_png, write_table
from lary_demo.settings import Settings

MOTION_COLUMNS = ("dataset", "video_path", "action", "sample_indices", "episode")
ARM_COLUMNS = ("dataset", "type", "perspective", "src_img", "src_state", "tgt_img", "tgt_state", "action", "episode")
LONG_COLUMNS = ("dataset", "type", "perspective", "src_img", "tgt_img", "action", "nuisance", "instruction", "episode")
"""`episode` is the group: clips of `demo_motion` are independent, pairs of one episode of `demo_arm` are not.
`demo_arm_still` has no column `nuisance`."""


def write_motion(folder: Path, settings: Settings) -> None:
    """Clips and `metadata_{split}.csv` of `demo_motion`."""
    for split in motion.ROWS:
        below = f"{settings.name}/{split}"
        (folder / below).mkdir(parents=True)
        rows = []
        for number, clip in enumerate(motion.clips(split, settings.seed)):
            path = f"{below}/{number:04d}.mp4"
            write_clip(folder / path, clip.frames(settings.distractor))
            indices = ",".join(map(str, clip.sample_indices))
            rows.append(("demo_motion", path, clip.action, indices, f"{split}/{number:04d}"))
        write_table(folder / f"metadata_{split}.csv", MOTION_COLUMNS, rows)


def write_arm(folder: Path, settings: Settings) -> None:
    """Images, states, actions and `metadata_{split}.csv` of `demo_arm`."""
    for split in arm.EPISODES:
        rows: list[tuple[str, ...]] = []
        for number, episode in enumerate(arm.episodes(split, settings.seed)):
            name = f"{split}/{number:03d}"
            files = _write_episode(folder, f"{settings.name}/{name}", episode, settings.distractor)
            rows += [(*row, name) for row in files]
        write_table(folder / f"metadata_{split}.csv", ARM_COLUMNS, rows)


def _write_episode(folder: Path, below: str, episode: arm.Episode, distractor: int) -> list[tuple[str, ...]]:
    (folder / below).mkdir(parents=True)
    times = range(0, len(episode.actions) + 1, arm.STRIDE)
    for time in times:
        write_image(folder / f"{below}/frame_{time:02d}.png", episode.frame(time, distractor))
        np.save(folder / f"{below}/state_{time:02d}.npy", episode.state(time).vector())
    rows = []
    for source, target in pairwise(times):
        action = f"{below}/action_{source:02d}to{target - 1:02d}.npy"
        np.save(folder / action, episode.chunk(source))
        files = [f"{below}/{name}" for t in (source, target) for name in (f"frame_{t:02d}.png", f"state_{t:02d}.npy")]
        rows.append(("demo_arm", "robot", "3rd", *files, action))
    return rows


def write_long(key: str, folder: Path, settings: Settings) -> None:
    """Images, actions and `metadata_{split}.csv` of `demo_arm_still` or `demo_arm_long`; of this also the nuisance."""
    measured = key == "demo_arm_long"
    for split in arm.LONG_EPISODES:
        rows: list[tuple[str, ...]] = []
        for number, episode in enumerate(arm.long_episodes(split, settings.seed)):
            name = f"{split}/{number:03d}"
            pairs = _write_long_episode(folder, f"{settings.name}/{name}", episode, settings.distractor, measured)
            rows += [(key, "robot", "3rd", *pair, name) for pair in pairs]
        columns = LONG_COLUMNS if measured else tuple(c for c in LONG_COLUMNS if c != "nuisance")
        write_table(folder / f"metadata_{split}.csv", columns, rows)


def _write_long_episode(
    folder: Path, below: str, episode: arm.Episode, distractor: int, measured: bool
) -> Iterator[tuple[str, ...]]:
    """Every frame once; the cells of each pair of frames that are STRIDE apart."""
    (folder / below).mkdir(parents=True)
    last = len(episode.actions)
    images = [f"{below}/frame_{time:02d}.png" for time in range(last + 1)]
    for time, image in enumerate(images):
        write_plain_png(folder / image, episode.frame(time, distractor))
    for time in range(last + 1 - arm.STRIDE):
        span = f"{time:02d}to{time + arm.STRIDE - 1:02d}.npy"
        arrays = {"action": episode.chunk(time)} | ({"nuisance": episode.nuisance(time)} if measured else {})
        for name, array in arrays.items():
            np.save(folder / below / f"{name}_{span}", array)
        files = (f"{below}/{name}_{span}" for name in arrays)
        yield images[time], images[time + arm.STRIDE], *files, " ".join(episode.words(time))


WRITERS: dict[str, Callable[[Path, Settings], None]] = {
    "demo_motion": write_motion,
    "demo_arm": write_arm,
    "demo_arm_long": partial(write_long, "demo_arm_long"),
    "demo_arm_still": partial(write_long, "demo_arm_still"),
}
