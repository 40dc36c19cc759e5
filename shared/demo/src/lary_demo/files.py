"""Writing what was drawn: clips, images, arrays and tables. Decoding gives back the drawn pixels."""

import csv
import struct
import zlib
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


def write_plain_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """(H, W, 3) RGB -> PNG without compression: its bytes depend on no library, and are written at once."""
    height, width, _ = pixels.shape
    # The 0 at the beginning of a line: it is not filtered.
    lines = np.zeros((height, 1 + width * 3), np.uint8)
    lines[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", _stored(lines.tobytes())), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _stored(data: bytes) -> bytes:
    """A zlib stream (RFC 1950) of stored blocks (RFC 1951, 3.2.4)."""
    most = 0xFFFF
    blocks = [data[i : i + most] for i in range(0, len(data), most)]
    heads = (struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ most) for block in blocks)
    body = b"".join(head + block for head, block in zip(heads, blocks, strict=True))
    return b"\x78\x01" + body + struct.pack(">I", zlib.adler32(data))


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A CSV with the line ends of this project, not the csv module's."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
