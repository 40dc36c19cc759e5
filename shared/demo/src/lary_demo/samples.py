"""`python -m lary_demo.samples FOLDER MODE ROWS FRAMES`.

Tiny clips (`video`: ROW.mp4) or image pairs (ROW-source.png, ROW-target.png) of moving squares, for checks of images.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lary_demo.files import write_clip, write_image

HEIGHT, WIDTH, SQUARE = 48, 64, 16


def write_samples(folder: Path, mode: str, rows: int, frames: int) -> None:
    """The media of `rows` rows."""
    for row in range(rows):
        if mode == "video":
            write_clip(folder / f"{row}.mp4", _clip(row, frames))
            continue
        for name, pixels in zip(("source", "target"), _clip(row, 2), strict=True):
            write_image(folder / f"{row}-{name}.png", pixels)


def _clip(row: int, frames: int) -> NDArray[np.uint8]:
    """(T, H, W, 3): a bright square that moves over noise, differently in each row."""
    drawn = np.random.default_rng(row).integers(0, 128, (frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for time, frame in enumerate(drawn):
        x, y = (3 * row + 2 * time) % (WIDTH - SQUARE), (5 * row + time) % (HEIGHT - SQUARE)
        frame[y : y + SQUARE, x : x + SQUARE] = 255 - 16 * row
    return drawn


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
