"""Writing what was drawn: clips, images, arrays and tables. Decoding gives back the drawn pixels."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

FPS = 8
_X264 = {"qp": "0", "preset": "veryfast", "threads": "1"}


def write_clip(path: Path, frames: NDArray[np.uint8]) -> None:
    """(T, H, W, 3) RGB -> mp4, H.264 without loss and without a change of colour space."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264rgb", rate=FPS, options=_X264)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "rgb24"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    """(H, W, 3) RGB -> PNG."""
    Image.fromarray(pixels).save(path, format="PNG", compress_level=1)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A CSV with the line ends of this project, not the csv module's."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
