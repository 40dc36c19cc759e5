"""Where what belongs to an episode lies in a generated data set."""

from dataclasses import dataclass
from pathlib import Path

CHUNK = 1000
"""Files in a folder of a LeRobot dataset."""


@dataclass(frozen=True)
class Layout:
    """Every path of a set; names that stand in tables are relative to `root`."""

    root: Path

    @property
    def settings(self) -> Path:
        return self.root / "generate.json"

    @property
    def lock(self) -> Path:
        """Held while a process writes here."""
        return self.root / "lock"

    @property
    def lerobot(self) -> Path:
        return self.root / "lerobot"

    def marker(self, episode: int) -> Path:
        """Written last of what an episode has: it is whole where this is."""
        return self.root / "episodes" / f"{episode:06d}.json"

    def arrays(self, episode: int) -> Path:
        return self.root / "episodes" / f"{episode:06d}.npz"

    def video(self, camera: str, episode: int) -> str:
        """An episode has a video file of its own, so that it can be written, and be missing, alone."""
        name = video_name(camera, episode // CHUNK, episode % CHUNK)
        return f"lerobot/{name}"

    def frame(self, episode: int, step: int) -> str:
        return f"frames/{episode:06d}/{step:06d}.png"

    def chunk(self, episode: int, step: int) -> str:
        return f"actions/{episode:06d}/{step:06d}.npy"

    def nuisance(self, episode: int, step: int) -> str:
        return f"nuisance/{episode:06d}/{step:06d}.npy"


def video_key(camera: str) -> str:
    """The name of a camera as a feature of a LeRobot dataset."""
    return f"observation.images.{camera}"


def video_name(camera: str, chunk: int, file: int) -> str:
    """Below the LeRobot dataset."""
    return f"videos/{video_key(camera)}/chunk-{chunk:03d}/file-{file:03d}.mp4"
