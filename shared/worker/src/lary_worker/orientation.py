"""Which way up a decoded picture is shown: its display matrix, as ffmpeg's autorotation takes it.

A matrix (ISO/IEC 14496-12, 6.2.2; Matroska's ProjectionPoseRoll; an H.264 or HEVC display orientation message) is
nine fixed-point numbers. ffmpeg rounds the angle to a whole degree, and turns and flips the picture; scale and
translation are for the player's canvas and are ignored, here too. ffmpeg resamples pictures at angles that are no
right ones, and ignores shear: those are refused here, since no pixel of the result would be one of the clip's.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
_TOLERANCE = math.sin(math.radians(0.5))
"""Of an angle that ffmpeg rounds to a right one."""


class UnfitMatrixError(ValueError):
    """A display matrix that no turn by right angles and no flip fulfils."""


def oriented(picture: Frames, matrix: Sequence[int]) -> Frames:
    """A picture (H, W, 3) as it is shown: (H, W, 3), or (W, H, 3) after a turn by a quarter. A view.

    `matrix` is the nine numbers `a b u c d v x y w` of the display matrix; the empty one changes nothing.
    Raises UnfitMatrixError.
    """
    (a, b), (c, d) = _signs(matrix)
    if a == 0:
        # Columns and rows change places; b and c say which way each of them runs.
        picture = picture.transpose(1, 0, 2)
        a, d = c, b
    return picture[:: d or 1, :: a or 1]


def _signs(matrix: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The matrix of the turn or flip: each entry -1, 0 or 1, one of each row and column not 0."""
    if len(matrix) != 9:
        return (1, 0), (0, 1)
    a, b, _, c, d, _, *_ = (int(value) for value in matrix)
    x, y = math.hypot(a, c), math.hypot(b, d)
    if x == 0 and y == 0:
        # No direction at all: ffmpeg and players show the picture as it is coded.
        return (1, 0), (0, 1)
    if x == 0 or y == 0:
        raise UnfitMatrixError("its display matrix flattens the picture")
    entries = np.array([[a / x, b / y], [c / x, d / y]])
    nearest = np.rint(entries).astype(int)
    if np.abs(entries - nearest).max() > _TOLERANCE or abs(int(np.linalg.det(nearest).round())) != 1:
        angle = math.degrees(math.atan2(b / y, a / x))
        raise UnfitMatrixError(
            f"its display matrix ({a / 65536:g} {b / 65536:g} {c / 65536:g} {d / 65536:g}, about {angle:.4g} degrees) "
            "is no turn by right angles and no flip"
        )
    (a, b), (c, d) = nearest.tolist()
    return (a, b), (c, d)
