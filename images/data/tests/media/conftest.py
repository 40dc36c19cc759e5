"""What the data tools' tests share: small media and datasets on a temporary disk."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from lary_schema.cards import DatasetCard
from lary_schema.datasets import DATASETS_VARIABLE, DatasetFiles, Datasets
from lary_worker import processes
from numpy.typing import NDArray

WriteClip = Callable[..., None]
Publish = Callable[[Path, DatasetCard], None]


def frame_of(t: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A picture that differs from those of other `t` up to 40."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3 + 5 * t, y * 4 + 2 * t, np.full_like(x, 6 * t)], -1).astype(np.uint8)


@pytest.fixture
def write_clip() -> WriteClip:
    """Write `count` frames; those in `moving` (default all) each show something new."""

    def write(
        path: Path, count: int, moving: range | None = None, codec: str = "libx264", suffix: str = "", fps: int = 30,
        first: int = 0, **options: str,
    ) -> None:  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = suffix or path.suffix[1:]
        with av.open(str(path), "w", format={"mkv": "matroska", "ts": "mpegts"}.get(kind, kind)) as container:
            stream = container.add_stream(codec, rate=fps)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuv420p"
            stream.options = ({"bf": "2", "g": "12", "qp": "0", "threads": "1"} if codec == "libx264" else {}) | options
            shown = first
            for t in range(count):
                shown += moving is None or t in moving
                frame = av.VideoFrame.from_ndarray(frame_of(shown - (moving is None)), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return write


PATIENCE_S = 10_000.0
"""A task's time-out that no machine is too slow for."""


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], float]:
    """`patience(others)`: a time-out of tasks that passes once so many other tasks are over, and never before."""
    really_collect, really_wait = processes.Processes.collect, processes.wait
    jumps, over, all_others = itertools.count(1), 0, 0

    def monotonic() -> float:
        return time.monotonic() + (2 * PATIENCE_S * next(jumps) if over >= all_others else 0)

    def wait(pipes: list[Any], seconds: float | None) -> list[Any]:
        due = None if seconds is None else monotonic() + seconds
        while not (ready := really_wait(pipes, 0.02)) and (due is None or monotonic() < due):
            pass
        return ready

    def collect(pool: Any, wake: tuple[Any, ...] = ()) -> Any:
        nonlocal over
        found = really_collect(pool, wake)
        over += len(found[0])
        return found

    def begin(others: int) -> float:
        nonlocal all_others
        all_others = others
        monkeypatch.setattr(processes, "wait", wait)
        monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=monotonic))
        monkeypatch.setattr(processes.Processes, "collect", collect)
        return PATIENCE_S

    return begin


@pytest.fixture
def png() -> Callable[[Path, int], None]:
    """Write picture `t` as an image of the path's kind."""

    def write(path: Path, t: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        done, data = cv2.imencode(path.suffix, frame_of(t)[..., ::-1])
        assert done
        path.write_bytes(data.tobytes())

    return write


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Have the tools know a dataset whose data root is given, with its CSVs right below it."""
    known: list[DatasetFiles] = []

    def add(data: Path, card: DatasetCard) -> None:
        csv = {split: data / card.metadata[0].replace("{split}", split) for split in card.splits.all}
        known.append(DatasetFiles(card=card, data=data, csv=csv))
        path = tmp_path / "datasets.json"
        path.write_text(Datasets(datasets=tuple(known)).to_json(), encoding="utf-8")
        monkeypatch.setenv(DATASETS_VARIABLE, str(path))

    return add
