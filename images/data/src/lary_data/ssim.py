"""Structural similarity of grey images (Wang et al. 2004), with the constants that scikit-image has by default."""

import cv2
import numpy as np
from numpy.typing import NDArray

WINDOW = 7
"""Side of the uniform window in pixels."""
_RANGE = 255.0
_C1, _C2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean similarity of two uint8 images (H, W) of one size, at least 7 by 7: 1 for equal ones.

    Uniform 7 x 7 windows that lie inside the image, sample variances and covariance, data range 255.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _windows(x), _windows(y)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    var_x = sample * (_windows(x * x) - mean_x * mean_x)
    var_y = sample * (_windows(y * y) - mean_y * mean_y)
    cov = sample * (_windows(x * y) - mean_x * mean_y)
    above = (2 * mean_x * mean_y + _C1) * (2 * cov + _C2)
    below = (mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2)
    return float((above / below).mean())


def _windows(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """(H - 6, W - 6): the mean of each window."""
    edge = WINDOW // 2
    means: NDArray[np.float64] = cv2.blur(image, (WINDOW, WINDOW))[edge:-edge, edge:-edge]
    return means
