"""The files of image pairs with action chunks. Each is whole or absent."""

import io
from pathlib import Path

import cv2
import numpy as np
from lary_schema.atomic import publish_bytes
from numpy.typing import NDArray

from lary_data.pool import TaskFaultError


def write_npy(path: Path, values: NDArray[np.float32]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    publish_bytes(path, buffer.getvalue())


def write_png(path: Path, frame: NDArray[np.uint8]) -> None:
    """An RGB frame (H, W, 3) as PNG."""
    done, data = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    if not done:
        raise TaskFaultError(f"{path}: cannot be encoded as PNG")
    publish_bytes(path, data.tobytes())
